"""A pytest plugin that instruments msgtap, as a program would, with real providers of the OpenTelemetry SDK.

The modes: ``default`` is msgtap as it comes; ``nest`` and ``ignore`` are that with the setting ``existing_span``. In
``every`` each request that a client sends counts as a Messages call, so that a suite that knows no Messages endpoint
goes through all of the code that follows one; other instrumentations' spans are ignored there. ``failing`` is the same
with an observer and a processor beside our own that fail wherever they are asked. ``unshielded`` is the same again
without the shield: it does harm, so that one can see that harm is seen.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest
from opentelemetry.sdk._logs import LoggerProvider, export
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import msgtap
from msgtap import CallRecord, shield, tap
from msgtap.telemetry.spans import ExistingSpan

FOLDER = "DO_NO_HARM_FOLDER"
MODE = "DO_NO_HARM_MODE"

# Renamed in 1.39 of the SDK.
_InMemoryLogs: Any = vars(export).get("InMemoryLogRecordExporter") or vars(export)["InMemoryLogExporter"]


_EVERY = frozenset({"every", "failing", "unshielded"})
_FAIL = frozenset({"failing", "unshielded"})
# What is no Messages call has nothing to add to another instrumentation's span.
_POLICIES: Mapping[str, ExistingSpan] = {"default": "enrich", "nest": "nest"}


class Instrumented:
    """What msgtap makes of the suite's calls in this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._endings: Counter[str] = Counter()
        self._failures: dict[str, int] = {}
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self._logs = _InMemoryLogs()

    def start(self, mode: str) -> None:
        """Instrument, as ``mode`` says."""
        every, fail = mode in _EVERY, mode in _FAIL
        if every:
            # Before any adapter is loaded, which takes them by their names. A request's method is not a setting.
            vars(tap).update(wanted=_anything, candidate=_anything)
        tracers, loggers = TracerProvider(), LoggerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        loggers.add_log_record_processor(export.SimpleLogRecordProcessor(self._logs))
        msgtap.instrument(
            tracer_provider=tracers,
            meter_provider=MeterProvider([self._metrics]),
            logger_provider=loggers,
            processors=[self._count, *([_fail] if fail else [])],
            endpoints=[msgtap.Endpoint(path="*")] if every else [],
            existing_span=_POLICIES.get(mode, "ignore"),
        )
        force = tap.watcher()
        if fail and force is not None:
            tap.activate(msgspec.structs.replace(force, observers=(_Failing(), *force.observers)))
        if mode == "unshielded":
            _unshield()

    def _count(self, record: CallRecord) -> CallRecord:
        self._endings[record.ending.value] += 1
        return record

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Note in which test msgtap failed."""
        before = _failures()
        result = yield
        if _failures() > before:
            self._failures[item.nodeid] = _failures() - before
        return result

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write a file of this process's own: under pytest-xdist there are several."""
        del session
        msgtap.flush()
        document = {
            "endings": self._endings,
            "spans": len(self._spans.get_finished_spans()),
            "durations": self._durations(),
            "logs": len(self._logs.get_finished_logs()),
            "open": len(vars(tap)["_open"]),
            "shield": shield.counts(),
            "failures": self._failures,
        }
        (self._folder / f"msgtap-{os.getpid()}.json").write_text(json.dumps(document), encoding="utf-8")

    def _durations(self) -> int:
        """How many calls the duration's histogram holds."""
        data = self._metrics.get_metrics_data()
        return sum(
            point.count
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "gen_ai.client.operation.duration"
            for point in metric.data.data_points
            if isinstance(point, HistogramDataPoint)
        )


def _failures() -> int:
    return shield.counts().get("internal_error", 0)


def _anything(_: object) -> bool:
    return tap.watcher() is not None


def _unshield() -> None:
    """Let failures out of the tap."""
    vars(tap)["attempt"] = _call
    for name, method in list(vars(tap.Tap).items()):
        if hasattr(method, "__wrapped__"):
            setattr(tap.Tap, name, method.__wrapped__)


def _call(function: Callable[..., object], *arguments: object) -> object:
    return function(*arguments)


def _fail(*_: object) -> NoReturn:
    raise RuntimeError("made to fail")


class _Failing:
    """An observer, and its own observation of every call, whose every method fails."""

    sending = sent = progress = finish = staticmethod(_fail)

    def begin(self, _: object) -> _Failing:
        return self


def pytest_configure(config: pytest.Config) -> None:
    """Instrument before the first test is collected."""
    instrumented = Instrumented(Path(os.environ[FOLDER]))
    instrumented.start(os.environ[MODE])
    config.pluginmanager.register(instrumented)
