"""What may be set, where, and what it means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from msgtap.correlation import Defaults, hashed, plain
from msgtap.settings import Settings, SettingsError, from_environ, names, with_arguments
from msgtap.wire.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msgtap.record import CallRecord

ACME = Endpoint(host="llm.example.com", provider="acme")
ROWS = """
[[endpoint]]
host = "llm.example.com"
path = "/v2/*/messages"
provider = "acme"

[[endpoint]]
host = "*.internal:8080"
"""
FILES = {
    "rows.toml": ROWS,
    "one.toml": '[[endpoint]]\nhost = "one"',
    "none.toml": "endpoint = []",
    "no.toml": "[[endpoint",
    "empty.toml": "",
    "table.toml": '[endpoint]\nhost = "a"',
    "number.toml": "[[endpoint]]\nhost = 1",
    "typo.toml": '[[endpoint]]\nhots = "a"',
    "plural.toml": '[[endpoints]]\nhost = "a"',
}


def read(environ: Mapping[str, str]) -> Settings:
    """The settings that these variables make; files are those of `FILES`, and all others are missing."""

    def read_file(path: str) -> str:
        if path not in FILES:
            raise FileNotFoundError(2, "No such file or directory", path)
        return FILES[path]

    return from_environ(environ, read_file)


def unchanged(record: CallRecord) -> CallRecord:
    """A processor."""
    return record


def initials(identifier: str) -> str:
    """A way of writing ids."""
    return identifier[:2]


GOOD_VARIABLES: list[tuple[dict[str, str], Settings]] = [
    ({}, Settings()),
    ({"MSGTAP_DISABLED": ""}, Settings()),
    ({"MSGTAP_DISABLED": "0"}, Settings()),
    ({"MSGTAP_DISABLED": "false"}, Settings()),
    ({"MSGTAP_DISABLED": "no"}, Settings()),
    ({"MSGTAP_DISABLED": "off"}, Settings()),
    ({"MSGTAP_DISABLED": "1"}, Settings(disabled=True)),
    ({"MSGTAP_DISABLED": "true"}, Settings(disabled=True)),
    ({"MSGTAP_DISABLED": " TRUE "}, Settings(disabled=True)),
    ({"MSGTAP_DISABLED": "yes"}, Settings(disabled=True)),
    ({"MSGTAP_DISABLED": "on"}, Settings(disabled=True)),
    # As OpenTelemetry has it: any value but "true" is false, and none is an error.
    ({"OTEL_SDK_DISABLED": "true"}, Settings(disabled=True)),
    ({"OTEL_SDK_DISABLED": " True"}, Settings(disabled=True)),
    ({"OTEL_SDK_DISABLED": "1"}, Settings()),
    ({"OTEL_SDK_DISABLED": "false"}, Settings()),
    ({"OTEL_SDK_DISABLED": "maybe"}, Settings()),
    ({"MSGTAP_DISABLED": "0", "OTEL_SDK_DISABLED": "true"}, Settings(disabled=True)),
    # Off is off, whatever else is wrong.
    ({"MSGTAP_DISABLED": "1", "MSGTAP_LOGS": "loud", "MSGTAP_ENDPOINTS": "missing.toml"}, Settings(disabled=True)),
    ({"MSGTAP_EXISTING_SPAN": "enrich"}, Settings()),
    ({"MSGTAP_EXISTING_SPAN": "nest"}, Settings(existing_span="nest")),
    ({"MSGTAP_EXISTING_SPAN": " Ignore"}, Settings(existing_span="ignore")),
    ({"MSGTAP_EXISTING_SPAN": ""}, Settings()),
    ({"MSGTAP_LOGS": "off"}, Settings()),
    ({"MSGTAP_LOGS": "stdlib"}, Settings(logs="stdlib")),
    ({"MSGTAP_LOGS": "JSON"}, Settings(logs="json")),
    ({"MSGTAP_LOGS": "console"}, Settings(logs="console")),
    ({"MSGTAP_IDENTIFIERS": "plain"}, Settings(identifiers=plain)),
    ({"MSGTAP_IDENTIFIERS": "hash"}, Settings(identifiers=hashed)),
    ({"MSGTAP_EXCLUDE": "*.internal"}, Settings(exclude=("*.internal",))),
    ({"MSGTAP_EXCLUDE": " *.internal , /mock/*,,"}, Settings(exclude=("*.internal", "/mock/*"))),
    ({"MSGTAP_EXCLUDE": ""}, Settings()),
    (
        {"MSGTAP_ENDPOINTS": "rows.toml"},
        Settings(
            endpoints=(
                Endpoint(host="llm.example.com", path="/v2/*/messages", provider="acme"),
                Endpoint(host="*.internal:8080"),
            )
        ),
    ),
    ({"MSGTAP_ENDPOINTS": "none.toml"}, Settings()),
    ({"MSGTAP_ENDPOINTS": ""}, Settings()),
    ({"MSGTAP_SESSION_ID": "s-1"}, Settings(defaults=Defaults(session_id="s-1"))),
    ({"MSGTAP_USER_ID": "u-7"}, Settings(defaults=Defaults(user_id="u-7"))),
    ({"MSGTAP_UNKNOWN": "x", "PATH": "/bin"}, Settings()),
]


@pytest.mark.parametrize(("environ", "settings"), GOOD_VARIABLES)
def test_variables(environ: dict[str, str], settings: Settings) -> None:
    """Each variable, with what it means."""
    assert settings == read(environ)


BAD_VARIABLES: list[tuple[dict[str, str], str]] = [
    ({"MSGTAP_DISABLED": "maybe"}, "MSGTAP_DISABLED: 'maybe' is neither true nor false"),
    ({"MSGTAP_EXISTING_SPAN": "replace"}, "MSGTAP_EXISTING_SPAN: 'replace' is none of enrich, nest, ignore"),
    ({"MSGTAP_LOGS": "loud"}, "MSGTAP_LOGS: 'loud' is none of off, stdlib, json, console"),
    (
        {"MSGTAP_IDENTIFIERS": "md5"},
        "MSGTAP_IDENTIFIERS: 'md5' is none of plain, hash, nor a function from id to id",
    ),
]


@pytest.mark.parametrize(("environ", "error"), BAD_VARIABLES)
def test_bad_variables(environ: dict[str, str], error: str) -> None:
    """A value that means nothing is an error that names the variable and what would have worked."""
    with pytest.raises(SettingsError) as raised:
        read(environ)
    assert error == str(raised.value)


BAD_FILES = [
    ("missing.toml", "[Errno 2] No such file or directory: 'missing.toml'"),
    ("no.toml", "Expected ']]' at the end of an array declaration (at end of document)"),
    ("empty.toml", "Object missing required field `endpoint`"),
    ("table.toml", "Expected `array`, got `object` - at `$.endpoint`"),
    ("number.toml", "Expected `str`, got `int` - at `$.endpoint[0].host`"),
    ("typo.toml", "Object contains unknown field `hots` - at `$.endpoint[0]`"),
    ("plural.toml", "Object contains unknown field `endpoints`"),
]


@pytest.mark.parametrize(("path", "reason"), BAD_FILES)
def test_bad_files(path: str, reason: str) -> None:
    """A file of endpoints that cannot be used is an error that says why, and shows what one looks like."""
    hint = 'expected TOML such as [[endpoint]] host = "llm.example.com" path = "*/v1/messages" provider = "acme"'
    with pytest.raises(SettingsError) as raised:
        read({"MSGTAP_ENDPOINTS": path})
    assert f"MSGTAP_ENDPOINTS: cannot use {path!r}: {reason}; {hint}" == str(raised.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    """Neither does a file that holds something else crash the program in its own way."""
    path = tmp_path / "rows.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot use"):
        from_environ({"MSGTAP_ENDPOINTS": str(path)}, lambda name: Path(name).read_text(encoding="utf-8"))


GOOD_ARGUMENTS: list[tuple[dict[str, Any], Settings]] = [
    ({"existing_span": "nest"}, Settings(existing_span="nest")),
    ({"logs": "json"}, Settings(logs="json")),
    ({"identifiers": "hash"}, Settings(identifiers=hashed)),
    ({"identifiers": initials}, Settings(identifiers=initials)),
    ({"endpoints": [ACME]}, Settings(endpoints=(ACME,))),
    ({"endpoints": (ACME, ACME)}, Settings(endpoints=(ACME, ACME))),
    ({"endpoints": []}, Settings()),
    ({"processors": [unchanged]}, Settings(processors=(unchanged,))),
    ({"exclude": ["*.internal", "/mock/*"]}, Settings(exclude=("*.internal", "/mock/*"))),
    ({"existing_span": None, "logs": None, "identifiers": None, "endpoints": None}, Settings()),
]


@pytest.mark.parametrize(("arguments", "settings"), GOOD_ARGUMENTS)
def test_arguments(arguments: dict[str, Any], settings: Settings) -> None:
    """Each argument, with what it means; `None` is as if it were not there."""
    assert settings == with_arguments(Settings(), **arguments)


BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"existing_span": "replace"}, "existing_span: 'replace' is none of enrich, nest, ignore"),
    ({"existing_span": ["nest"]}, "existing_span: ['nest'] is none of enrich, nest, ignore"),
    ({"logs": True}, "logs: True is none of off, stdlib, json, console"),
    ({"identifiers": "md5"}, "identifiers: 'md5' is none of plain, hash, nor a function from id to id"),
    (
        {"endpoints": [{"host": "a"}]},
        'endpoints: expected a list such as [msgtap.Endpoint(host="llm.example.com", provider="acme")]',
    ),
    (
        {"endpoints": ACME},
        'endpoints: expected a list such as [msgtap.Endpoint(host="llm.example.com", provider="acme")]',
    ),
    ({"processors": unchanged}, "processors: expected a list of functions from CallRecord to CallRecord or None"),
    ({"processors": ["hash"]}, "processors: expected a list of functions from CallRecord to CallRecord or None"),
    ({"exclude": "*.internal"}, 'exclude: expected a list of hosts or paths such as ["*.internal", "/mock/*"]'),
    ({"exclude": [7]}, 'exclude: expected a list of hosts or paths such as ["*.internal", "/mock/*"]'),
]


@pytest.mark.parametrize(("arguments", "error"), BAD_ARGUMENTS)
def test_bad_arguments(arguments: dict[str, Any], error: str) -> None:
    """A value that means nothing is an error that names the argument and what would have worked."""
    with pytest.raises(SettingsError) as raised:
        with_arguments(Settings(), **arguments)
    assert error == str(raised.value)


PRECEDENCE: list[tuple[str, dict[str, str], Any, Any, Any]] = [
    ("existing_span", {"MSGTAP_EXISTING_SPAN": "nest"}, "nest", "ignore", "ignore"),
    ("logs", {"MSGTAP_LOGS": "json"}, "json", "stdlib", "stdlib"),
    ("identifiers", {"MSGTAP_IDENTIFIERS": "hash"}, hashed, initials, initials),
    ("exclude", {"MSGTAP_EXCLUDE": "a,b"}, ("a", "b"), ["c"], ("c",)),
    ("exclude", {"MSGTAP_EXCLUDE": "a,b"}, ("a", "b"), [], ()),
    ("endpoints", {"MSGTAP_ENDPOINTS": "one.toml"}, (Endpoint(host="one"),), [ACME], (ACME,)),
]


@pytest.mark.parametrize(("name", "environ", "by_variable", "argument", "by_argument"), PRECEDENCE)
def test_precedence(
    name: str, environ: dict[str, str], by_variable: object, argument: object, by_argument: object
) -> None:
    """An argument wins over the environment, which wins over the default."""
    from_environment = read(environ)
    assert by_variable == getattr(from_environment, name)
    assert by_variable != getattr(Settings(), name)
    assert by_variable == getattr(with_arguments(from_environment, **{name: None}), name)
    assert by_argument == getattr(with_arguments(from_environment, **{name: argument}), name)


def test_names() -> None:
    """A list of names, with whatever space and empty parts."""
    assert ("a", "b c") == names(" a, b c ,,")
    assert () == names(" , ")


def test_errors_are_value_errors() -> None:
    """A program that knows nothing of msgtap's errors catches a ValueError."""
    assert issubclass(SettingsError, ValueError)
