"""The exporter for eyes: spans, points and events as indented text on standard error, as they come."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk._logs import export as logs_export
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from msgtap.exporting import Exporter

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

# The log exporter's classes were renamed in 1.39 of the SDK.
_NAMES = (
    ("LogRecordExporter", "LogRecordExportResult")
    if hasattr(logs_export, "LogRecordExporter")
    else ("LogExporter", "LogExportResult")
)
_LogExporter: Any
_LogResult: Any
_LogExporter, _LogResult = (vars(logs_export)[name] for name in _NAMES)


def exporter() -> Exporter:
    """The entry point."""
    return Exporter(traces=_Spans(), metrics=_Metrics(), logs=_Logs(), immediate=True)


def _write(lines: Iterable[str]) -> None:
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def _facts(attributes: Mapping[str, Any] | None) -> Iterator[str]:
    for name, value in (attributes or {}).items():
        shown = list(value) if isinstance(value, tuple) else round(value, 6) if isinstance(value, float) else value
        yield f"         {_plain(name)} = {shown!r}"


def _plain(value: object) -> str:
    """On one line, and without whatever could steer a terminal."""
    text = str(value)
    return text if text.isprintable() else repr(text)[1:-1]


def span_lines(span: ReadableSpan) -> Iterator[str]:
    """A span as text: name, duration, status and ids, then its attributes."""
    took = ((span.end_time or 0) - (span.start_time or 0)) / 1e6
    context = span.get_span_context()
    ids = f"trace {context.trace_id:032x} span {context.span_id:016x}" if context else ""
    yield f"span     {_plain(span.name)}  {took:,.1f} ms  {span.status.status_code.name}  {ids}"
    yield from _facts(span.attributes)


def log_lines(record: Any) -> Iterator[str]:
    """A log record as text, on one line: event, severity and ids, then its attributes."""
    ids = f"trace {record.trace_id:032x} span {record.span_id:016x}" if record.trace_id else ""
    event = record.event_name if record.body is None else record.body
    yield f"log      {_plain(event)}  {record.severity_text or ''}  {ids}  {_labels(record.attributes)}"


def metric_lines(data: MetricsData) -> Iterator[str]:
    """Points as text, a line each."""
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    yield f"metric   {metric.name} {_amount(point)} {metric.unit}  {_labels(point.attributes)}"


def _amount(point: Any) -> str:
    """A histogram's count and sum, or a value."""
    return f"count={point.count} sum={_number(point.sum)}" if hasattr(point, "count") else _number(point.value)


def _number(value: Any) -> str:
    """Counts in full; six digits of all else."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _labels(attributes: Mapping[str, Any] | None) -> str:
    return " ".join(f"{_plain(name)}={_plain(value)}" for name, value in (attributes or {}).items())


class _Spans(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            _write(span_lines(span))
        return SpanExportResult.SUCCESS


class _Metrics(MetricExporter):
    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:  # noqa: ARG002
        _write(metric_lines(metrics_data))
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Nothing is open."""


class _Logs(_LogExporter):  # type: ignore[misc]  # which of the two it is, only the SDK knows
    def export(self, batch: Sequence[Any]) -> Any:
        for data in batch:
            _write(log_lines(data.log_record))
        return _LogResult.SUCCESS

    def force_flush(self, timeout_millis: int = 10_000) -> bool:  # noqa: ARG002
        return True

    def shutdown(self) -> None:
        """Nothing is open."""
