"""The SDK's objects as lines, and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from msgtap import shield
from msgtap.exporting import Exporter, build
from msgtap.testing.memory import Memory
from msgtap_sqlite.entries import Log, Point, Reader, Span, decode, encode


@pytest.fixture
def memory() -> Memory:
    """What the providers were given."""
    return Memory()


@pytest.fixture
def providers(memory: Memory) -> tuple[TracerProvider, MeterProvider, LoggerProvider]:
    """OpenTelemetry's providers."""
    exporter: Exporter = memory.exporter
    made = build([exporter], "app", {})
    return made.tracer_provider, made.meter_provider, made.logger_provider


Providers = tuple[TracerProvider, MeterProvider, LoggerProvider]


def test_span(memory: Memory, providers: Providers) -> None:
    """A span, with its parent, events and links."""
    tracer = providers[0].get_tracer("scope")
    other = tracer.start_span("other")
    with tracer.start_as_current_span("parent") as parent:
        links = [Link(other.get_span_context())]
        span = tracer.start_span("child", kind=SpanKind.CLIENT, attributes={"a": ("x", "y")}, links=links, start_time=5)
        span.add_event("event", {"b": 1}, timestamp=6)
        span.set_status(Status(StatusCode.ERROR))
        span.end(7)
    (entry,) = decode(encode(Reader().span(memory.spans[0])))
    assert isinstance(entry, Span)
    ids = span.get_span_context()
    expected = {
        "scope": "scope",
        "trace_id": f"{ids.trace_id:032x}",
        "span_id": f"{ids.span_id:016x}",
        "parent_id": f"{parent.get_span_context().span_id:016x}",
        "name": "child",
        "kind": SpanKind.CLIENT.value,
        "started_at": 5,
        "ended_at": 7,
        "status": StatusCode.ERROR.value,
        "attributes": {"a": ["x", "y"]},
        "events": [["event", 6, {"b": 1}]],
        "links": [[f"{other.get_span_context().trace_id:032x}", f"{other.get_span_context().span_id:016x}"]],
    }
    assert expected == {name: getattr(entry, name) for name in expected}
    assert json.loads(bytes(entry.resource))["service.name"] == "app"


def test_log(memory: Memory, providers: Providers) -> None:
    """A log record."""
    providers[2].get_logger("scope").emit(
        LogRecord(timestamp=5, severity_number=SeverityNumber.WARN, body={"k": [1, None]}, attributes={"a": 1})
    )
    (entry,) = decode(encode(Reader().log(memory.logs[0])))
    assert isinstance(entry, Log)
    expected: dict[str, Any] = {
        "scope": "scope",
        "time": 5,
        "trace_id": None,
        "span_id": None,
        "severity": SeverityNumber.WARN.value,
        "event": None,
        "body": {"k": [1, None]},
        "attributes": {"a": 1},
    }
    assert expected == {name: getattr(entry, name) for name in expected}


def test_points(memory: Memory, providers: Providers) -> None:
    """Each series of a metric is an entry: sums, gauges and histograms."""
    meter = providers[1].get_meter("scope")
    meter.create_counter("calls", unit="{call}").add(3, {"a": "x"})
    meter.create_gauge("level").set(0.5)
    meter.create_histogram("size", explicit_bucket_boundaries_advisory=[1, 10]).record(5)
    data = memory.metrics
    assert data is not None
    entries = [decode(encode(point))[0] for point in Reader().points(data)]
    found = {entry.metric: entry for entry in entries if isinstance(entry, Point)}
    shown = {
        name: (point.kind, point.unit, point.value, point.count, point.buckets, point.bounds, point.attributes)
        for name, point in found.items()
    }
    assert {
        "calls": ("sum", "{call}", 3, None, [], [], {"a": "x"}),
        "level": ("gauge", "", 0.5, None, [], [], {}),
        "size": ("histogram", "", 5, 1, [0, 1, 0], [1, 10], {}),
    } == shown


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("half \ud800 a character", "half ? a character"),
        (2**70, 2**70),
        (float("nan"), None),
        (b"\x00\xff", "AP8="),
        (["\udfff", {"\udfff": 1}], ["?", {"?": 1}]),
        (object, str(object)),
    ],
)
def test_odd_values(value: object, expected: object) -> None:
    """No value of an attribute costs the entry."""
    log = Log(Raw(b"{}"), "", 1, None, None, 9, None, None, {"odd": value, "even": 2})
    (entry,) = decode(encode(log))
    assert isinstance(entry, Log)
    assert {"odd": expected, "even": 2} == entry.attributes


def test_resources() -> None:
    """A resource is written once, and another one is noticed."""
    reader = Reader()
    one, other = Resource({"service.name": "one"}), Resource({"service.name": "other"})
    assert reader._read_resource(one) is reader._read_resource(one)
    assert [b'{"service.name":"other"}', b'{"service.name":"one"}'] == [
        bytes(reader._read_resource(resource)) for resource in (other, one)
    ]


@pytest.mark.parametrize("bad", [b"{", b"[1]", b'["x",{}]', b"\xff\x00", b'["l",{},"torn'])
def test_unreadable_lines(bad: bytes) -> None:
    """A line that is no entry is left out and counted; blank ones are not even that."""
    log = Log(Raw(b"{}"), "", 1, None, None, 9, None, None, {})
    before = shield.counts().get("store_unreadable_line", 0)
    entries = decode(encode(log) + bad + b"\n\n" + encode(log))
    assert [1, 1] == [entry.time for entry in entries if isinstance(entry, Log)]
    assert before + 1 == shield.counts()["store_unreadable_line"]
