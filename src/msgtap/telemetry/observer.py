"""What becomes of a call in OpenTelemetry: its span, its points and its log event, in that order."""

from __future__ import annotations

from opentelemetry._logs import LoggerProvider, get_logger
from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import TracerProvider, get_tracer

from msgtap import semconv
from msgtap.record import CallRecord, CallStart, MessageResponse
from msgtap.shield import attempt
from msgtap.telemetry.logs import CallLog, LogStyle, text_writer
from msgtap.telemetry.metrics import CallMetrics
from msgtap.telemetry.spans import CallSpan, NoSpan, SpanPolicy, metered_elsewhere, open_span, suppressed


class Telemetry:
    """The observer that `msgtap.instrument` sets up. A provider that is `None` is the global one, now or later.

    Args:
        version: msgtap's own, for the instrumentation scope.
        existing_span: as in `msgtap.instrument`; or ``"private"``, for spans that shall be the parents of no others.
        logs: events as text; `None` leaves the logger ``msgtap.calls`` to whoever else has set it up.
    """

    def __init__(
        self,
        *,
        version: str,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        existing_span: SpanPolicy = "enrich",
        logs: LogStyle | None = "off",
    ) -> None:
        self.tracer = get_tracer(semconv.SCOPE, version, tracer_provider)
        self.existing_span: SpanPolicy = existing_span
        self.metrics = CallMetrics(get_meter(semconv.SCOPE, version, meter_provider))
        self.log = CallLog(get_logger(semconv.SCOPE, version, logger_provider), text_writer(logs) if logs else None)

    def begin(self, start: CallStart) -> CallTelemetry | None:
        """A call begins in the current context; `None` where the program wants nothing observed."""
        return None if suppressed() else CallTelemetry(self, start)


class CallTelemetry:
    """The telemetry of one call."""

    __slots__ = ("_generic", "_owner", "_span", "_start")

    def __init__(self, owner: Telemetry, start: CallStart) -> None:
        self._owner = owner
        self._start = start
        self._generic = not metered_elsewhere()
        # Each signal on its own: a provider that fails at one must not cost the others.
        self._span: CallSpan = attempt(open_span, owner.tracer, start, owner.existing_span) or NoSpan()
        attempt(owner.metrics.begin, start)

    def sending(self) -> object:
        """Make the span current."""
        return self._span.sending()

    def sent(self, token: object) -> None:
        """And no longer."""
        self._span.sent(token)

    def progress(self, response: MessageResponse) -> None:
        """More is known of the answer."""
        self._span.progress(response)

    def finish(self, record: CallRecord | None) -> None:
        """The call is over; of one that a processor dropped nothing is written."""
        context = self._span.context
        attributes = attempt(self._span.finish, record) if record else None
        attempt(self._owner.metrics.finish, self._start, record, context, self._generic)
        if record:
            attempt(self._owner.log.emit, record, context, attributes)
