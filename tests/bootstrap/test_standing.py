"""What observes a program from outside, whatever the program itself does with msgtap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import msgtap
from msgtap import tap
from msgtap.configuration import install_adapters
from msgtap.telemetry.observer import Telemetry
from msgtap.testing import capture_calls
from msgtap.testing.endpoint import Endpoint
from msgtap.wire.endpoint import EndpointTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan

BODY = {"model": "claude-sonnet-5", "max_tokens": 64, "messages": [{"role": "user", "content": "Hello."}]}


class Spans:
    """A provider of spans, and those that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def ended(self) -> tuple[ReadableSpan, ...]:
        """In order."""
        return self._exporter.get_finished_spans()

    def telemetry(self, **more: Any) -> Telemetry:
        """An observer that makes spans here, and nothing else anywhere."""
        none: dict[str, Any] = {"meter_provider": MeterProvider(), "logger_provider": LoggerProvider()}
        return Telemetry(version="1", tracer_provider=self.provider, **none, **more)


@pytest.fixture
def store() -> Spans:
    """Where what observes from outside writes beside the program's own."""
    return Spans()


@pytest.fixture
def elsewhere() -> Spans:
    """Where it writes besides if the program has nothing of its own."""
    return Spans()


@pytest.fixture
def own() -> Spans:
    """The program's own."""
    return Spans()


@pytest.fixture(autouse=True)
def standing(store: Spans, elsewhere: Spans) -> Iterator[None]:
    """Observe from outside while the test runs."""
    beside = store.telemetry(existing_span="private", logs=None)
    observers = (beside, elsewhere.telemetry(existing_span="private", logs=None))
    tap.observe_always(tap.Watcher(endpoints=EndpointTable(), observers=observers), (beside,))
    install_adapters()
    yield
    tap.observe_always(None)
    msgtap.uninstrument()


def call() -> None:
    """One call of the program."""
    with Endpoint() as endpoint:
        httpx.post(f"{endpoint.url}/v1/messages", json=BODY)


def counts(*spans: Spans) -> list[int]:
    """How many spans have ended in each."""
    return [len(one.ended) for one in spans]


def test_alone(store: Spans, elsewhere: Spans) -> None:
    """A program without msgtap is observed, everywhere that was asked for."""
    call()
    assert [1, 1] == counts(store, elsewhere)


def test_beside_the_programs_own(store: Spans, elsewhere: Spans, own: Spans) -> None:
    """Where the program uses msgtap, that says what goes elsewhere; only the store is added."""
    none: dict[str, Any] = {"meter_provider": MeterProvider(), "logger_provider": LoggerProvider()}
    msgtap.instrument(tracer_provider=own.provider, **none)
    call()
    assert [1, 0, 1] == counts(store, elsewhere, own)


def test_switched_off(store: Spans, elsewhere: Spans, own: Spans) -> None:
    """The program's switch is for its own, not for who observes from outside."""
    msgtap.instrument(tracer_provider=own.provider)
    msgtap.uninstrument()
    call()
    assert [1, 1, 0] == counts(store, elsewhere, own)


def test_stored_already(store: Spans, elsewhere: Spans, own: Spans) -> None:
    """Where the program's own calls go to the store already, none is there twice."""
    tap.activate(tap.Watcher(endpoints=EndpointTable(), observers=(own.telemetry(),), alone=True))
    call()
    assert [0, 0, 1] == counts(store, elsewhere, own)


def test_captured(store: Spans) -> None:
    """Whoever captures calls in a test takes nothing from who observes from outside."""
    with capture_calls() as calls:
        call()
    call()
    assert (1, 2) == (len(calls), len(store.ended))


def test_private(store: Spans, own: Spans) -> None:
    """A span from outside is a child of the program's span, and never the parent of one."""
    tracer = own.provider.get_tracer("app")

    def hook(_: httpx.Request) -> None:
        tracer.start_span("inner").end()

    with Endpoint() as endpoint, tracer.start_as_current_span("outer") as outer, httpx.Client() as client:
        client.event_hooks = {"request": [hook], "response": []}
        client.post(f"{endpoint.url}/v1/messages", json=BODY)
    context = outer.get_span_context()
    assert [context, context] == [span.parent for span in (own.ended[0], store.ended[0])]


def test_text_stays(capsys: pytest.CaptureFixture[str], own: Spans) -> None:
    """Events as text, which the program has asked for, go on when somebody observes it from outside."""
    msgtap.instrument(tracer_provider=own.provider, logs="json")
    Spans().telemetry(existing_span="private", logs=None)
    call()
    assert 1 == capsys.readouterr().err.count('"event": "messages.call"')
    msgtap.instrument(logs="off")
