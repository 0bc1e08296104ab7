"""Which protocol is spoken for which signal."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

import msgtap
import msgtap_otlp
from msgtap.exporting import SIGNALS, build
from msgtap.settings import SettingsError
from msgtap.testing import replies
from msgtap.testing.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMON = "OTEL_EXPORTER_OTLP_PROTOCOL"
TRACES, METRICS, LOGS = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL" for signal in SIGNALS)
HTTP, GRPC = "http/protobuf", "grpc"

CHOICES: list[tuple[dict[str, str], tuple[str, str, str]]] = [
    ({}, (HTTP, HTTP, HTTP)),
    ({COMMON: ""}, (HTTP, HTTP, HTTP)),
    ({COMMON: HTTP}, (HTTP, HTTP, HTTP)),
    ({COMMON: GRPC}, (GRPC, GRPC, GRPC)),
    ({COMMON: " grpc "}, (GRPC, GRPC, GRPC)),
    ({TRACES: GRPC}, (GRPC, HTTP, HTTP)),
    ({METRICS: GRPC}, (HTTP, GRPC, HTTP)),
    ({LOGS: GRPC}, (HTTP, HTTP, GRPC)),
    ({COMMON: GRPC, LOGS: HTTP}, (GRPC, GRPC, HTTP)),
    ({COMMON: GRPC, LOGS: ""}, (GRPC, GRPC, GRPC)),
]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without OpenTelemetry's variables."""
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def parts(environment: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[list[Any]]:
    """The exporters of the SDK that are made in that environment."""
    for name, value in request.param.items():
        environment.setenv(name, value)
    made = msgtap_otlp.exporter()
    found = [getattr(made, signal) for signal in SIGNALS]
    yield found
    for part in found:
        part.shutdown()


@pytest.mark.parametrize(("parts", "protocols"), CHOICES, indirect=["parts"])
def test_choice(parts: list[Any], protocols: tuple[str, ...]) -> None:
    """A signal's own variable wins over the common one, which wins over http/protobuf; the exporter is the SDK's."""
    packages = [f"opentelemetry.exporter.otlp.proto.{protocol.partition('/')[0]}." for protocol in protocols]
    assert [True] * 3 == [
        type(part).__module__.startswith(package) for part, package in zip(parts, packages, strict=True)
    ]
    assert ["OTLPSpanExporter", "OTLPMetricExporter", "OTLPLogExporter"] == [type(part).__name__ for part in parts]


BAD = [
    ({COMMON: "http/json"}, "OTEL_EXPORTER_OTLP_PROTOCOL='http/json'"),
    ({TRACES: "http"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL='http'"),
    ({COMMON: GRPC, LOGS: "GRPC"}, "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL='GRPC'"),
]


@pytest.mark.parametrize(("environ", "said"), BAD)
def test_bad_protocol(environ: dict[str, str], said: str, environment: pytest.MonkeyPatch) -> None:
    """Any other protocol is an error that names the variable, and those that would have worked."""
    for name, value in environ.items():
        environment.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        build(["otlp"], None, {})
    assert f"exporter otlp: {said} is none of http/protobuf, grpc" == str(raised.value)


def test_grpc_is_optional() -> None:
    """Nothing of gRPC is imported where it is not spoken."""
    code = "import sys, msgtap_otlp; msgtap_otlp.exporter(); print('grpc' in sys.modules)"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    assert ("False\n", "") == (done.stdout, done.stderr)


def test_standard_variables(environment: pytest.MonkeyPatch) -> None:
    """Endpoint, headers and compression are OpenTelemetry's variables; the exporter's own requests are not observed."""
    environment.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k-1")
    environment.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    with Endpoint([replies.json_reply(200, {})]) as collector, Endpoint([replies.message()]) as endpoint:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        pipelines = build(["otlp"], "claims", {})
        providers = (pipelines.tracer_provider, pipelines.meter_provider, pipelines.logger_provider)
        msgtap.instrument(
            tracer_provider=pipelines.tracer_provider,
            meter_provider=pipelines.meter_provider,
            logger_provider=pipelines.logger_provider,
            endpoints=[msgtap.Endpoint(path="/v1/*")],
        )
        try:
            httpx2.post(endpoint.url + "/v1/messages", json={"model": "m", "messages": []})
            assert msgtap.flush()
        finally:
            msgtap.uninstrument()
            for provider in providers:
                provider.shutdown()
        sent = collector.received
    assert {"/v1/traces", "/v1/metrics", "/v1/logs"} == {received.target for received in sent}
    for received in sent:
        assert ("k-1", "gzip", "application/x-protobuf") == (
            received.header("x-key"),
            received.header("content-encoding"),
            received.header("content-type"),
        )
        assert b"\x1f\x8b" == received.body[:2]
    assert 1 == sum(received.target == "/v1/traces" for received in sent)
