"""One structured event a call, ``messages.call``: an OpenTelemetry log record, and text where the program asks for it.

As text it goes through structlog to the standard library's logger ``msgtap.calls``. That logger prints nothing and
hands nothing on unless ``logs`` says so: nothing appears in a program that did not ask, nothing is exported twice.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Literal

from opentelemetry import trace
from opentelemetry._logs import Logger, LogRecord, NoOpLogger, SeverityNumber

from msgtap import semconv
from msgtap.record import CallRecord
from msgtap.telemetry.attributes import Attributes, call_attributes, start_attributes

if TYPE_CHECKING:
    from opentelemetry.context import Context

LogStyle = Literal["off", "stdlib", "json", "console"]
Write = Callable[[int, dict[str, Any]], None]
"""Writes an event, named by its key ``event``, at a level of the standard library's."""

CALLS = logging.getLogger("msgtap.calls")
CALLS.addHandler(logging.NullHandler())
CALLS.propagate = False


class CallLog:
    """Where events go: to ``logger``, and as text to ``write``."""

    def __init__(self, logger: Logger, write: Write | None) -> None:
        self._logger = logger
        self._listens: Callable[..., bool] = getattr(logger, "enabled", self._stands_for_one)
        self._write = write

    def _stands_for_one(self, **_: object) -> bool:
        """Before 1.45 of the API a logger could not be asked; one that does nothing, or will do something, is known."""
        return not isinstance(getattr(self._logger, "_logger", self._logger), NoOpLogger)

    def emit(self, record: CallRecord, context: Context, attributes: Attributes | None) -> None:
        """Write the event of a finished call; ``attributes`` are those of its span, if it has any."""
        severity = SeverityNumber.INFO if record.error_type is None else SeverityNumber.ERROR
        listens = self._listens(context=context, severity_number=severity, event_name=semconv.EVENT_CALL)
        if not listens and self._write is None:
            return
        facts = start_attributes(record) | (call_attributes(record) if attributes is None else attributes)
        if listens:
            self._logger.emit(
                LogRecord(
                    timestamp=record.timing.ended_at,
                    context=context,
                    severity_number=severity,
                    severity_text=severity.name,
                    body=semconv.EVENT_CALL,
                    attributes=facts,
                    event_name=semconv.EVENT_CALL,
                )
            )
        if self._write is not None:
            level = logging.INFO if record.error_type is None else logging.ERROR
            self._write(level, {"event": semconv.EVENT_CALL, **facts, **_ids(context)})


def _ids(context: Context | None = None) -> dict[str, str]:
    span = trace.get_current_span(context).get_span_context()
    return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"} if span.is_valid else {}


def add_call_ids(_logger: object, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """A structlog processor: gives the program's own events the ids of the call in progress, where there is one.

    Returns:
        ``event`` with ``trace_id`` (32 hexadecimal digits) and ``span_id`` (16), unless it has its own.
    """
    return {**_ids(), **event}


class _StderrHandler(logging.Handler):
    """Writes to whatever standard error is at that moment; the event is text by then."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{record.getMessage()}\n")


class _OnwardHandler(logging.Handler):
    """Hands the text on to the program's handlers, as propagation would, but to none that has the event already.

    OpenTelemetry's would export it beside the log record that it is; pytest's are on this logger and on the root.
    """

    def emit(self, record: logging.LogRecord) -> None:
        logger = CALLS.parent
        while logger is not None:
            for handler in logger.handlers:
                if record.levelno >= handler.level and not _has_it(handler):
                    handler.handle(record)
            logger = logger.parent if logger.propagate else None


def _has_it(handler: logging.Handler) -> bool:
    return handler in CALLS.handlers or any(
        kind.__module__.startswith("opentelemetry.") for kind in type(handler).__mro__
    )


_HANDLERS = {"stdlib": _OnwardHandler(), "json": (_stderr := _StderrHandler()), "console": _stderr}


def text_writer(style: LogStyle) -> Write | None:
    """What writes events as text in ``style``; `None` for ``"off"``. Sets the logger ``msgtap.calls`` up for it."""
    for handler in _HANDLERS.values():
        CALLS.removeHandler(handler)
    if style == "off":
        return None
    CALLS.addHandler(_HANDLERS[style])
    CALLS.disabled = False  # logging.config switches off each logger that it does not name
    CALLS.setLevel(logging.NOTSET if style == "stdlib" else logging.INFO)
    logger = _structured(style)
    return lambda level, event: logger.log(level, **event)


def _printable(_logger: object, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """The other renderers escape what could break a line or steer a terminal; not every version of this one does."""
    return {_escaped(name): _escaped(value) for name, value in event.items()}


def _escaped(value: Any) -> Any:  # noqa: ANN401  # whatever the value of an attribute may be
    return repr(value)[1:-1] if isinstance(value, str) and not value.isprintable() else value


def _structured(style: LogStyle) -> Any:  # noqa: ANN401  # structlog's bound loggers answer to any name
    import structlog  # noqa: PLC0415  # not for programs that never ask for text

    renderers: dict[str, Callable[[], Any]] = {
        "stdlib": lambda: structlog.processors.KeyValueRenderer(key_order=["event"]),
        "json": structlog.processors.JSONRenderer,
        "console": lambda: structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
    }
    stamps: list[Any] = (
        [] if style == "stdlib" else [structlog.processors.TimeStamper(fmt="iso"), structlog.stdlib.add_log_level]
    )
    if style == "console":
        stamps.append(_printable)
    return structlog.wrap_logger(
        CALLS,
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[structlog.stdlib.filter_by_level, *stamps, renderers[style]()],
    )
