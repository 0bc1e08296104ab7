"""The points of a call. No session, user or id is ever a label: they would make a series for each call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from msgtap import semconv, shield
from msgtap.record import CallRecord, CallStart, Usage
from msgtap.telemetry.attributes import Attributes, input_tokens, start_attributes

if TYPE_CHECKING:
    from opentelemetry.context import Context


class CallMetrics:
    """The instruments, made once."""

    def __init__(self, meter: Meter) -> None:
        self._duration = meter.create_histogram(
            semconv.METRIC_DURATION,
            unit="s",
            description="Duration of a call, from the request to the end of the answer.",
            explicit_bucket_boundaries_advisory=semconv.DURATION_BUCKETS,
        )
        self._first_chunk = meter.create_histogram(
            semconv.METRIC_TIME_TO_FIRST_CHUNK,
            unit="s",
            description="Time from the request to the first event of a streamed answer.",
            explicit_bucket_boundaries_advisory=semconv.DURATION_BUCKETS,
        )
        self._usage = meter.create_histogram(
            semconv.METRIC_TOKEN_USAGE,
            unit="{token}",
            description="Input and output tokens of a call.",
            explicit_bucket_boundaries_advisory=semconv.TOKEN_BUCKETS,
        )
        self._tokens = meter.create_counter(
            semconv.METRIC_TOKENS, unit="{token}", description="Tokens by class; the classes do not overlap."
        )
        self._cost = meter.create_counter(semconv.METRIC_COST, unit="{USD}", description="Cost of calls as billed.")
        self._active = meter.create_up_down_counter(
            semconv.METRIC_ACTIVE, unit="{call}", description="Calls that have begun and not ended."
        )
        meter.create_observable_counter(
            semconv.METRIC_DROPPED,
            callbacks=[_dropped],
            unit="{item}",
            description="What msgtap cut, left out or failed at, by reason.",
        )

    def begin(self, start: CallStart) -> None:
        """A call begins."""
        self._active.add(1, {semconv.PROVIDER_NAME: start.provider})

    def finish(self, start: CallStart, record: CallRecord | None, context: Context, generic: bool) -> None:  # noqa: FBT001
        """A call is over; without ``generic`` another instrumentation records OpenTelemetry's GenAI metrics for it."""
        self._active.add(-1, {semconv.PROVIDER_NAME: start.provider})
        if record is None:
            return
        labels = start_attributes(record)
        if record.response.model:
            labels[semconv.RESPONSE_MODEL] = record.response.model
        if generic:
            self._record_generic(record, labels, context)
        self._record_own(record, context)

    def _record_generic(self, record: CallRecord, labels: Attributes, context: Context) -> None:
        timing, usage = record.timing, record.response.usage
        failure: Attributes = {semconv.ERROR_TYPE: record.error_type} if record.error_type else {}
        self._duration.record(timing.duration, labels | failure, context)
        if timing.first_event is not None:
            self._first_chunk.record(timing.first_event, labels, context)
        for kind, number in (("input", input_tokens(usage)), ("output", usage.output_tokens)):
            if number is not None:
                self._usage.record(number, labels | {semconv.TOKEN_TYPE: kind}, context)

    def _record_own(self, record: CallRecord, context: Context) -> None:
        model = record.response.model or record.request.model
        labels: Attributes = {semconv.PROVIDER_NAME: record.provider}
        if model:
            labels[semconv.RESPONSE_MODEL] = model
        for kind, number in token_classes(record.response.usage):
            if number:
                self._tokens.add(number, labels | {semconv.TOKEN_CLASS: kind}, context)
        if record.response.usage.cost:
            self._cost.add(record.response.usage.cost, labels, context)


def token_classes(usage: Usage) -> tuple[tuple[str, int], ...]:
    """The tokens of a call by class, each token in one class only.

    A cache write whose lifetime is not told lived five minutes, the default. The split may lag behind the total in a
    stream (it comes with ``message_start`` only), so the hour's part never exceeds that.
    """
    written = usage.cache_write_tokens or 0
    hour = min(usage.cache_write_1h_tokens or 0, written)
    thinking = min(usage.thinking_tokens or 0, usage.output_tokens or 0)
    return (
        ("input", usage.input_tokens or 0),
        ("cache_read", usage.cache_read_tokens or 0),
        ("cache_write_5m", written - hour),
        ("cache_write_1h", hour),
        ("output", (usage.output_tokens or 0) - thinking),
        ("thinking", thinking),
    )


def _dropped(_: CallbackOptions) -> Iterable[Observation]:
    return [Observation(number, {semconv.REASON: reason}) for reason, number in shield.counts().items()]
