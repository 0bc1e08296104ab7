"""The exporter ``otlp``: spans, points and log records to a collector, by OpenTelemetry's own exporters and variables.

``OTEL_EXPORTER_OTLP_PROTOCOL`` (or that of a signal, ``OTEL_EXPORTER_OTLP_TRACES_PROTOCOL``) chooses ``http/protobuf``,
the default, or ``grpc``. Endpoint, headers, timeout, compression and certificates are read by the exporters themselves.
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from msgtap.exporting import SIGNALS, Exporter

__all__ = ["exporter"]

_PACKAGES = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
}
_CLASSES = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}


def exporter() -> Exporter:
    """The entry point.

    Raises:
        ValueError: a protocol that this exporter does not speak.
    """
    return Exporter(**{signal: _part(signal, protocol(signal, os.environ)) for signal in SIGNALS})


def protocol(signal: str, environ: Mapping[str, str]) -> str:
    """The protocol for ``signal``: its own variable, else the common one, else the specification's default."""
    for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        chosen = environ.get(name, "").strip()
        if chosen in _PACKAGES:
            return chosen
        if chosen:
            raise ValueError(f"{name}={chosen!r} is none of {', '.join(_PACKAGES)}")
    return "http/protobuf"


def _part(signal: str, spoken: str) -> Any:
    """The SDK's exporter; gRPC is imported only where it is spoken."""
    module, name = _CLASSES[signal]
    return getattr(import_module(f"{_PACKAGES[spoken]}.{module}"), name)()
