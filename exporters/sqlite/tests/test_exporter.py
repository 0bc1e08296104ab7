"""The store as an exporter: with real calls, by OpenTelemetry's own variables, and where nobody asked for it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace.export import SpanExporter

import msgtap
from msgtap import exporting, semconv
from msgtap.settings import SettingsError
from msgtap.testing import replies
from msgtap.testing.endpoint import Endpoint
from msgtap_sqlite import database
from msgtap_sqlite import writer as writers
from msgtap_sqlite.exporter import Logs, Metrics, Spans, exporter
from msgtap_sqlite.place import Place
from msgtap_sqlite.reader import Store, Tokens
from msgtap_sqlite.writer import Writer

if TYPE_CHECKING:
    from msgtap.exporting import Pipelines

Read = Callable[[], Store]
BODY = {"model": "claude-sonnet-5", "max_tokens": 64, "messages": [], "session_id": "s-1", "user": "ana"}


@pytest.fixture(autouse=True)
def _environment(place: Place, monkeypatch: pytest.MonkeyPatch, stop: Callable[[Writer], None]) -> Iterator[None]:
    monkeypatch.setenv("MSGTAP_STORE", str(place.database))
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "msgtap.run.id=r-1")
    yield
    for writer in writers._writers.values():
        stop(writer)
    writers._writers.clear()


@pytest.fixture
def pipelines() -> Iterator[Pipelines]:
    """OpenTelemetry's providers with the store, and msgtap switched on."""
    made = exporting.build(["sqlite"], "app", os.environ)
    providers: dict[str, Any] = {
        name: getattr(made, name) for name in made.__dataclass_fields__ if name.endswith("_provider")
    }
    msgtap.instrument(**providers)
    yield made
    msgtap.uninstrument()
    for provider in providers.values():
        provider.shutdown()


def test_calls(pipelines: Pipelines, read: Read) -> None:
    """A call through a real client is in the store with all that msgtap saw of it, and so are its span and points."""
    with Endpoint([replies.stream(), replies.overloaded()]) as endpoint:
        httpx2.post(f"{endpoint.url}/v1/messages", json={**BODY, "stream": True})
        httpx2.post(f"{endpoint.url}/v1/messages", json=BODY)
    assert msgtap.flush()
    store = read()
    answered, failed = store.last_calls()
    assert ("s-1", "ana", "app", "r-1") == (answered.session, answered.user, answered.service, answered.run)
    assert ("httpx2", "anthropic", 200, None) == (answered.client, answered.provider, answered.status, answered.error)
    assert answered.tokens != Tokens()
    assert answered.first_token is not None
    assert 0 < answered.first_token <= answered.duration
    assert "127.0.0.1" == store.attributes(answered.id)[semconv.SERVER_ADDRESS]
    assert ("overloaded_error", 529) == (failed.error, failed.status)
    assert (2, 1) == (store.report("model").total.calls, store.report("model").total.errors)
    assert 2 == store.run_summary("r-1").total.calls
    spans = store._connection.execute("SELECT hex(trace_id), hex(span_id), call FROM spans").fetchall()
    expected = [(str(call.trace_id).upper(), str(call.span_id).upper(), call.id) for call in (answered, failed)]
    assert expected == spans
    metrics = store._connection.execute("SELECT value FROM text WHERE id IN (SELECT metric FROM points)").fetchall()
    assert {semconv.METRIC_DURATION, semconv.METRIC_TOKENS} <= {name for (name,) in metrics}


def test_at_once(pipelines: Pipelines, place: Place) -> None:
    """When the client returns, the call is in the journal: nothing waits for a batch."""
    with Endpoint([replies.message()]) as endpoint:
        httpx2.post(f"{endpoint.url}/v1/messages", json=BODY)
        files = list(place.journals.iterdir())
        written = b"".join(path.read_bytes() for path in files)
    assert 1 == len(files)
    assert 2 == written.count(b"\n")
    assert b"messages.call" in written


def test_default() -> None:
    """The store is where telemetry goes unless something else is asked for."""
    assert ["sqlite"] == exporting.exporter_names("traces", {})


def test_registered_with_msgtap() -> None:
    """The exporter is found by its name."""
    (point,) = entry_points(group=exporting.GROUP, name="sqlite")
    assert exporter is point.load()
    made = exporter()
    assert made.immediate


@pytest.mark.parametrize(
    ("signal", "expected", "base"),
    [("traces", Spans, SpanExporter), ("metrics", Metrics, MetricExporter), ("logs", Logs, Logs.__mro__[1])],
)
def test_registered_with_the_sdk(signal: str, expected: type, base: type) -> None:
    """The SDK finds each signal's class, which is of the class that it asks for."""
    (point,) = entry_points(group=f"opentelemetry_{signal}_exporter", name="msgtap_sqlite")
    assert expected is point.load()
    assert issubclass(expected, base)


@pytest.mark.parametrize("variable", ["MSGTAP_STORE_DAYS", "MSGTAP_STORE_BYTES"])
def test_settings(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that means nothing is an error of the settings."""
    monkeypatch.setenv(variable, "much")
    with pytest.raises(SettingsError, match=f"exporter sqlite: {variable}='much' is no number above zero"):
        exporting.build(["sqlite"], None, os.environ)


def test_shutdown(place: Place, read: Read) -> None:
    """When providers are shut down nobody waits, not even for a database that somebody else keeps to himself."""
    made = exporting.build(["sqlite"], "app", os.environ)
    with closing(database.open_writer(place, wait=1)) as other:
        other.execute("BEGIN IMMEDIATE")
        made.tracer_provider.get_tracer("app").start_span("work").end()
        begun = time.monotonic()
        for provider in (made.tracer_provider, made.meter_provider, made.logger_provider):
            provider.shutdown()
        assert time.monotonic() - begun < 2
        other.execute("ROLLBACK")
    (writer,) = writers._writers.values()
    assert writer.flush(30)
    assert [(1,)] == read()._connection.execute("SELECT count(*) FROM spans").fetchall()


def run(program: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program that calls the stand-in endpoint once, and print nothing of its own."""
    calls = """
        from msgtap.testing.endpoint import Endpoint
        from msgtap.testing import replies
        with Endpoint([replies.message()]) as endpoint:
            httpx2.post(f"{endpoint.url}/v1/messages", json={"model": "m", "max_tokens": 1, "messages": []})
    """
    source = textwrap.dedent(program) + textwrap.dedent(calls)
    return subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


CONFIGURED = "import httpx2, msgtap; msgtap.configure()"


def test_one_line(read: Read) -> None:
    """One line in a program, and no setting at all: its calls are in the store, and it prints nothing."""
    done = run(CONFIGURED)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    assert 1 == len(read().last_calls())


@pytest.mark.parametrize(
    "store",
    ["/proc/none/calls.db", "/dev/null", __file__],
)
def test_unusable(store: str) -> None:
    """Where the store cannot be used, the program runs as it would without."""
    done = run(CONFIGURED, MSGTAP_STORE=store)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_unusable_and_said() -> None:
    """A program that listens to logging hears why, once."""
    done = run("import logging; logging.basicConfig(format='%(message)s')\n" + CONFIGURED, MSGTAP_STORE="/dev/null")
    assert (0, "the store is off: /dev/null is no file: set MSGTAP_STORE to one\n") == (done.returncode, done.stderr)


def test_opentelemetry_variables(read: Read) -> None:
    """A program whose providers OpenTelemetry's variables configure can have the store for each signal."""
    program = """
        import httpx2, msgtap
        from opentelemetry.sdk._configuration import _OTelSDKConfigurator  # which opentelemetry-distro calls
        _OTelSDKConfigurator().configure()
        msgtap.instrument()
    """
    done = run(program, **{f"OTEL_{signal.upper()}_EXPORTER": "msgtap_sqlite" for signal in exporting.SIGNALS})
    assert 0 == done.returncode, done.stderr
    store = read()
    assert 1 == len(store.last_calls())
    assert [(1,)] == store._connection.execute("SELECT count(call) FROM spans").fetchall()
    assert [(1,)] == store._connection.execute("SELECT count(*) > 0 FROM points").fetchall()
