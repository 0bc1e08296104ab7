"""Observability for programs that call an Anthropic-format Messages endpoint."""

from msgtap.configuration import configure, flush, instrument, uninstrument
from msgtap.record import CallRecord
from msgtap.settings import SettingsError
from msgtap.telemetry.logs import add_call_ids
from msgtap.wire.endpoint import Endpoint

__all__ = [
    "CallRecord",
    "Endpoint",
    "SettingsError",
    "add_call_ids",
    "configure",
    "flush",
    "instrument",
    "uninstrument",
]
