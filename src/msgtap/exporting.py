"""Where telemetry goes: OpenTelemetry SDK pipelines, built from exporters that are found by name.

An exporter is a small distribution with an entry point in the group ``msgtap.exporters``: a function without arguments
that returns an `Exporter`. Names of the SDK's own groups (``opentelemetry_traces_exporter`` …) work too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, SimpleLogRecordProcessor
from opentelemetry.sdk.environment_variables import OTEL_RESOURCE_ATTRIBUTES
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

from msgtap.settings import SettingsError, names

GROUP = "msgtap.exporters"
STORE = "sqlite"
STORE_NAMES = frozenset({STORE, f"msgtap_{STORE}"})
"""The embedded store, which `msgtap run` and the reports are about; the second is its name among the SDK's own."""
DEFAULT = STORE if os.name == "posix" else "console"  # the store needs locks that the kernel lets go
SIGNALS = ("traces", "metrics", "logs")
RUN_ID = "MSGTAP_RUN_ID"
"""The variable by which the processes of one `msgtap run` know each other; ``msgtap.run.id`` in what they export."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """One destination, as parts of OpenTelemetry's SDK; a signal that it does not carry is `None`.

    Args:
        traces: a ``SpanExporter``.
        metrics: a ``MetricExporter``, which is asked to export periodically, or a ``MetricReader`` as it is.
        logs: a ``LogRecordExporter``.
        immediate: export each span and log record as it ends, on the thread that ends it; for terminals.
    """

    traces: Any = None
    metrics: Any = None
    logs: Any = None
    immediate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipelines:
    """The SDK's providers, ready to be made global.

    Args:
        stored: whether calls go to the embedded store.
    """

    tracer_provider: TracerProvider
    meter_provider: MeterProvider
    logger_provider: LoggerProvider
    stored: bool = False


def build(
    given: Sequence[str | Exporter] | Mapping[str, Sequence[str | Exporter]] | None,
    service_name: str | None,
    environ: Mapping[str, str],
) -> Pipelines:
    """Pipelines to the exporters ``given``, else to those that ``environ`` names, else to the default one.

    Args:
        given: names and exporters, for all signals or by signal.
        service_name: default what ``environ`` says, else the script's name.
        environ: the environment.

    Raises:
        SettingsError: a name is unknown, with those that are known; or the exporter's own settings are wrong.
    """
    if isinstance(given, str):
        raise SettingsError(f"exporters: expected a list such as [{given!r}]")
    chosen = given if isinstance(given, Mapping) else {signal: _chosen(given, signal, environ) for signal in SIGNALS}
    made: dict[str, Exporter] = {}
    parts: dict[str, list[Exporter]] = {
        signal: [_exporter(item, signal, made) for item in items] for signal, items in chosen.items()
    }
    resource = Resource.create(_service(service_name, environ) | _run(environ))
    return Pipelines(
        tracer_provider=_tracer_provider(resource, parts["traces"]),
        meter_provider=_meter_provider(resource, parts["metrics"]),
        logger_provider=_logger_provider(resource, parts["logs"]),
        stored=not STORE_NAMES.isdisjoint(chosen["logs"]),
    )


def _chosen(
    given: Sequence[str | Exporter] | None, signal: str, environ: Mapping[str, str]
) -> Sequence[str | Exporter]:
    return exporter_names(signal, environ) if given is None else given


def exporter_names(signal: str, environ: Mapping[str, str]) -> list[str]:
    """The exporters of ``signal`` that the environment asks for; the default one where it asks for none at all."""
    if environ.get("MSGTAP_EXPORTERS"):
        return _named(environ["MSGTAP_EXPORTERS"])
    standard = {each: _standard_names(each, environ) for each in SIGNALS}
    return standard[signal] or [] if any(found is not None for found in standard.values()) else [DEFAULT]


def _standard_names(signal: str, environ: Mapping[str, str]) -> list[str] | None:
    """What OpenTelemetry's own variables ask for; `None` where they say nothing."""
    if standard := environ.get(f"OTEL_{signal.upper()}_EXPORTER"):
        return _named(standard)
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return ["otlp"] if any(environ.get(variable) for variable in endpoints) else None


def _named(text: str) -> list[str]:
    return [name for name in names(text) if name != "none"]


def _exporter(item: str | Exporter, signal: str, made: dict[str, Exporter]) -> Exporter:
    if isinstance(item, Exporter):
        return item
    if item not in made and (found := _entry_point(GROUP, item)):
        made[item] = _made(item, found)
    if item in made:
        return made[item]
    if found := _entry_point(f"opentelemetry_{signal}_exporter", item):
        return Exporter(**{signal: _made(item, found)})
    known = sorted({point.name for point in entry_points(group=GROUP)})
    hint = "; pip install 'msgtap[otlp]' brings it" if item == "otlp" else ""
    raise SettingsError(f"no exporter named {item!r}; installed: {', '.join(known)}{hint}")


def _made(name: str, found: EntryPoint) -> Any:
    try:
        return found.load()()
    except (ValueError, ImportError) as error:
        raise SettingsError(f"exporter {name}: {error}") from error


def _entry_point(group: str, name: str) -> EntryPoint | None:
    return next(iter(entry_points(group=group, name=name)), None)


def _service(service_name: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """``service.name``: the argument, else what the environment says (the SDK reads it), else the script's name."""
    attributes = {part.partition("=")[0].strip() for part in names(environ.get(OTEL_RESOURCE_ATTRIBUTES, ""))}
    if not service_name and (environ.get("OTEL_SERVICE_NAME") or SERVICE_NAME in attributes):
        return {}
    return {SERVICE_NAME: service_name or _script(sys.argv[0] if sys.argv else "")}


def _run(environ: Mapping[str, str]) -> dict[str, str]:
    return {"msgtap.run.id": environ[RUN_ID]} if environ.get(RUN_ID) else {}


def _script(path: str) -> str:
    """The name of a script; of a package that is run, the package's."""
    script = Path(path)
    name = script.parent.name if script.name == "__main__.py" else script.stem
    return name if name.strip("-") and name != "-c" else "python"  # "-c" and "-" stand for no file


def _tracer_provider(resource: Resource, exporters: Iterable[Exporter]) -> TracerProvider:
    provider = TracerProvider(resource=resource)
    for exporter in exporters:
        if exporter.traces is not None:
            processor = SimpleSpanProcessor if exporter.immediate else BatchSpanProcessor
            provider.add_span_processor(processor(exporter.traces))
    return provider


def _meter_provider(resource: Resource, exporters: Iterable[Exporter]) -> MeterProvider:
    parts = [exporter.metrics for exporter in exporters if exporter.metrics is not None]
    readers = [part if isinstance(part, MetricReader) else PeriodicExportingMetricReader(part) for part in parts]
    return MeterProvider(resource=resource, metric_readers=readers)


def _logger_provider(resource: Resource, exporters: Iterable[Exporter]) -> LoggerProvider:
    provider = LoggerProvider(resource=resource)
    for exporter in exporters:
        if exporter.logs is not None:
            processor = SimpleLogRecordProcessor if exporter.immediate else BatchLogRecordProcessor
            provider.add_log_record_processor(processor(exporter.logs))
    return provider
