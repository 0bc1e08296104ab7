"""What `import msgtap` offers, and what it costs a program that does not use it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib.metadata import entry_points
from types import ModuleType

import msgtap

PUBLIC = [
    "CallRecord",
    "Endpoint",
    "SettingsError",
    "add_call_ids",
    "configure",
    "flush",
    "instrument",
    "uninstrument",
]


def test_names() -> None:
    """The public names are these, and nothing else can be imported from the package but its modules."""
    assert PUBLIC == msgtap.__all__
    importable = {name for name, value in vars(msgtap).items() if not isinstance(value, ModuleType)}
    assert set(PUBLIC) == {name for name in importable if not name.startswith("_")}


def test_star_import() -> None:
    """``from msgtap import *`` brings them, and no module of ours under a common name."""
    names: dict[str, object] = {}
    exec("from msgtap import *", names)  # noqa: S102  # the only way to write it outside a module's top
    assert {*PUBLIC, "__builtins__"} == set(names)


def test_keyword_only() -> None:
    """What has settings takes them by keyword only, so that new ones can go anywhere."""
    for function in (msgtap.configure, msgtap.instrument):
        kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
        assert {inspect.Parameter.KEYWORD_ONLY} == kinds
        assert all(parameter.default is None for parameter in inspect.signature(function).parameters.values())


def test_same_settings() -> None:
    """`configure` and `instrument` share their settings; only where telemetry goes differs."""
    configure, instrument = (set(inspect.signature(one).parameters) for one in (msgtap.configure, msgtap.instrument))
    assert {"exporters", "service_name"} == configure - instrument
    assert {"tracer_provider", "meter_provider", "logger_provider"} == instrument - configure


def test_documented() -> None:
    """Every public name says what it is, and every setting is described where it is taken."""
    for name in PUBLIC:
        assert inspect.getdoc(getattr(msgtap, name))
    for function in (msgtap.configure, msgtap.instrument):
        for parameter in inspect.signature(function).parameters:
            assert f"\n    {parameter}: " in (inspect.getdoc(function) or "")


def test_entry_points() -> None:
    """What is registered for others to find can be loaded: adapters, exporters, OpenTelemetry's instrumentor."""
    found = {
        (point.group, point.name): point.load()
        for group in ("msgtap.adapters", "msgtap.exporters", "opentelemetry_instrumentor")
        for point in entry_points(group=group)
        if point.value.startswith(("msgtap.", "msgtap_"))
    }
    assert {
        ("msgtap.adapters", "httpx"),
        ("msgtap.adapters", "httpx2"),
        ("msgtap.exporters", "console"),
        ("msgtap.exporters", "otlp"),
        ("opentelemetry_instrumentor", "msgtap"),
    } <= set(found)
    assert all(map(callable, found.values()))


COST = """
import sys, threading
before = threading.active_count()
import msgtap
msgtap.instrument()
wanted = {"httpx", "httpx2", "anthropic", "aiohttp", "requests", "urllib3", "httpcore", "structlog", "rich", "click",
          "grpc", "opentelemetry.sdk", "msgtap.exporting", "msgtap.adapters.httpx", "msgtap.testing"}
print(sorted(wanted & set(sys.modules)), threading.active_count() - before)
"""


def test_instrument_imports_nothing() -> None:
    """`instrument` imports no HTTP client, no structlog, no OpenTelemetry SDK, and starts no thread."""
    done = subprocess.run([sys.executable, "-c", COST], capture_output=True, text=True, check=False)
    assert ("[] 0\n", "") == (done.stdout, done.stderr)
