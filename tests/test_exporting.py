"""Where telemetry goes, and how exporters are found."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from msgtap.exporting import DEFAULT, SIGNALS, Exporter, Pipelines, build, exporter_names
from msgtap.settings import SettingsError
from msgtap.testing.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HTTP = "http://127.0.0.1:4318"

CHOICES: list[tuple[dict[str, str], tuple[list[str], list[str], list[str]]]] = [
    ({}, ([DEFAULT], [DEFAULT], [DEFAULT])),
    ({"MSGTAP_EXPORTERS": ""}, ([DEFAULT], [DEFAULT], [DEFAULT])),
    ({"MSGTAP_EXPORTERS": "otlp"}, (["otlp"], ["otlp"], ["otlp"])),
    ({"MSGTAP_EXPORTERS": " otlp, console ,"}, (["otlp", "console"],) * 3),
    ({"MSGTAP_EXPORTERS": "none"}, ([], [], [])),
    ({"MSGTAP_EXPORTERS": "console", "OTEL_TRACES_EXPORTER": "otlp"}, (["console"],) * 3),
    ({"OTEL_TRACES_EXPORTER": "otlp"}, (["otlp"], [], [])),
    ({"OTEL_TRACES_EXPORTER": "otlp,console", "OTEL_METRICS_EXPORTER": "none"}, (["otlp", "console"], [], [])),
    ({"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}, ([], [], [])),
    ({"OTEL_LOGS_EXPORTER": "console"}, ([], [], ["console"])),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": HTTP}, (["otlp"], ["otlp"], ["otlp"])),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": HTTP, "OTEL_METRICS_EXPORTER": "none"}, (["otlp"], [], ["otlp"])),
    ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": HTTP + "/v1/traces"}, (["otlp"], [], [])),
    ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": HTTP + "/v1/metrics"}, ([], ["otlp"], [])),
    ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ([DEFAULT], [DEFAULT], [DEFAULT])),
]


@pytest.mark.parametrize(("environ", "chosen"), CHOICES)
def test_environment(environ: dict[str, str], chosen: tuple[list[str], ...]) -> None:
    """What each variable asks for, by signal; a signal that OpenTelemetry's variables leave out is not exported."""
    assert chosen == tuple(exporter_names(signal, environ) for signal in SIGNALS)


@pytest.fixture(autouse=True)
def _standard_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("OTEL_", "MSGTAP_")):
            monkeypatch.delenv(name)


@pytest.fixture
def made() -> Iterator[list[Pipelines]]:
    """Pipelines to shut down after the test."""
    pipelines: list[Pipelines] = []
    yield pipelines
    for one in pipelines:
        for provider in (one.tracer_provider, one.meter_provider, one.logger_provider):
            provider.shutdown()


def built(made: list[Pipelines], given: Sequence[str | Exporter] | None, **environ: str) -> Pipelines:
    """Pipelines to those exporters."""
    made.append(build(given, "test", environ))
    return made[-1]


def emit(pipelines: Pipelines) -> None:
    """One span, one point and one log record."""
    pipelines.tracer_provider.get_tracer("t").start_span("a span").end()
    pipelines.meter_provider.get_meter("t").create_counter("a.counter").add(1)
    pipelines.logger_provider.get_logger("t").emit(body="a log record")


def test_all_signals(made: list[Pipelines]) -> None:
    """An exporter gets spans, points and log records, each of which names the service."""
    memory = Memory()
    emit(built(made, [memory.exporter]))
    (span,), (log,), metrics = memory.spans, memory.logs, memory.metrics
    assert metrics is not None
    assert ("a span", "a log record") == (span.name, log.log_record.body)
    assert ["a.counter"] == [metric.name for metric in metrics.resource_metrics[0].scope_metrics[0].metrics]
    named = [span.resource, log.resource, metrics.resource_metrics[0].resource]
    assert ["test"] * 3 == [resource.attributes["service.name"] for resource in named]


def test_several(made: list[Pipelines]) -> None:
    """Each of several exporters gets everything; what one does not carry, the others do."""
    one, other, partial = Memory(), Memory(), InMemorySpanExporter()
    emit(built(made, [one.exporter, Exporter(traces=partial, immediate=True), other.exporter]))
    assert [1, 1, 1] == [len(one.spans), len(partial.get_finished_spans()), len(other.spans)]
    assert [1, 1] == [len(one.logs), len(other.logs)]


def test_none(made: list[Pipelines]) -> None:
    """No exporter at all is a choice, too."""
    emit(built(made, []))


def test_batches(made: list[Pipelines]) -> None:
    """Spans and log records go out in batches, unless the exporter wants them at once."""
    at_once = Memory()
    batched = Exporter(traces=(spans := InMemorySpanExporter()), logs=(logs := type(at_once._logs)()))
    pipelines = built(made, [at_once.exporter, batched])
    emit(pipelines)
    assert (1, 1) == (len(at_once.spans), len(at_once.logs))
    pipelines.tracer_provider.force_flush()
    pipelines.logger_provider.force_flush()
    assert (1, 1) == (len(spans.get_finished_spans()), len(logs.get_finished_logs()))


SERVICES: list[tuple[str | None, dict[str, str], list[str], str]] = [
    ("given", {"OTEL_SERVICE_NAME": "variable"}, ["app.py"], "given"),
    (None, {"OTEL_SERVICE_NAME": "variable"}, ["app.py"], "variable"),
    (None, {"OTEL_RESOURCE_ATTRIBUTES": "a=b, service.name=attribute"}, ["app.py"], "attribute"),
    (
        None,
        {"OTEL_SERVICE_NAME": "variable", "OTEL_RESOURCE_ATTRIBUTES": "service.name=attribute"},
        ["app.py"],
        "variable",
    ),
    ("given", {"OTEL_RESOURCE_ATTRIBUTES": "service.name=attribute"}, ["app.py"], "given"),
    (None, {"OTEL_RESOURCE_ATTRIBUTES": "peer.service.name=other"}, ["app.py"], "app"),
    ("", {}, ["app.py"], "app"),
    (None, {}, ["/srv/claims/intake.py"], "intake"),
    (None, {}, ["/usr/bin/gunicorn"], "gunicorn"),
    (None, {}, ["/srv/claims/__main__.py"], "claims"),
    (None, {}, ["-c"], "python"),
    (None, {}, ["-"], "python"),
    (None, {}, [""], "python"),
    (None, {}, [], "python"),
]


@pytest.mark.parametrize(("given", "environ", "arguments", "name"), SERVICES)
def test_service_name(
    given: str | None,
    environ: dict[str, str],
    arguments: list[str],
    name: str,
    *,
    made: list[Pipelines],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The service is named by the argument, else by OpenTelemetry's variables, else for the script that runs."""
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "argv", arguments)
    made.append(build([], given, environ))
    attributes = made[-1].tracer_provider.resource.attributes
    assert name == attributes["service.name"]
    assert ("b" if "a=b" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "") else None) == attributes.get("a")


@pytest.mark.parametrize("name", ["nonesuch", "Otlp", ""])
def test_unknown(name: str) -> None:
    """An unknown name is an error that lists the names that are installed."""
    with pytest.raises(SettingsError) as raised:
        build([name], None, {})
    assert f"no exporter named {name!r}; installed: console, otlp, sqlite" == str(raised.value)


def test_unknown_in_the_environment() -> None:
    """So is one that a variable names."""
    with pytest.raises(SettingsError, match=r"no exporter named 'zipkin'; installed: console, otlp, sqlite"):
        build(None, None, {"OTEL_TRACES_EXPORTER": "zipkin"})


def test_a_text_for_a_list() -> None:
    """A single name where a list belongs is told apart from a list of letters."""
    with pytest.raises(SettingsError, match=r"^exporters: expected a list such as \['otlp'\]$"):
        build("otlp", None, {})


PLUGIN = """
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from msgtap.exporting import Exporter

calls = []
spans, reader = InMemorySpanExporter(), InMemoryMetricReader()

def exporter():
    calls.append("made")
    return Exporter(traces=spans, metrics=reader, immediate=True)

def refusing():
    raise ValueError("PLUGIN_URL is not set")

def sdk_exporter():
    return spans

def sdk_reader():
    return reader
"""
ENTRY_POINTS = """
[msgtap.exporters]
plugin = msgtap_test_plugin:exporter
refusing = msgtap_test_plugin:refusing
broken = msgtap_test_plugin_that_is_missing:exporter

[opentelemetry_traces_exporter]
sdk_plugin = msgtap_test_plugin:sdk_exporter

[opentelemetry_metrics_exporter]
sdk_plugin = msgtap_test_plugin:sdk_reader
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A third party's distribution, as good as installed; its module."""
    (tmp_path / "msgtap_test_plugin.py").write_text(PLUGIN)
    info = tmp_path / "msgtap_test_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: msgtap-test-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "msgtap_test_plugin", raising=False)
    import msgtap_test_plugin  # type: ignore[import-not-found]

    monkeypatch.setitem(sys.modules, "msgtap_test_plugin", msgtap_test_plugin)
    return msgtap_test_plugin


def test_third_party(plugin: Any, made: list[Pipelines]) -> None:
    """An exporter of somebody else's is found by its entry point, and made once for all its signals."""
    emit(built(made, ["plugin"]))
    assert ["made"] == plugin.calls
    assert ["a span"] == [span.name for span in plugin.spans.get_finished_spans()]
    assert plugin.reader.get_metrics_data() is not None


@pytest.mark.usefixtures("plugin")
def test_third_party_is_listed() -> None:
    """It is among the names that an error lists."""
    with pytest.raises(SettingsError, match=r"installed: broken, console, otlp, plugin, refusing, sqlite$"):
        build(["plugged"], None, {})


def test_exporters_of_the_sdk(plugin: Any, made: list[Pipelines]) -> None:
    """What is registered with OpenTelemetry's SDK only, for one signal, works in a program of ours."""
    names = {"OTEL_TRACES_EXPORTER": "sdk_plugin", "OTEL_METRICS_EXPORTER": "sdk_plugin"}
    pipelines = built(made, None, **names)
    emit(pipelines)
    pipelines.tracer_provider.force_flush()
    assert ["a span"] == [span.name for span in plugin.spans.get_finished_spans()]
    assert isinstance(plugin.reader, InMemoryMetricReader)
    assert plugin.reader.get_metrics_data() is not None


FAILURES = [
    ("refusing", "exporter refusing: PLUGIN_URL is not set"),
    ("broken", "exporter broken: No module named 'msgtap_test_plugin_that_is_missing'"),
]


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(("name", "error"), FAILURES)
def test_third_party_fails(name: str, error: str) -> None:
    """An exporter that cannot be made says so under its name."""
    with pytest.raises(SettingsError) as raised:
        build([name], None, {})
    assert error == str(raised.value)
