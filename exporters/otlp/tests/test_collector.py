"""A collector that is not ours gets spans, metrics and log records of real calls, by either protocol.

It is rotel, a program in a wheel, which prints all that it receives.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from msgtap.testing import replies
from msgtap.testing.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 20.0
"""Most seconds to wait for the collector: to be there, and to print."""

PROGRAM = """
import sys
import anthropic, httpx2, msgtap

url, service = sys.argv[1:]
msgtap.configure(exporters=["otlp"], service_name=service)
asked = {"model": "claude-sonnet-5", "max_tokens": 64, "messages": [{"role": "user", "content": "Classify."}]}
claims = {"session_id": "s-1", "user": "u-7", "trace": {"trace_name": "claims", "tenant": "acme"}}
httpx2.post(url + "/v1/messages", json={**asked, **claims})
with anthropic.Anthropic(api_key="k", base_url=url) as client:
    for _ in client.messages.create(**asked, extra_body=claims, stream=True):
        pass
"""


@dataclass(frozen=True, kw_only=True)
class Collector:
    """A collector that runs.

    Args:
        endpoints: By protocol.
        printed: What it prints.
    """

    endpoints: dict[str, str]
    printed: Path

    def of(self, service: str) -> dict[str, str]:
        """What it has printed for a service, by the kind of resource."""
        blocks = re.split(r"^Resource(Log|Metrics|Spans) #", self.printed.read_text(), flags=re.MULTILINE)
        found: dict[str, str] = {}
        for kind, block in zip(blocks[1::2], blocks[2::2], strict=True):
            if f"-> service.name: Str({service})\n" in block:
                found[kind] = found.get(kind, "") + block
        return found

    def wait(self, service: str, *wanted: tuple[str, str, int]) -> dict[str, str]:
        """The same, once each text is there as often as wanted, or patience is at its end."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = self.of(service)
            there = all(found.get(kind, "").count(text) >= number for kind, text, number in wanted)
            if there or time.monotonic() > deadline:
                return found
            time.sleep(0.05)  # until it prints, which nothing else announces


def free_ports(number: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listened on a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [int(one.getsockname()[1]) for one in sockets]


def answers(port: int) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def start(agent: Path, folder: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """The collector, and its ports for gRPC and HTTP, once it answers on both."""
    options = [f"--debug-log={signal}" for signal in ("traces", "metrics", "logs")]
    options += ["--exporter=blackhole", "--debug-log-verbosity=detailed", "--batch-timeout=20ms"]
    options += [f"--pid-file={folder / 'pid'}", f"--log-file={folder / 'log'}"]
    library = str(sysconfig.get_config_var("LIBDIR"))  # the program is linked to libpython
    for _ in range(3):  # somebody else may have taken a port meanwhile
        ports = free_ports(2)
        listen = [
            f"--otlp-{kind}-endpoint=127.0.0.1:{port}" for kind, port in zip(("grpc", "http"), ports, strict=True)
        ]
        with (folder / "printed").open("wb") as printed:
            process = subprocess.Popen(
                [agent, "start", *listen, *options],
                stdout=printed,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LD_LIBRARY_PATH": library},
            )
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            if all(map(answers, ports)):
                return process, ports
            time.sleep(0.05)
        process.kill()
        process.wait()
        said = (folder / "printed").read_text()
        if "error while loading shared libraries" in said:
            pytest.skip(f"rotel cannot run on this Python, which is no shared library: {said}")
    raise AssertionError(said)


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A rotel of our own on free ports."""
    found = find_spec("rotel")
    if found is None or found.origin is None:
        pytest.skip("rotel has no wheel for this Python or this machine")
    folder = tmp_path_factory.mktemp("rotel")
    process, (grpc, http) = start(Path(found.origin).with_name("rotel-agent"), folder)
    try:
        yield Collector(
            endpoints={"grpc": f"http://127.0.0.1:{grpc}", "http/protobuf": f"http://127.0.0.1:{http}"},
            printed=folder / "printed",
        )
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def attributes(block: str) -> set[str]:
    """The attributes of a block, each as ``name: Type(value)``."""
    return set(re.findall(r"^ +-> (\S+: \w+\(.*\))$", block, flags=re.MULTILINE))


ASKED = {
    "gen_ai.operation.name: Str(chat)",
    "gen_ai.provider.name: Str(anthropic)",
    "gen_ai.request.model: Str(claude-sonnet-5)",
    "server.address: Str(127.0.0.1)",
}
TOLD = {
    "session.id: Str(s-1)",
    "user.id: Str(u-7)",
    "openrouter.trace.trace_name: Str(claims)",
    "trace.metadata.tenant: Str(acme)",
    "gen_ai.request.max_tokens: Int(64)",
    "gen_ai.response.model: Str(claude-sonnet-5-20260901)",
    "gen_ai.response.finish_reasons: Slice(Str(stop))",
    "gen_ai.usage.input_tokens: Int(6812)",
    "gen_ai.usage.output_tokens: Int(188)",
}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_collector(protocol: str, collector: Collector) -> None:
    """Two calls, by httpx2 and by the SDK, arrive as two spans, their metrics and two log records, with attributes."""
    service = f"claims-{protocol.partition('/')[0]}"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "MSGTAP_"))}
    environ |= {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoints[protocol]}
    with Endpoint([replies.message(), replies.stream()]) as endpoint:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, endpoint.url, service],
            capture_output=True,
            text=True,
            check=False,
            env=environ,
            timeout=60,
        )
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    found = collector.wait(
        service, ("Spans", "\nSpan #", 2), ("Log", "\nLogRecord #", 2), ("Metrics", "msgtap.tokens", 1)
    )
    spans = re.split(r"^Span #", found["Spans"], flags=re.MULTILINE)[1:]
    by_name = {re.findall(r"^ +Name +: (.*)$", span, flags=re.MULTILINE)[0]: span for span in spans}
    assert {"chat claude-sonnet-5", "anthropic.messages.create"} == set(by_name)
    for span in spans:
        assert ASKED | TOLD <= attributes(span)
        assert "Kind           : SPAN_KIND_CLIENT" in span
    records = re.split(r"^LogRecord #", found["Log"], flags=re.MULTILINE)[1:]
    assert 2 == len(records)
    for record in records:
        assert ASKED | TOLD <= attributes(record)
        assert "\nEventName: messages.call\n" in record
        assert "\nSeverityText: INFO\n" in record
    ids = re.compile(r"^ +Trace ID +: (\w{32})\n(?:.*\n)?^ +(?:Span )?ID +: (\w{16})$", re.MULTILINE)
    assert {ids.findall(span)[0] for span in spans} == {ids.findall(record)[0] for record in records}
    check_metrics(found["Metrics"])


def check_metrics(printed: str) -> None:
    """Both calls are in the points of each metric."""
    metrics = re.split(r"^Metric #", printed, flags=re.MULTILINE)[1:]
    by_name = {re.findall(r"-> Name: (.*)$", metric, flags=re.MULTILINE)[0]: metric for metric in metrics}
    units = {name: re.findall(r"-> Unit: (.*)$", metric, flags=re.MULTILINE)[0] for name, metric in by_name.items()}
    assert {
        "gen_ai.client.operation.duration": "s",
        "gen_ai.client.operation.time_to_first_chunk": "s",
        "gen_ai.client.token.usage": "{token}",
        "msgtap.calls.active": "{call}",
        "msgtap.tokens": "{token}",
    } == units
    duration = by_name["gen_ai.client.operation.duration"]
    assert ASKED <= attributes(duration)
    assert "\nCount: 2\n" in duration
    assert "ExplicitBounds #16: 655.36" in duration
    assert {"1"} == set(
        re.findall(r"^Count: (\d+)$", by_name["gen_ai.client.operation.time_to_first_chunk"], re.MULTILINE)
    )
    assert [str(2 * 6812), str(2 * 188)] == re.findall(
        r"^Sum: (\d+)$", by_name["gen_ai.client.token.usage"], flags=re.MULTILINE
    )
    assert {"msgtap.token.class: Str(cache_read)", "msgtap.token.class: Str(output)"} <= attributes(
        by_name["msgtap.tokens"]
    )
    assert f"\nValue: {2 * 4900}\n" in by_name["msgtap.tokens"]
    assert re.search(r"^Value: 0$", by_name["msgtap.calls.active"], flags=re.MULTILINE)
    assert not {"session.id", "user.id"} & {attribute.partition(":")[0] for attribute in attributes(printed)}
