"""An exporter that keeps everything, for tests and for the demo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.sdk._logs import export as logs_export
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from msgtap.exporting import Exporter

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

# Renamed in 1.39 of the SDK.
_Logs: Any = vars(logs_export).get("InMemoryLogRecordExporter") or vars(logs_export)["InMemoryLogExporter"]


class Memory:
    """Spans, metrics and log records as they would be exported.

    Example:
        memory = Memory()
        msgtap.configure(exporters=[memory.exporter])
        client.messages.create(...)
        assert memory.spans[0].name == "chat claude-sonnet-5"
    """

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self._logs = _Logs()
        self.exporter = Exporter(traces=self._spans, metrics=self._reader, logs=self._logs, immediate=True)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended."""
        return self._spans.get_finished_spans()

    @property
    def metrics(self) -> MetricsData | None:
        """The metrics as they stand; `None` before there are any."""
        return self._reader.get_metrics_data()

    @property
    def logs(self) -> tuple[Any, ...]:
        """The log records that were emitted, each with its ``log_record``."""
        return tuple(self._logs.get_finished_logs())
