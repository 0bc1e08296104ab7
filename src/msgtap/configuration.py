"""The composition root: puts settings, telemetry and adapters together, and switches them on and off."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import wrapt
from opentelemetry import _logs, metrics, trace

from msgtap import tap
from msgtap.correlation import Identifiers
from msgtap.settings import Settings, SettingsError, from_environ, with_arguments
from msgtap.shield import LOGGER, attempt
from msgtap.tap import Processor, Watcher
from msgtap.telemetry.logs import LogStyle
from msgtap.telemetry.observer import Telemetry
from msgtap.telemetry.spans import ExistingSpan
from msgtap.wire.endpoint import Endpoint, EndpointTable

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from msgtap.exporting import Exporter

ADAPTERS = "msgtap.adapters"
_LONGEST = 3600.0  # seconds; what a provider is asked to wait for must be a number of milliseconds

_configured = False
_stored = False
_given: list[object] = []


def configure(
    *,
    exporters: Sequence[str | Exporter] | None = None,
    service_name: str | None = None,
    processors: Sequence[Processor] | None = None,
    endpoints: Sequence[Endpoint] | None = None,
    exclude: Sequence[str] | None = None,
    existing_span: ExistingSpan | None = None,
    identifiers: str | Identifiers | None = None,
    logs: LogStyle | None = None,
) -> None:
    """Observe the calls of a program that has no OpenTelemetry of its own, and send what is seen to ``exporters``.

    Builds OpenTelemetry's providers, makes them the global ones and calls `instrument`. Called again, it changes the
    settings and leaves the providers as they are.

    Args:
        exporters: names (``"otlp"``, ``"console"``) or `Exporter` objects. Default: ``MSGTAP_EXPORTERS``, else what the
            standard ``OTEL_*`` variables ask for (nothing for a signal that they leave out), else ``"sqlite"``, the
            store in this user's state directory.
        service_name: default ``OTEL_SERVICE_NAME``, else the script's name.
        processors: see `instrument`, as for all that follow.
        endpoints: see there.
        exclude: see there.
        existing_span: see there.
        identifiers: see there.
        logs: see there.

    Raises:
        SettingsError: a setting means nothing; or the program has a provider already.
    """
    global _configured, _stored  # noqa: PLW0603  # OpenTelemetry's providers are process-wide, and so is this
    arguments = {
        "processors": processors,
        "endpoints": endpoints,
        "exclude": exclude,
        "existing_span": existing_span,
        "identifiers": identifiers,
        "logs": logs,
    }
    settings = read_settings(**arguments)
    if settings.disabled:
        return
    if not _configured:
        if kind := _provider_there():
            raise SettingsError(f"this program has an OpenTelemetry {kind} provider: call msgtap.instrument() instead")
        _stored = _build(exporters, service_name)
        _configured = True
    _switch_on(settings, stored=_stored)


def instrument(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
    processors: Sequence[Processor] | None = None,
    endpoints: Sequence[Endpoint] | None = None,
    exclude: Sequence[str] | None = None,
    existing_span: ExistingSpan | None = None,
    identifiers: str | Identifiers | None = None,
    logs: LogStyle | None = None,
) -> None:
    """Observe the calls of a program that has OpenTelemetry providers, or will have: the global ones, or those given.

    Works for clients that exist already and for libraries that are imported later. Called again, it changes the
    settings.

    Args:
        tracer_provider: default the global one.
        meter_provider: default the global one.
        logger_provider: default the global one.
        processors: functions from `CallRecord` to `CallRecord`, or to `None` to drop it, in order.
        endpoints: rows that come before the built-in ones. Default: those of the file ``MSGTAP_ENDPOINTS``.
        exclude: shell patterns of hosts or paths to leave alone. Default: ``MSGTAP_EXCLUDE``, comma-separated.
        existing_span: what to do where another instrumentation has opened a span for the call: ``"enrich"`` it with
            what it lacks, ``"nest"`` a span of our own below it, or ``"ignore"`` it and write no span at all. Metrics
            and log are the same. Default: ``MSGTAP_EXISTING_SPAN``, else ``"enrich"``.
        identifiers: how session and user ids are written: ``"plain"``, ``"hash"`` (SHA-256), or a function from id to
            id. Default: ``MSGTAP_IDENTIFIERS``, else plain.
        logs: one event a call as text: ``"off"``, ``"stdlib"`` (to the program's own logging, logger ``msgtap.calls``),
            ``"json"`` or ``"console"`` (on standard error). Default: ``MSGTAP_LOGS``, else off.

    Raises:
        SettingsError: a setting means nothing.
    """
    arguments = {
        "processors": processors,
        "endpoints": endpoints,
        "exclude": exclude,
        "existing_span": existing_span,
        "identifiers": identifiers,
        "logs": logs,
    }
    settings = read_settings(**arguments)
    if not settings.disabled:
        _switch_on(settings, tracer_provider, meter_provider, logger_provider, stored=False)


def uninstrument() -> None:
    """Observe nothing from now on.

    Wrappers stay and pass straight through; calls that are open are seen to their end.
    """
    tap.activate(None)


def flush(timeout: float = 10.0) -> bool:
    """Emit what is pending and have the providers export it, waiting at most ``timeout`` seconds for each of them.

    Returns:
        Whether all of it went out in time, as far as the providers say.
    """
    tap.drain()
    providers = [trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider(), *_given]
    flushes = [getattr(provider, "force_flush", None) for provider in providers]
    done = [
        attempt(force_flush, int(min(timeout, _LONGEST) * 1000), default=False)
        for force_flush in flushes
        if force_flush
    ]
    return all(result is not False for result in done)


class Instrumentor:
    """What ``opentelemetry-instrument`` finds by the entry point ``opentelemetry_instrumentor``."""

    def instrument(self, **providers: Any) -> None:  # noqa: ANN401  # OpenTelemetry's loader passes what it likes
        """`instrument`, with the providers among the keyword arguments."""
        known = ("tracer_provider", "meter_provider", "logger_provider")
        try:
            instrument(**{name: provider for name, provider in providers.items() if name in known})
        except SettingsError as error:  # OpenTelemetry's loader would leave out all instrumentations after this one
            LOGGER.error("msgtap is off: %s", error)  # the text says it all

    def uninstrument(self, **_: object) -> None:
        """`uninstrument`."""
        uninstrument()


def read_settings(**arguments: object) -> Settings:
    """What the environment says, and ``arguments`` instead where they are not `None`.

    Raises:
        SettingsError: a setting means nothing.
    """
    return with_arguments(from_environ(os.environ, _read_file), **arguments)


def _read_file(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _provider_there() -> str | None:
    """Which of the providers, of which a program can have one each, is set."""
    providers = {
        "tracer": trace.get_tracer_provider(),
        "meter": metrics.get_meter_provider(),
        "logger": _logs.get_logger_provider(),
    }
    # Not all of the classes that stand for a provider yet to come have public names.
    return next((kind for kind, provider in providers.items() if "Proxy" not in type(provider).__name__), None)


def _build(exporters: Sequence[str | Exporter] | None, service_name: str | None) -> bool:
    """Make the providers; whether they lead to the embedded store."""
    from msgtap.exporting import build  # noqa: PLC0415  # the SDK is for those who configure it here

    pipelines = build(exporters, service_name, os.environ)
    trace.set_tracer_provider(pipelines.tracer_provider)
    metrics.set_meter_provider(pipelines.meter_provider)
    _logs.set_logger_provider(pipelines.logger_provider)
    return pipelines.stored


def _switch_on(
    settings: Settings,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
    *,
    stored: bool,
) -> None:
    _given[:] = [provider for provider in (tracer_provider, meter_provider, logger_provider) if provider is not None]
    telemetry = Telemetry(
        version=version("msgtap"),
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        logger_provider=logger_provider,
        existing_span=settings.existing_span,
        logs=settings.logs,
    )
    tap.activate(
        Watcher(
            endpoints=EndpointTable(settings.endpoints, settings.exclude),
            observers=(telemetry,),
            processors=settings.processors,
            defaults=settings.defaults,
            identifiers=settings.identifiers,
            alone=stored,
        )
    )
    install_adapters()


@functools.cache
def install_adapters() -> None:
    """Have each adapter installed when its client is imported, or now if it is already, once. No client is imported."""
    for point in entry_points(group=ADAPTERS):
        wrapt.register_post_import_hook(_installer(point), point.name)


def _installer(point: EntryPoint) -> Callable[[ModuleType], None]:
    """An import hook that raises nothing: an exception there would fail the program's import."""

    def install(module: ModuleType) -> None:
        adapter = attempt(point.load)
        if adapter is None:
            LOGGER.warning("the adapter %s could not be loaded; its calls are not seen", point.name)
        else:
            attempt(adapter, module)

    return install
