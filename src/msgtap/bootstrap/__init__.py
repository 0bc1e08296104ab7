"""What ``msgtap run`` starts inside the program it runs.

The program's own OpenTelemetry is left alone: what observes here has providers of its own, its spans are never current,
and spans of others are not written to.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from msgtap import tap
from msgtap.configuration import install_adapters, read_settings
from msgtap.exporting import RUN_ID, SIGNALS, STORE, STORE_NAMES, build, exporter_names
from msgtap.settings import SettingsError
from msgtap.telemetry.logs import LogStyle
from msgtap.telemetry.observer import Telemetry
from msgtap.wire.endpoint import EndpointTable

PATH = str(Path(__file__).parent)
"""The folder that goes on PYTHONPATH, for its ``sitecustomize``."""

MODULES = "MSGTAP_RUN_MODULES"
"""The variable that tells ``sitecustomize`` which modules to wait for."""


_started = False


def start_in_run() -> None:
    """`start`, if this is a program under ``msgtap run``: for those whose own ``sitecustomize`` comes before ours.

    ``opentelemetry-instrument`` is one, and calls this by its entry point.
    """
    if os.environ.get(RUN_ID):
        start()


def start() -> None:
    """Observe this process for ``msgtap run``: into the embedded store, and wherever the environment says besides.

    Where the program uses msgtap itself, its own settings say what goes elsewhere, and only the store is added.
    """
    global _started  # noqa: PLW0603  # what is observed is the process
    settings = read_settings()
    if settings.disabled or _started:
        return
    _started = True
    # No points: they would need a thread of their own, of which Python warns a program that forks. Calls say the same.
    store = _telemetry({"traces": [STORE], "metrics": [], "logs": [STORE]}, None)
    further = {signal: _further(signal) for signal in SIGNALS}
    others = _further_telemetry(further, settings.logs) if any(further.values()) or settings.logs != "off" else ()
    watcher = tap.Watcher(
        endpoints=EndpointTable(settings.endpoints, settings.exclude),
        observers=(store, *others),
        processors=settings.processors,
        defaults=settings.defaults,
        identifiers=settings.identifiers,
    )
    tap.observe_always(watcher, beside=(store,))
    install_adapters()


def _further(signal: str) -> list[str]:
    return [name for name in exporter_names(signal, os.environ) if name not in STORE_NAMES]


def _further_telemetry(exporters: Mapping[str, Sequence[str]], logs: LogStyle) -> tuple[Telemetry, ...]:
    """A destination that cannot be had is no reason to do without the store."""
    try:
        return (_telemetry(exporters, logs),)
    except SettingsError as error:
        sys.stderr.write(f"msgtap: {error}\n")
        return ()


def _telemetry(exporters: Mapping[str, Sequence[str]], logs: LogStyle | None) -> Telemetry:
    pipelines = build(exporters, None, os.environ)
    return Telemetry(
        version=version("msgtap"),
        tracer_provider=pipelines.tracer_provider,
        meter_provider=pipelines.meter_provider,
        logger_provider=pipelines.logger_provider,
        existing_span="private",
        logs=None if logs == "off" else logs,
    )
