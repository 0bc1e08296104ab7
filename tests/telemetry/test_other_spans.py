"""Spans that other instrumentations have opened around a call, and what they ask of us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry import context, trace
from opentelemetry.trace import StatusCode

import msgtap
from msgtap import shield
from msgtap.testing import replies
from msgtap.testing.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.trace import Tracer
    from opentelemetry.util.types import AnyValue

    from msgtap.testing.memory import Memory

BODY = {"model": "claude-sonnet-5", "messages": [], "session_id": "s-1", "stream": True}
UTIL_GENAI = "opentelemetry.genai.client.inference.context"
SUPPRESSION = ("suppress_instrumentation", vars(context)["_SUPPRESS_INSTRUMENTATION_KEY"])


@pytest.fixture
def tracer(providers: dict[str, Any]) -> Tracer:
    """The other instrumentation's."""
    tracer: Tracer = providers["tracer_provider"].get_tracer("another")
    return tracer


def ask(endpoint: Endpoint, **more: Any) -> None:
    """One call by httpx."""
    httpx.post(endpoint.url + "/v1/messages", json={**BODY, **more})


def metric_names(memory: Memory) -> set[str]:
    """The metrics that have points."""
    resources = memory.metrics.resource_metrics if memory.metrics else []
    return {metric.name for resource in resources for scope in resource.scope_metrics for metric in scope.metrics}


GENERATIONS = [
    {"gen_ai.operation.name": "chat"},
    {"gen_ai.operation.name": "generate_content"},
    {"gen_ai.operation.name": "text_completion"},
    {"openinference.span.kind": "LLM"},
]


@pytest.mark.parametrize("attributes", GENERATIONS, ids=lambda value: next(iter(value.values())))
def test_generation(attributes: Mapping[str, str], tracer: Tracer, memory: Memory, providers: dict[str, Any]) -> None:
    """A span that stands for a call of a model is enriched, and stays the only one."""
    msgtap.instrument(**providers)
    with Endpoint([replies.stream()]) as endpoint, tracer.start_as_current_span("theirs", attributes=attributes):
        ask(endpoint)
    (span,) = memory.spans
    assert "theirs" == span.name
    assert {**attributes, "session.id": "s-1", "gen_ai.usage.output_tokens": 188}.items() <= dict(
        span.attributes or {}
    ).items()


OTHERS = [
    {"gen_ai.operation.name": "execute_tool"},
    {"gen_ai.operation.name": "invoke_agent"},
    {"gen_ai.operation.name": "embeddings"},
    {"openinference.span.kind": "CHAIN"},
    {"http.request.method": "POST"},
    {},
]


@pytest.mark.parametrize("attributes", OTHERS, ids=lambda value: next(iter(value.values()), "none"))
def test_no_generation(
    attributes: Mapping[str, str], tracer: Tracer, memory: Memory, providers: dict[str, Any]
) -> None:
    """Any other span is left as it is, and ours nests below it."""
    msgtap.instrument(**providers)
    with Endpoint([replies.stream()]) as endpoint, tracer.start_as_current_span("theirs", attributes=attributes):
        ask(endpoint)
    ours, theirs = memory.spans
    assert ("chat claude-sonnet-5", "theirs") == (ours.name, theirs.name)
    assert attributes == theirs.attributes
    assert ours.parent is not None
    assert theirs.context.span_id == ours.parent.span_id


def test_theirs_stays(tracer: Tracer, memory: Memory, providers: dict[str, Any]) -> None:
    """What the other instrumentation wrote is not overwritten, its name and status neither."""
    msgtap.instrument(**providers)
    theirs: dict[str, AnyValue] = {
        "gen_ai.operation.name": "chat",
        "session.id": "theirs",
        "gen_ai.usage.input_tokens": 1,
    }
    with Endpoint([replies.stream()]) as endpoint, tracer.start_as_current_span("theirs", attributes=theirs):
        ask(endpoint)
    (span,) = memory.spans
    assert theirs.items() <= dict(span.attributes or {}).items()
    assert "s-1" == (span.attributes or {})["gen_ai.conversation.id"]
    assert ("theirs", StatusCode.UNSET) == (span.name, span.status.status_code)


def test_ours_is_replaced(tracer: Tracer, memory: Memory, providers: dict[str, Any]) -> None:
    """What we wrote ourselves gives way to what is known later: by a later event, and by a later attempt."""
    msgtap.instrument(**providers)
    first = replies.Answer(id="msg_first", model="claude-first", thinking="One.")
    second = replies.Answer(id="msg_second", usage={**replies.USAGE, "input_tokens": 5})
    broken = replies.cut(replies.stream(first), 2000)
    chat = tracer.start_as_current_span("theirs", attributes={"gen_ai.operation.name": "chat"})
    with Endpoint([broken, replies.stream(second)]) as endpoint, chat:
        with pytest.raises(httpx.RemoteProtocolError):
            ask(endpoint)
        ask(endpoint)
    attempt, span = memory.spans
    assert ("messages.attempt", "theirs") == (attempt.name, span.name)
    expected = {
        "gen_ai.response.id": "msg_second",
        "gen_ai.response.model": second.model,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 5 + 1500 + 4900,
        "anthropic.message.content.types": ("text",),
    }
    assert expected == {name: (span.attributes or {}).get(name) for name in expected}


@pytest.fixture(params=SUPPRESSION)
def suppressing(request: pytest.FixtureRequest) -> Iterator[None]:
    """The program has asked, by either key, that nothing be observed."""
    token = context.attach(context.set_value(request.param, True))
    yield
    context.detach(token)


@pytest.mark.usefixtures("suppressing")
def test_suppressed(tracer: Tracer, memory: Memory, providers: dict[str, Any]) -> None:
    """Where instrumentation is suppressed nothing at all comes of a call."""
    msgtap.instrument(**providers)
    with Endpoint() as endpoint, tracer.start_as_current_span("theirs"):
        ask(endpoint)
    assert ["theirs"] == [span.name for span in memory.spans]
    assert {} == memory.spans[0].attributes
    assert () == memory.logs
    assert {"msgtap.dropped"} >= metric_names(memory)


def test_metered_elsewhere(tracer: Tracer, memory: Memory, providers: dict[str, Any]) -> None:
    """Where util-genai records OpenTelemetry's GenAI metrics, only our own are recorded; span and log as ever."""
    msgtap.instrument(**providers)
    token = context.attach(context.set_value(UTIL_GENAI, object()))
    try:
        with (
            Endpoint([replies.openrouter_stream()]) as endpoint,
            tracer.start_as_current_span("chat", attributes={"gen_ai.operation.name": "chat"}),
        ):
            ask(endpoint)
    finally:
        context.detach(token)
    assert ["chat"] == [span.name for span in memory.spans]
    assert "s-1" == (memory.spans[0].attributes or {})["session.id"]
    assert 1 == len(memory.logs)
    assert {"msgtap.calls.active", "msgtap.cost", "msgtap.tokens"} == metric_names(memory) - {"msgtap.dropped"}


def test_not_recording(memory: Memory, providers: dict[str, Any]) -> None:
    """A span that was not sampled, or belongs to no SDK, cannot carry the call: it gets one of its own below."""
    msgtap.instrument(**providers)
    theirs = trace.NonRecordingSpan(
        trace.SpanContext(0x1234, 0x56, is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))
    )
    with Endpoint() as endpoint, trace.use_span(theirs):
        ask(endpoint)
    (span,) = memory.spans
    assert span.parent is not None
    assert (0x1234, 0x56) == (span.context.trace_id, span.parent.span_id)


class _Odd(trace.NonRecordingSpan):
    """A span of some other make: it records, but lets nobody read it, compare it or refer to it weakly."""

    __slots__ = ("written",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)
        self.written: dict[str, Any] = {}

    def is_recording(self) -> bool:
        return True

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        self.written.update(attributes)


def test_odd_span(memory: Memory, providers: dict[str, Any]) -> None:
    """A span that is not OpenTelemetry's SDK's is enriched, too, if util-genai says that it stands for the call."""
    msgtap.instrument(**providers)
    theirs = _Odd()
    token = context.attach(context.set_value(UTIL_GENAI, object(), trace.set_span_in_context(theirs)))
    before = shield.counts()
    try:
        with Endpoint([replies.stream()]) as endpoint:
            ask(endpoint)
    finally:
        context.detach(token)
    assert before == shield.counts()
    assert () == memory.spans
    assert {"session.id": "s-1", "gen_ai.response.finish_reasons": ("stop",)}.items() <= theirs.written.items()
