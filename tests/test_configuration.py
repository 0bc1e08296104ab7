"""One line of code, or none: what it takes to observe a program, and to stop. Global state is a child process's."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import msgtap
from msgtap import tap
from msgtap.configuration import Instrumentor
from msgtap.exporting import build
from msgtap.testing import capture_calls, replies
from msgtap.testing.endpoint import Endpoint
from msgtap.testing.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Iterator

PRELUDE = """
import sys
import httpx, msgtap
from opentelemetry import _logs, metrics, trace
from msgtap.testing import replies
from msgtap.testing.endpoint import Endpoint
from msgtap.testing.memory import Memory

def ask(**more):
    with Endpoint([replies.message()]) as endpoint:
        httpx.post(endpoint.url + "/v1/messages", json={"model": "m", "messages": [], **more})
"""


def run(code: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A program of those lines, in an environment of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "MSGTAP_"))}
    return subprocess.run(
        [*(arguments or (sys.executable,)), "-c", PRELUDE + code],
        capture_output=True,
        text=True,
        check=False,
        env={**inherited, **environ},
        timeout=60,
    )


def test_configure() -> None:
    """One line: spans, points and log records on the console, on standard error only, the rest of them at exit."""
    done = run('msgtap.configure(exporters=["console"])\nask(session_id="s-1")')
    assert (0, "") == (done.returncode, done.stdout)
    lines = done.stderr.splitlines()
    assert 1 == sum(line.startswith("span     chat m  ") for line in lines)
    assert 1 == lines.count("         session.id = 's-1'")
    assert 1 == sum(line.startswith("log      messages.call  INFO") and " session.id=s-1 " in line for line in lines)
    assert 1 == sum(line.startswith("metric   gen_ai.client.operation.duration count=1") for line in lines)


NAMED = [
    ({}, ["none"] * 3),  # but for the store, which says nothing
    ({"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none"}, ["console", "none", "none"]),
]


@pytest.mark.parametrize(("environ", "exporters"), NAMED)
def test_environment(environ: dict[str, str], exporters: list[str]) -> None:
    """Without arguments the environment says where each signal goes."""
    done = run("msgtap.configure()\nask()", **environ)
    assert (0, "") == (done.returncode, done.stdout)
    seen = [line.split()[0] for line in done.stderr.splitlines() if not line.startswith(" ")]
    kinds = ("span", "metric", "log")
    assert exporters == ["console" if kind in seen else "none" for kind in kinds]


def test_otlp_endpoint() -> None:
    """An endpoint for OTLP is reason enough to send there, and a collector that is away fails no call."""
    with Endpoint([replies.html_error(404)]) as collector:
        done = run(
            "msgtap.configure()\nask()\nprint('done')",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPORTER_OTLP_TIMEOUT="5",
        )
        assert {"/v1/traces", "/v1/metrics", "/v1/logs"} == {received.target for received in collector.received}
    assert (0, "done\n") == (done.returncode, done.stdout)


def test_service_name() -> None:
    """The service is named by the argument; it stands on all that is exported."""
    code = """
memory = Memory()
msgtap.configure(exporters=[memory.exporter], service_name="claims")
ask()
resources = [memory.spans[0].resource, memory.logs[0].resource, memory.metrics.resource_metrics[0].resource]
print(*[resource.attributes["service.name"] for resource in resources])
"""
    assert "claims claims claims\n" == run(code, OTEL_SERVICE_NAME="other").stdout


PROVIDERS = [
    ("tracer", "trace.set_tracer_provider(pipelines.tracer_provider)"),
    ("meter", "metrics.set_meter_provider(pipelines.meter_provider)"),
    ("logger", "_logs.set_logger_provider(pipelines.logger_provider)"),
]


def test_a_program_with_providers() -> None:
    """A program that has any provider of its own is told to call `instrument` instead."""
    code = "from msgtap.exporting import build\npipelines = build([], None, {})\n"
    for kind, statement in PROVIDERS:
        done = run(code + statement + "\nmsgtap.configure()")
        assert (
            f"msgtap.settings.SettingsError: this program has an OpenTelemetry {kind} provider: "
            "call msgtap.instrument() instead"
        ) == done.stderr.splitlines()[-1]


def test_configure_twice() -> None:
    """A second call changes the settings, and neither the providers nor how often anything is exported."""
    code = """
memory, other = Memory(), Memory()
msgtap.configure(exporters=[memory.exporter])
provider = trace.get_tracer_provider()
msgtap.configure(exporters=[other.exporter], identifiers="hash")
assert trace.get_tracer_provider() is provider
ask(session_id="s-1")
print(len(memory.spans), len(memory.logs), len(other.spans), memory.spans[0].attributes["session.id"])
"""
    done = run(code)
    assert (f"1 1 0 {hashlib.sha256(b's-1').hexdigest()[:32]}\n", "") == (done.stdout, done.stderr)


def test_a_bad_setting_changes_nothing() -> None:
    """A setting that means nothing leaves the program as it was: no provider, nothing observed."""
    code = """
for arguments in ({"exporters": ["nonesuch"]}, {"exporters": ["console"], "logs": "loud"}):
    try:
        msgtap.configure(**arguments)
    except msgtap.SettingsError as error:
        print(error)
ask()
print(type(trace.get_tracer_provider()).__name__)
msgtap.configure(exporters=[])
print(type(trace.get_tracer_provider()).__name__)
"""
    done = run(code)
    expected = [
        "no exporter named 'nonesuch'; installed: console, otlp, sqlite",
        "logs: 'loud' is none of off, stdlib, json, console",
        "ProxyTracerProvider",
        "TracerProvider",
    ]
    assert (expected, "") == (done.stdout.splitlines(), done.stderr)


def test_disabled() -> None:
    """Switched off, nothing is set up and nothing is wrapped, whatever the program asks for."""
    code = """
msgtap.configure(exporters=["console"], logs="json")
msgtap.instrument(logs="json")
ask()
print(type(trace.get_tracer_provider()).__name__, "opentelemetry.sdk.trace" in sys.modules)
print(hasattr(httpx.Client._send_single_request, "__wrapped__"))
msgtap.flush()
msgtap.uninstrument()
"""
    # The testing package itself imports the SDK.
    done = run(code, MSGTAP_DISABLED="1")
    assert (["ProxyTracerProvider True", "False"], "") == (done.stdout.splitlines(), done.stderr)


@pytest.mark.parametrize(("last", "code"), [("sys.exit(3)", 3), ("raise RuntimeError", 1)])
def test_exit_flushes(last: str, code: int) -> None:
    """What is still in a batch when the program ends, however it does, is exported; so is a call that is still open."""
    program = """
from opentelemetry.sdk.trace.export import ConsoleSpanExporter
from msgtap.exporting import Exporter
spans = ConsoleSpanExporter(formatter=lambda span: f"{span.name} {span.attributes.get('msgtap.ended')}\\n")
msgtap.configure(exporters=[Exporter(traces=spans)])
ask(model="first")
endpoint = Endpoint([replies.cut_stream(3, ending=replies.HANG)]).__enter__()
client = httpx.Client()
request = client.build_request("POST", endpoint.url + "/v1/messages", json={"model": "second", "stream": True})
response = client.send(request, stream=True)
chunks = response.iter_raw()
next(chunks)
"""
    done = run(program + last)
    assert (code, ["chat first None", "chat second exit"]) == (done.returncode, done.stdout.splitlines())


def test_flush() -> None:
    """`flush` empties the batches, and says whether all went out."""
    code = """
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from msgtap.exporting import Exporter
spans = InMemorySpanExporter()
msgtap.configure(exporters=[Exporter(traces=spans)])
ask()
before = len(spans.get_finished_spans())
print(before, msgtap.flush(), len(spans.get_finished_spans()))
"""
    done = run(code)
    assert ("0 True 1\n", "") == (done.stdout, done.stderr)


@pytest.fixture
def instrumented() -> Iterator[tuple[Memory, dict[str, Any]]]:
    """Providers of this process that nobody else uses."""
    memory = Memory()
    pipelines = build([memory.exporter], "test", {})
    providers: dict[str, Any] = {
        "tracer_provider": pipelines.tracer_provider,
        "meter_provider": pipelines.meter_provider,
        "logger_provider": pipelines.logger_provider,
    }
    yield memory, providers
    msgtap.uninstrument()
    for provider in providers.values():
        provider.shutdown()


def ask(endpoint: Endpoint, **more: Any) -> None:
    """One call by httpx."""
    httpx.post(endpoint.url + "/v1/messages", json={"model": "m", "messages": [], **more})


def test_uninstrument(instrumented: tuple[Memory, dict[str, Any]]) -> None:
    """A switch: nothing is observed until it is turned on again; a call that is open is seen to its end."""
    memory, providers = instrumented
    with Endpoint([replies.stream()]) as endpoint, httpx.Client() as client:
        ask(endpoint)  # before
        msgtap.instrument(**providers)
        request = client.build_request("POST", endpoint.url + "/v1/messages", json={"model": "open", "stream": True})
        response = client.send(request, stream=True)
        msgtap.uninstrument()
        assert tap.watcher() is None
        ask(endpoint)
        assert [] == [*memory.spans]
        response.read()
        msgtap.uninstrument()
        msgtap.instrument(**providers)
        ask(endpoint)
    assert ["chat open", "chat m"] == [span.name for span in memory.spans]


def test_instrument_again(instrumented: tuple[Memory, dict[str, Any]]) -> None:
    """Called again, `instrument` changes the settings: ids, hosts, processors."""
    memory, providers = instrumented
    with Endpoint([replies.message()]) as endpoint:
        msgtap.instrument(**providers, exclude=["127.0.0.1"])
        ask(endpoint)
        assert [] == [*memory.spans]
        msgtap.instrument(**providers, endpoints=[msgtap.Endpoint(host="127.0.0.1", provider="acme")])
        ask(endpoint)
        msgtap.instrument(**providers, processors=[lambda _: None])
        ask(endpoint)
        msgtap.instrument(**providers, identifiers=lambda identifier: identifier[::-1])
        ask(endpoint, session_id="abc")
    providers_seen = [(span.attributes or {})["gen_ai.provider.name"] for span in memory.spans]
    assert ["acme", "anthropic"] == providers_seen  # of the third the record was dropped
    assert "cba" == (memory.spans[-1].attributes or {})["session.id"]


def test_processors(instrumented: tuple[Memory, dict[str, Any]]) -> None:
    """Processors see the record in order; one that raises changes nothing; what they change is what is written."""
    from msgspec.structs import replace

    def failing(_: msgtap.CallRecord) -> msgtap.CallRecord:
        raise RuntimeError("mine")

    def renaming(record: msgtap.CallRecord) -> msgtap.CallRecord:
        return replace(record, provider=record.provider + "-eu")

    memory, providers = instrumented
    msgtap.instrument(**providers, processors=[renaming, failing, renaming])
    with Endpoint([replies.message()]) as endpoint:
        ask(endpoint)
    (log,) = memory.logs
    assert "anthropic-eu-eu" == log.log_record.attributes["gen_ai.provider.name"]


def test_flush_of_given_providers(instrumented: tuple[Memory, dict[str, Any]]) -> None:
    """`flush` reaches providers that are not the global ones, and closes calls that nobody can read any more."""
    import gc

    memory, providers = instrumented
    msgtap.instrument(**providers)
    with Endpoint([replies.stream()]) as endpoint, httpx.Client() as client:
        request = client.build_request("POST", endpoint.url + "/v1/messages", json={"model": "m", "stream": True})
        client.send(request, stream=True)
        gc.collect()
        assert msgtap.flush()
    assert ["closed"] == [(span.attributes or {})["msgtap.ended"] for span in memory.spans]


def test_instrumentor(instrumented: tuple[Memory, dict[str, Any]]) -> None:
    """What OpenTelemetry finds by entry point switches on, with the providers it is given, and off."""
    memory, providers = instrumented
    with Endpoint([replies.message()]) as endpoint:
        Instrumentor().instrument(skip_dep_check=True, **providers)
        ask(endpoint)
        Instrumentor().uninstrument(any_argument=True)
        ask(endpoint)
    assert 1 == len(memory.spans)


DISTRIBUTION = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"


def distribution(folder: Path, name: str, entry_points: str) -> None:
    """A distribution in that folder, as good as installed."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(DISTRIBUTION.format(name=name))
    (info / "entry_points.txt").write_text(entry_points)


CONFIGURATOR = """
# What opentelemetry-distro has.
from opentelemetry.sdk._configuration import _OTelSDKConfigurator

class Configurator(_OTelSDKConfigurator):
    pass
"""
APP = """
import httpx
from msgtap.testing import replies
from msgtap.testing.endpoint import Endpoint

with Endpoint([replies.stream()]) as endpoint:
    httpx.post(endpoint.url + "/v1/messages", json={"model": "m", "stream": True, "session_id": "s-1"})
"""


def test_opentelemetry_instrument(tmp_path: Path) -> None:
    """``opentelemetry-instrument python app.py``: an unchanged program is observed, and goes where that says."""
    (tmp_path / "test_configurator.py").write_text(CONFIGURATOR)
    distribution(tmp_path, "test-configurator", "[opentelemetry_configurator]\nc = test_configurator:Configurator\n")
    (tmp_path / "app.py").write_text(APP)
    options = [f"--{signal}_exporter=console" for signal in ("traces", "metrics", "logs")]
    command = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"  # the script's whole content
    done = subprocess.run(
        [sys.executable, "-c", command, *options, sys.executable, "app.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        timeout=60,
    )
    assert (0, "") == (done.returncode, done.stderr)
    for part in ('"name": "chat m"', '"name": "gen_ai.client.operation.duration"', '"event_name": "messages.call"'):
        assert 1 == done.stdout.count(part)


BROKEN = """
def install(module):
    raise RuntimeError("no such seam")
"""
ADAPTERS = """
[msgtap.adapters]
sched = broken_adapter:install
graphlib = missing_adapter:install
"""


def test_broken_adapters(tmp_path: Path) -> None:
    """An adapter of somebody else's that raises, or is not there, breaks no import, and leaves the others at work."""
    (tmp_path / "broken_adapter.py").write_text(BROKEN)
    distribution(tmp_path, "broken-adapter", ADAPTERS)
    code = """
import logging
logging.basicConfig(format="%(message)s")
memory = Memory()
msgtap.configure(exporters=[memory.exporter])
import sched, graphlib
print(sched.scheduler, graphlib.TopologicalSorter)
ask()
print(len(memory.spans))
from msgtap import shield
print(dict(shield.counts()))
"""
    done = run(code, PYTHONPATH=str(tmp_path))
    assert 0 == done.returncode
    assert [
        "<class 'sched.scheduler'> <class 'graphlib.TopologicalSorter'>",
        "1",
        "{'internal_error': 2}",
    ] == done.stdout.splitlines()
    said = [line for line in done.stderr.splitlines() if "msgtap" in line or "adapter" in line]
    assert "msgtap failed in install: RuntimeError and let the call pass (said once)" in said
    assert "the adapter graphlib could not be loaded; its calls are not seen" in said


def test_adapters_of_others(tmp_path: Path) -> None:
    """An adapter of somebody else's is given its client when that is imported, and not before."""
    (tmp_path / "other_adapter.py").write_text("def install(module):\n    print('given', module.__name__)\n")
    distribution(tmp_path, "other-adapter", "[msgtap.adapters]\nsched = other_adapter:install\n")
    code = """
msgtap.instrument()
print("other_adapter" in sys.modules)
import sched
msgtap.instrument()
"""
    assert ["False", "given sched"] == run(code, PYTHONPATH=str(tmp_path)).stdout.splitlines()


def test_capture_calls_restores(instrumented: tuple[Memory, dict[str, Any]]) -> None:
    """What tests see of calls stands beside the telemetry, and is gone afterwards."""
    memory, providers = instrumented
    msgtap.instrument(**providers)
    before = tap.watcher()
    with Endpoint([replies.message()]) as endpoint, capture_calls() as calls:
        ask(endpoint)
    assert (1, 1) == (len(calls), len(memory.spans))
    assert before is tap.watcher()
