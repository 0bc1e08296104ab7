"""What ``msgtap run`` starts inside the program it runs.

The program's own OpenTelemetry is left alone: this observer has providers of its own, its spans are never current, and
spans of others are not written to.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

from msgtap import tap
from msgtap.configuration import install_adapters, read_settings
from msgtap.exporting import SIGNALS, build, exporter_names
from msgtap.telemetry.observer import Telemetry
from msgtap.wire.endpoint import EndpointTable

PATH = str(Path(__file__).parent)
"""The folder that goes on PYTHONPATH, for its ``sitecustomize``."""

RUN_ID = "MSGTAP_RUN_ID"
MODULES = "MSGTAP_RUN_MODULES"
STORE = "sqlite"


def start() -> None:
    """Observe this process for ``msgtap run``: into the embedded store, and wherever the environment says besides."""
    settings = read_settings()
    if settings.disabled:
        return
    exporters = {signal: dict.fromkeys([STORE, *exporter_names(signal, os.environ)]) for signal in SIGNALS}
    pipelines = build(exporters, None, os.environ, {"msgtap.run.id": os.environ.get(RUN_ID, "")})
    telemetry = Telemetry(
        version=version("msgtap"),
        tracer_provider=pipelines.tracer_provider,
        meter_provider=pipelines.meter_provider,
        logger_provider=pipelines.logger_provider,
        existing_span="nest",
        current=False,
    )
    tap.observe_always(
        tap.Watcher(
            endpoints=EndpointTable(settings.endpoints, settings.exclude),
            observers=(telemetry,),
            processors=settings.processors,
            defaults=settings.defaults,
            identifiers=settings.identifiers,
        )
    )
    install_adapters()
