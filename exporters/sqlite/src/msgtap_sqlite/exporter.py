"""The store as exporters of OpenTelemetry's SDK, one class for each signal; all of a process share one writer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk._logs import export as logs_export
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from msgtap.exporting import Exporter
from msgtap.shield import attempt
from msgtap_sqlite.entries import Entry, Reader, encode
from msgtap_sqlite.writer import writer

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
    """The entry point: every span and log record goes into the journal on the thread that ends it.

    Raises:
        ValueError: one of the store's settings means nothing.
    """
    return Exporter(traces=Spans(), metrics=Metrics(), logs=Logs(), immediate=True)


class _Sink:
    """What the three have in common: entries in, nothing raised."""

    def __init__(self) -> None:
        self._writer = writer(os.environ)
        self.read = Reader()

    def take(self, entries: Iterable[Entry]) -> bool:
        """Write entries: whether all of them are in the journal."""
        return attempt(self._write, entries, default=False) or False

    def _write(self, entries: Iterable[Entry]) -> bool:
        return not [entry for entry in entries if not self._writer.write(encode(entry))]

    def flush(self, timeout: float) -> bool:
        """Have everything in the database."""
        return self._writer.flush(timeout)


class Spans(SpanExporter):
    """Spans to the store."""

    def __init__(self) -> None:
        self._sink = _Sink()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write them."""
        done = self._sink.take(map(self._sink.read.span, spans))
        return SpanExportResult.SUCCESS if done else SpanExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until all is in the database."""
        return self._sink.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Nothing: all is in the journal, and the writer lives on until the process exits."""


class Metrics(MetricExporter):
    """Points to the store."""

    def __init__(self) -> None:
        super().__init__()
        self._sink = _Sink()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:  # noqa: ARG002
        """Write them."""
        done = self._sink.take(self._sink.read.points(metrics_data))
        return MetricExportResult.SUCCESS if done else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Wait until all is in the database."""
        return self._sink.flush(timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Nothing: all is in the journal, and the writer lives on until the process exits."""


class Logs(_LogExporter):  # type: ignore[misc]  # which of the two it is, only the SDK knows
    """Log records to the store."""

    def __init__(self) -> None:
        self._sink = _Sink()

    def export(self, batch: Sequence[Any]) -> Any:
        """Write them."""
        done = self._sink.take(map(self._sink.read.log, batch))
        return _LogResult.SUCCESS if done else _LogResult.FAILURE

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until all is in the database."""
        return self._sink.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Nothing: all is in the journal, and the writer lives on until the process exits."""
