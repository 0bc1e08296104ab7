"""The span of a call: our own, or one that another instrumentation has already opened around it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, Protocol
from weakref import WeakKeyDictionary

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from msgtap import semconv
from msgtap.record import CallRecord, CallStart, MessageResponse
from msgtap.telemetry.attributes import (
    Attributes,
    asked_attributes,
    call_attributes,
    ending_attributes,
    response_attributes,
    start_attributes,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context

ExistingSpan = Literal["enrich", "nest", "ignore"]
SpanPolicy = ExistingSpan | Literal["private"]
"""What to do with a span that is there; ``"private"`` is to nest below it a span that is nobody's parent."""

_GENERATIONS = frozenset({"chat", "generate_content", "text_completion"})
_ANTHROPIC_SCOPE = "com.anthropic.sdk"
# Where OpenTelemetry's util-genai says that an instrumentation above us records this call, metrics included.
_UTIL_GENAI = "opentelemetry.genai.client.inference.context"
# opentelemetry-instrumentation sets both keys; the first has no public name, and may lose the one it has.
_PLAIN_KEY = "suppress_instrumentation"
_SUPPRESSION: tuple[str, str] = (getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", _PLAIN_KEY), _PLAIN_KEY)
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")


class CallSpan(Protocol):
    """What stands for the call in the trace.

    Attributes:
        context: the context that the call's points and log event belong to.
    """

    context: Context

    def sending(self) -> object:
        """The request is about to be sent; the token is for `sent`."""

    def sent(self, token: object) -> None:
        """It has been."""

    def progress(self, response: MessageResponse) -> None:
        """More is known of the answer."""

    def finish(self, record: CallRecord) -> Attributes | None:
        """The call is over. The attributes that were written, if any, for others to reuse."""


def suppressed() -> bool:
    """Whether the program has asked that nothing be observed here."""
    return any(otel_context.get_value(key) for key in _SUPPRESSION)


def metered_elsewhere() -> bool:
    """Whether another instrumentation records OpenTelemetry's GenAI metrics for the call that begins."""
    return otel_context.get_value(_UTIL_GENAI) is not None


def open_span(tracer: Tracer, start: CallStart, policy: SpanPolicy) -> CallSpan:
    """The span for a call that begins in the current context."""
    current = trace.get_current_span()
    if policy == "private":
        return _Private(tracer, start)
    if policy == "nest" or not _is_generation(current) or _given(current).answered:
        return _Own(tracer, start)
    return _Enriched(tracer, start, current) if policy == "enrich" else NoSpan()


def _is_generation(span: Span) -> bool:
    """Whether ``span`` stands for a call of a model already, so that a second one would count its tokens twice."""
    if not span.is_recording():
        return False
    attributes = getattr(span, "attributes", None) or {}
    operation = attributes.get(semconv.OPERATION_NAME)
    if operation is not None:  # what it says holds: the Anthropic SDK has spans of tools and agents too
        return operation in _GENERATIONS
    scope = getattr(getattr(span, "instrumentation_scope", None), "name", "") or ""
    return (
        scope.startswith(_ANTHROPIC_SCOPE) or attributes.get("openinference.span.kind") == "LLM" or metered_elsewhere()
    )


class _Own:
    """A CLIENT span of our own, current while the request is sent, and only then."""

    def __init__(self, tracer: Tracer, start: CallStart) -> None:
        self._span = tracer.start_span(
            _span_name(start), kind=SpanKind.CLIENT, attributes=start_attributes(start), start_time=start.started_at
        )
        self.context = trace.set_span_in_context(self._span)

    def sending(self) -> object:
        return otel_context.attach(self.context)

    def sent(self, token: object) -> None:
        # A coroutine that is closed in another context must leave that one alone.
        if token is not None and otel_context.get_current() is self.context:
            otel_context.detach(token)  # type: ignore[arg-type]

    def progress(self, response: MessageResponse) -> None:
        """Nothing yet: all is written at once, at the end."""

    def finish(self, record: CallRecord) -> Attributes | None:
        attributes = None
        if self._span.is_recording():
            attributes = call_attributes(record)
            self._span.set_attributes(attributes)
            if record.error_type is not None:
                self._span.set_status(Status(StatusCode.ERROR))
        self._span.end(record.timing.ended_at)
        return attributes


class _Private(_Own):
    """A span that is never current: where it goes, the program's own spans do not."""

    def sending(self) -> object:
        """Nothing."""


class _Enriched:
    """Another instrumentation's span, given what it lacks; it may be ended before the call is over for us.

    It stands for all attempts, so an attempt that failed becomes a child of its own, and leaves it alone.
    """

    def __init__(self, tracer: Tracer, start: CallStart, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._given = _given(span)
        self.context = otel_context.get_current()
        self._add(start_attributes(start) | asked_attributes(start))

    def sending(self) -> object:
        """Nothing: that span is current already."""

    def sent(self, token: object) -> None:
        """Nothing."""

    def progress(self, response: MessageResponse) -> None:
        # The span may have ended by the time the call does: until there is a reason, its absence stands there.
        self._add({semconv.FINISH_REASONS: (semconv.FINISH_ERROR,)} | response_attributes(response))

    def finish(self, record: CallRecord) -> Attributes | None:
        if record.error_type is not None:
            self._add_attempt(record)
        else:
            self._add(response_attributes(record.response) | ending_attributes(record))
            self._given.answered = True
        return None

    def _add(self, attributes: Attributes) -> None:
        """Write what the other instrumentation has not; what we wrote ourselves may have become more."""
        if self._span.is_recording():
            theirs = (getattr(self._span, "attributes", None) or {}).keys() - self._given.names
            lacking = {name: value for name, value in attributes.items() if name not in theirs}
            self._span.set_attributes(lacking)
            self._given.names.update(lacking)

    def _add_attempt(self, record: CallRecord) -> None:
        attributes = start_attributes(record) | ending_attributes(record)
        del attributes[semconv.OPERATION_NAME]  # or it would count as a second generation
        if record.attempt:
            attributes[semconv.HTTP_RESEND_COUNT] = record.attempt
        span = self._tracer.start_span(
            semconv.SPAN_ATTEMPT,
            context=self.context,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=record.started_at,
        )
        span.set_status(Status(StatusCode.ERROR))
        span.end(record.timing.ended_at)


class _Given:
    """What we gave a span of another instrumentation.

    Attributes:
        names: of attributes, which a later event, or a later attempt, may replace.
        answered: whether an attempt has succeeded. The next call is another one, whose tokens need a span of their own.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.answered = False


_given_by_span: WeakKeyDictionary[Span, _Given] = WeakKeyDictionary()


def _given(span: Span) -> _Given:
    try:
        return _given_by_span.setdefault(span, _Given())
    except TypeError:  # some other make of span, which cannot be referred to weakly
        return _Given()


class NoSpan:
    """No span: the one that is there is all there shall be."""

    def __init__(self) -> None:
        self.context = otel_context.get_current()

    def sending(self) -> object:
        """Nothing."""

    def sent(self, token: object) -> None:
        """Nothing."""

    def progress(self, response: MessageResponse) -> None:
        """Nothing."""

    def finish(self, record: CallRecord) -> Attributes | None:  # noqa: ARG002
        """Nothing."""
        return None


def _span_name(start: CallStart) -> str:
    """The program's ``trace.generation_name`` where it is fit for a name, else OpenTelemetry's."""
    given = start.correlation.trace.generation_name if start.correlation.trace else None
    if given and _NAME.fullmatch(given):
        return given
    return f"{semconv.OPERATION_CHAT} {start.request.model}" if start.request.model else semconv.OPERATION_CHAT
