"""The span that msgtap opens for a call where nobody else has one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry import context, trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode

import msgtap
from msgtap.testing import capture_calls, replies
from msgtap.testing.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from opentelemetry.sdk.trace import ReadableSpan

    from msgtap.testing.memory import Memory
    from msgtap.testing.replies import Reply

BODY: dict[str, Any] = {"model": "claude-sonnet-5", "messages": [], "max_tokens": 64}
PATH = "/v1/messages"


def ask(endpoint: Endpoint, **more: Any) -> httpx.Response:
    """One call by httpx."""
    return httpx.post(endpoint.url + PATH, json={**BODY, **more})


def only(memory: Memory) -> ReadableSpan:
    """The one span."""
    (span,) = memory.spans
    return span


NAMES: list[tuple[object, str]] = [
    ("classify-claim", "classify-claim"),
    ("Schaden prüfen: 1. Schritt", "Schaden prüfen: 1. Schritt"),
    ("n" * 128, "n" * 128),
    ("n" * 129, "chat claude-sonnet-5"),
    ("", "chat claude-sonnet-5"),
    ("two\nlines", "chat claude-sonnet-5"),
    ("\x1b[31mred", "chat claude-sonnet-5"),
    (7, "chat claude-sonnet-5"),
    (None, "chat claude-sonnet-5"),
    (["a"], "chat claude-sonnet-5"),
]


@pytest.mark.parametrize(("given", "name"), NAMES)
def test_name(given: object, name: str, memory: Memory, providers: dict[str, Any]) -> None:
    """A valid ``generation_name`` names the span; else it is operation and model."""
    msgtap.instrument(**providers)
    with Endpoint() as endpoint:
        ask(endpoint, trace={"generation_name": given})
    assert name == only(memory).name


@pytest.mark.parametrize("body", [{"messages": []}, {"model": None}, {"model": ["a"]}, [], "text"])
def test_name_without_model(body: object, memory: Memory, providers: dict[str, Any]) -> None:
    """A call that names no model is called after its operation."""
    msgtap.instrument(**providers)
    with Endpoint() as endpoint:
        httpx.post(endpoint.url + PATH, json=body)
    assert "chat" == only(memory).name


STATUSES: list[tuple[str, Reply, StatusCode]] = [
    ("whole", replies.message(), StatusCode.UNSET),
    ("stream", replies.stream(), StatusCode.UNSET),
    ("refusal", replies.message(replies.Answer(stop_reason="refusal")), StatusCode.UNSET),
    ("bad request", replies.error(400), StatusCode.ERROR),
    ("overloaded", replies.overloaded(), StatusCode.ERROR),
    ("page", replies.html_error(502), StatusCode.ERROR),
    ("error in a stream", replies.stream_error_after(3), StatusCode.ERROR),
    ("truncated", replies.truncated_stream(), StatusCode.ERROR),
    ("cut", replies.cut_stream(), StatusCode.ERROR),
    ("no answer", replies.silent(replies.RESET), StatusCode.ERROR),
]


@pytest.mark.parametrize(("reply", "status"), [case[1:] for case in STATUSES], ids=[case[0] for case in STATUSES])
def test_kind_and_status(reply: Reply, status: StatusCode, memory: Memory, providers: dict[str, Any]) -> None:
    """The kind is CLIENT; the status is left unset but for failures, and never says more than ``error.type``."""
    msgtap.instrument(**providers)
    with Endpoint([reply]) as endpoint:
        try:
            ask(endpoint, stream=True)
        except httpx.TransportError:
            assert StatusCode.ERROR is status
    span = only(memory)
    assert SpanKind.CLIENT is span.kind
    assert (status, None) == (span.status.status_code, span.status.description)
    assert (status is StatusCode.ERROR) == ("error.type" in (span.attributes or {}))
    assert () == span.events
    scope = span.instrumentation_scope
    assert scope is not None
    assert "msgtap" == scope.name
    assert scope.version


class _Witness(Sampler):
    """Samples all, and remembers what it was shown."""

    def __init__(self, verdict: Sampler = ALWAYS_ON) -> None:
        self._verdict = verdict
        self.seen: list[tuple[str, SpanKind | None, dict[str, Any]]] = []

    def should_sample(  # noqa: PLR0917  # the signature is the SDK's
        self,
        parent_context: context.Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Any = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        self.seen.append((name, kind, dict(attributes or {})))
        return self._verdict.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self) -> str:
        return "witness"


def sampled_by(sampler: Sampler, providers: dict[str, Any]) -> InMemorySpanExporter:
    """Instrument with a tracer provider that has this sampler; the spans that it lets pass."""
    exporter = InMemorySpanExporter()
    tracer_provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    msgtap.instrument(**{**providers, "tracer_provider": tracer_provider})
    return exporter


def test_a_sampler_sees(providers: dict[str, Any]) -> None:
    """Operation, provider, model and server are there when the span starts, so that a sampler can go by them."""
    witness = _Witness()
    sampled_by(witness, providers)
    with Endpoint() as endpoint:
        ask(endpoint)
        expected = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-5",
            "server.address": "127.0.0.1",
            "server.port": endpoint.port,
        }
    assert [("chat claude-sonnet-5", SpanKind.CLIENT, expected)] == witness.seen


@pytest.fixture
def functions() -> Iterator[set[str]]:
    """The Python functions that were called meanwhile on this thread."""
    called: set[str] = set()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.add(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(profile)
    yield called
    sys.setprofile(before)


WORK = {"call_attributes", "asked_attributes", "response_attributes", "ending_attributes", "set_attributes"}


@pytest.mark.parametrize(("sampler", "work"), [(ALWAYS_OFF, set[str]()), (ALWAYS_ON, WORK)], ids=["off", "on"])
def test_not_sampled(sampler: Sampler, work: set[str], functions: set[str], memory: Memory, providers: Any) -> None:
    """For a span that is not sampled, and without logs, no attribute is worked out; the metrics are recorded."""
    del providers["logger_provider"]
    exporter = sampled_by(sampler, providers)
    with Endpoint() as endpoint:
        ask(endpoint)
    assert work == functions & WORK
    assert bool(work) == bool(exporter.get_finished_spans())
    assert memory.metrics is not None


@pytest.mark.parametrize("reply", [replies.message(), replies.stream(), replies.error(500)], ids=["200", "SSE", "500"])
def test_times(reply: Reply, memory: Memory, providers: dict[str, Any]) -> None:
    """Start and end are those of the record."""
    msgtap.instrument(**providers)
    with Endpoint([reply]) as endpoint, capture_calls() as calls:
        ask(endpoint, stream=True)
    span, (call,) = only(memory), calls
    assert (call.timing.started_at, call.timing.ended_at) == (span.start_time, span.end_time)
    assert call.timing.duration == (span.attributes or {})["msgtap.duration"]


def test_end_of_a_slow_reader(memory: Memory, providers: dict[str, Any]) -> None:
    """A span ends with the last chunk, not when the program gets round to closing the response."""
    msgtap.instrument(**providers)
    with (
        Endpoint([replies.stream()]) as endpoint,
        capture_calls() as calls,
        httpx.stream("POST", endpoint.url + PATH, json={**BODY, "stream": True}) as response,
    ):
        next(response.iter_raw())
    span, (call,) = only(memory), calls
    assert "closed" == call.ending
    assert span.start_time is not None
    assert call.timing.last_chunk is not None
    assert span.end_time == span.start_time + round(call.timing.last_chunk * 1e9)


def test_parent(memory: Memory, providers: dict[str, Any]) -> None:
    """The parent is the span that is current where the program calls; without one, the call's span is a root."""
    msgtap.instrument(**providers)
    tracer = providers["tracer_provider"].get_tracer("program")
    with Endpoint() as endpoint:
        ask(endpoint)
        with tracer.start_as_current_span("step"):
            ask(endpoint)
    root, child, step = memory.spans
    assert root.parent is None
    assert child.parent is not None
    assert (step.context.trace_id, step.context.span_id) == (child.context.trace_id, child.parent.span_id)
    assert root.context.trace_id != step.context.trace_id


def current() -> str:
    """The name of the current span; empty if there is none."""
    return getattr(trace.get_current_span(), "name", "")


class _Watching(httpx.HTTPTransport):
    """Notes which span is current when a request leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(current())
        return super().handle_request(request)


def test_current_while_sending(memory: Memory, providers: dict[str, Any]) -> None:
    """The span is current while the request is being sent, and never while the program reads the stream."""
    msgtap.instrument(**providers)
    tracer = providers["tracer_provider"].get_tracer("program")
    transport, reading = _Watching(), []
    with (
        Endpoint([replies.stream()]) as endpoint,
        httpx.Client(transport=transport) as client,
        tracer.start_as_current_span("step"),
        client.stream("POST", endpoint.url + PATH, json={**BODY, "stream": True}) as response,
    ):
        reading.append(current())
        for _ in response.iter_raw():
            reading.append(current())  # noqa: PERF401  # asked in the loop, not of a list
        reading.append(current())
    assert ["chat claude-sonnet-5"] == transport.seen
    assert {"step"} == set(reading)
    assert 4 < len(reading)
    assert ["chat claude-sonnet-5", "step"] == [span.name for span in memory.spans]


@pytest.mark.parametrize("fails", [replies.silent(replies.CUT), replies.silent(replies.RESET)], ids=["cut", "reset"])
def test_not_current_after_a_failure(fails: Reply, memory: Memory, providers: dict[str, Any]) -> None:
    """A request that cannot be sent leaves the program's own span current."""
    msgtap.instrument(**providers)
    tracer = providers["tracer_provider"].get_tracer("program")
    with Endpoint([fails]) as endpoint, tracer.start_as_current_span("step"):
        with pytest.raises(httpx.TransportError):
            ask(endpoint)
        assert "step" == current()
    assert ["chat claude-sonnet-5", "step"] == [span.name for span in memory.spans]


def test_http_instrumentation_nests(memory: Memory, providers: dict[str, Any]) -> None:
    """The span of OpenTelemetry's instrumentation of httpx, the request itself, is a child of ours."""
    msgtap.instrument(**providers)
    with Endpoint() as endpoint, httpx.Client() as client:
        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=providers["tracer_provider"])
        client.post(endpoint.url + PATH, json=BODY)
        (received,) = endpoint.received
    request, call = memory.spans
    assert ("POST", "chat claude-sonnet-5") == (request.name, call.name)
    assert request.parent is not None
    assert call.context.span_id == request.parent.span_id
    traceparent = f"00-{call.context.trace_id:032x}-{request.context.span_id:016x}-"
    assert (received.header("traceparent") or "").startswith(traceparent)


WITHOUT_PROVIDERS = """
import logging, sys
import httpx, msgtap
from msgtap import shield
from msgtap.testing.endpoint import Endpoint

logging.basicConfig(level="INFO")
msgtap.instrument()
with Endpoint() as endpoint:
    for stream in (False, True):
        response = httpx.post(endpoint.url + "/v1/messages", json={"model": "m", "messages": [], "stream": stream})
        assert response.status_code == 200, response
assert shield.counts() == {}, shield.counts()
assert "opentelemetry.sdk" not in sys.modules
assert msgtap.flush()
"""


def test_without_providers() -> None:
    """In a program that has no providers, and not even the SDK loaded, calls go through and nothing fails."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_PROVIDERS], capture_output=True, text=True, check=False
    )
    assert (0, "") == (
        done.returncode,
        "".join(line for line in done.stderr.splitlines() if "HTTP Request" not in line),
    )


LATE = """
import httpx, msgtap
from msgtap.exporting import build
from msgtap.testing.memory import Memory
from msgtap.testing.endpoint import Endpoint
from opentelemetry import _logs, metrics, trace

msgtap.instrument()
memory = Memory()
pipelines = build([memory.exporter], None, {})
trace.set_tracer_provider(pipelines.tracer_provider)
metrics.set_meter_provider(pipelines.meter_provider)
_logs.set_logger_provider(pipelines.logger_provider)
with Endpoint() as endpoint:
    httpx.post(endpoint.url + "/v1/messages", json={"model": "m", "messages": []})
names = [metric.name for scope in memory.metrics.resource_metrics[0].scope_metrics for metric in scope.metrics]
print([span.name for span in memory.spans], len(memory.logs), "gen_ai.client.operation.duration" in names)
"""


def test_providers_come_later() -> None:
    """Providers that the program sets only after it has called `instrument` are used from then on."""
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False)
    assert ("['chat m'] 1 True\n", "") == (done.stdout, done.stderr)
