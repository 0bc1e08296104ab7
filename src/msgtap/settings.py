"""Settings: what may be set, where, and what each value means. Pure: environment and files are arguments.

An argument wins over the environment, which wins over the default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast, get_args

import msgspec

from msgtap.correlation import Defaults, Identifiers, hashed, plain
from msgtap.tap import Processor
from msgtap.telemetry.logs import LogStyle
from msgtap.telemetry.spans import ExistingSpan
from msgtap.wire.endpoint import Endpoint

_IDENTIFIERS: Mapping[str, Identifiers] = {"plain": plain, "hash": hashed}
_SWITCH = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "": False,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


class SettingsError(ValueError):
    """A setting that means nothing here; the text says what would have worked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, except where telemetry goes (`msgtap.exporting`)."""

    disabled: bool = False
    processors: tuple[Processor, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    exclude: tuple[str, ...] = ()
    existing_span: ExistingSpan = "enrich"
    identifiers: Identifiers = plain
    logs: LogStyle = "off"
    defaults: Defaults = field(default_factory=Defaults)


def from_environ(environ: Mapping[str, str], read_file: Callable[[str], str]) -> Settings:
    """The settings that ``environ`` makes; ``read_file`` gives the text of the file that `MSGTAP_ENDPOINTS` names.

    Raises:
        SettingsError: a variable's value means nothing.
    """
    if _switch(environ, "MSGTAP_DISABLED") or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Settings(disabled=True)  # and whatever else is said means nothing: this must never fail
    found: dict[str, Any] = {}
    for variable, name, check in _WORDS:
        if word := environ.get(variable, "").strip().lower():
            found[name] = check(variable, word)
    if environ.get("MSGTAP_EXCLUDE"):
        found["exclude"] = names(environ["MSGTAP_EXCLUDE"])
    if environ.get("MSGTAP_ENDPOINTS"):
        found["endpoints"] = read_endpoints(environ["MSGTAP_ENDPOINTS"], read_file)
    ids = {"session_id": environ.get("MSGTAP_SESSION_ID"), "user_id": environ.get("MSGTAP_USER_ID")}
    return Settings(**found, defaults=Defaults(**ids))


def with_arguments(settings: Settings, **arguments: object) -> Settings:
    """``settings`` with each argument that is not `None` in place of what the environment said.

    Raises:
        SettingsError: an argument's value means nothing.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    checks: Mapping[str, Callable[[str, Any], Any]] = {
        "existing_span": _choice,
        "logs": _choice,
        "identifiers": _identifiers,
        "endpoints": _endpoints,
        "processors": _processors,
        "exclude": _patterns,
    }
    return replace(settings, **{name: checks[name](name, value) for name, value in given.items()})


def names(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated list."""
    return tuple(part for piece in text.split(",") if (part := piece.strip()))


class _EndpointsFile(msgspec.Struct, forbid_unknown_fields=True):
    endpoint: list[Endpoint]


def read_endpoints(path: str, read_file: Callable[[str], str]) -> tuple[Endpoint, ...]:
    """The rows of a TOML file of ``[[endpoint]]`` tables with ``host``, ``path`` and ``provider``.

    Raises:
        SettingsError: the file cannot be read, or is not of that form.
    """
    try:
        return tuple(msgspec.convert(tomllib.loads(read_file(path)), _EndpointsFile).endpoint)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        hint = 'expected TOML such as [[endpoint]] host = "llm.example.com" path = "*/v1/messages" provider = "acme"'
        raise SettingsError(f"MSGTAP_ENDPOINTS: cannot use {path!r}: {error}; {hint}") from error


_CHOICES: Mapping[str, tuple[str, ...]] = {
    "existing_span": get_args(ExistingSpan),
    "MSGTAP_EXISTING_SPAN": get_args(ExistingSpan),
    "logs": get_args(LogStyle),
    "MSGTAP_LOGS": get_args(LogStyle),
}


def _choice(name: str, value: object) -> object:
    if value not in _CHOICES[name]:
        raise SettingsError(f"{name}: {value!r} is none of {', '.join(_CHOICES[name])}")
    return value


def _switch(environ: Mapping[str, str], variable: str) -> bool:
    value = environ.get(variable, "").strip().lower()
    if value not in _SWITCH:
        raise SettingsError(f"{variable}: {value!r} is neither true nor false")
    return _SWITCH[value]


def _identifiers(name: str, value: object) -> Identifiers:
    if callable(value):
        return cast("Identifiers", value)
    if isinstance(value, str) and value in _IDENTIFIERS:
        return _IDENTIFIERS[value]
    raise SettingsError(f"{name}: {value!r} is none of {', '.join(_IDENTIFIERS)}, nor a function from id to id")


_WORDS: tuple[tuple[str, str, Callable[[str, object], object]], ...] = (
    ("MSGTAP_EXISTING_SPAN", "existing_span", _choice),
    ("MSGTAP_LOGS", "logs", _choice),
    ("MSGTAP_IDENTIFIERS", "identifiers", _identifiers),
)


def _endpoints(name: str, value: object) -> tuple[Endpoint, ...]:
    if isinstance(value, Sequence) and all(isinstance(row, Endpoint) for row in value):
        return tuple(value)
    raise SettingsError(f'{name}: expected a list such as [msgtap.Endpoint(host="llm.example.com", provider="acme")]')


def _processors(name: str, value: object) -> tuple[Processor, ...]:
    if isinstance(value, Sequence) and all(callable(processor) for processor in value):
        return tuple(value)
    raise SettingsError(f"{name}: expected a list of functions from CallRecord to CallRecord or None")


def _patterns(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise SettingsError(f'{name}: expected a list of hosts or paths such as ["*.internal", "/mock/*"]')
