"""What the SDK hands over, as entries of a journal: pure functions from its objects to a line of JSON each, and back.

An entry is an array, without names for its fields. Its resource is JSON inside it, encoded once for each resource.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec
from msgspec import Raw, Struct

from msgtap import shield

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric, MetricsData
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

ENTRY_LIMIT = 1024 * 1024
"""Most bytes of an entry; a longer one, a log record with a file in it say, is left out and counted."""


class Log(Struct, array_like=True, tag="l", frozen=True):
    """A log record; ``time`` in nanoseconds since the epoch, ids in hexadecimal digits."""

    resource: Raw
    scope: str
    time: int
    trace_id: str | None
    span_id: str | None
    severity: int
    event: str | None
    body: Any
    attributes: dict[str, Any]


class Span(Struct, array_like=True, tag="s", frozen=True):
    """A span that ended; ``events`` and ``links`` as they are, for whoever shows them."""

    resource: Raw
    scope: str
    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: int
    started_at: int
    ended_at: int
    status: int
    attributes: dict[str, Any]
    events: list[Any] = []
    links: list[Any] = []


class Point(Struct, array_like=True, tag="p", frozen=True):
    """A series of a metric as it stands. A histogram has ``count``, ``buckets`` and ``bounds``, a sum its ``value``."""

    resource: Raw
    scope: str
    metric: str
    unit: str
    kind: str
    attributes: dict[str, Any]
    started_at: int
    time: int
    value: float
    count: int | None = None
    buckets: list[int] = []
    bounds: list[float] = []


Entry: TypeAlias = Log | Span | Point

_encoder = msgspec.json.Encoder(enc_hook=str)
_decoder = msgspec.json.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """An entry as a line."""
    try:
        return _encoder.encode(entry) + b"\n"
    except UnicodeEncodeError:  # half a character
        return _encoder.encode(_writable(msgspec.to_builtins(entry, builtin_types=(Raw,)))) + b"\n"


def decode(lines: bytes) -> list[Entry]:
    """The entries of complete lines; lines that are none are left out."""
    try:
        return _decoder.decode_lines(lines)
    except msgspec.MsgspecError:
        return [entry for line in lines.split(b"\n") if (entry := _decoded(line)) is not None]


def _decoded(line: bytes) -> Entry | None:
    try:
        return cast("Entry", _decoder.decode(line))
    except msgspec.MsgspecError:
        if line:
            shield.count("store_unreadable_line")
        return None


def _writable(value: Any) -> Any:
    """``value`` with a question mark for each half of a character."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_writable(key): _writable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(item) for item in value]
    return value


class Reader:
    """Reads the SDK's objects; remembers the resource it saw last, which is nearly always the only one."""

    def __init__(self) -> None:
        self._last: tuple[Resource | None, Raw] = (None, Raw(b"{}"))

    def log(self, data: Any) -> Log:
        """A log record with its resource and scope, of whichever class this version of the SDK has for it."""
        record = data.log_record
        return Log(
            self._read_resource(getattr(data, "resource", None) or record.resource),
            data.instrumentation_scope.name if data.instrumentation_scope else "",
            record.timestamp or record.observed_timestamp or 0,
            f"{record.trace_id:032x}" if record.trace_id else None,
            f"{record.span_id:016x}" if record.span_id else None,
            record.severity_number.value if record.severity_number else 0,
            getattr(record, "event_name", None),
            record.body,
            _plain(record.attributes),
        )

    def span(self, span: ReadableSpan) -> Span:
        """A span that ended."""
        context, scope = span.context, span.instrumentation_scope
        assert context is not None  # noqa: S101  # a span that ended has one
        return Span(
            self._read_resource(span.resource),
            scope.name if scope else "",
            f"{context.trace_id:032x}",
            f"{context.span_id:016x}",
            f"{span.parent.span_id:016x}" if span.parent else None,
            span.name,
            span.kind.value,
            span.start_time or 0,
            span.end_time or 0,
            span.status.status_code.value,
            _plain(span.attributes),
            [[event.name, event.timestamp, _plain(event.attributes)] for event in span.events],
            [[f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}"] for link in span.links],
        )

    def points(self, data: MetricsData) -> Iterator[Point]:
        """The series of a batch of metrics."""
        for of_resource in data.resource_metrics:
            resource = self._read_resource(of_resource.resource)
            for of_scope in of_resource.scope_metrics:
                for metric in of_scope.metrics:
                    yield from _points(resource, of_scope.scope.name, metric)

    def _read_resource(self, resource: Resource) -> Raw:
        seen, encoded = self._last
        if resource is not seen:
            encoded = Raw(_encoder.encode(_writable(dict(resource.attributes))))
            self._last = (resource, encoded)
        return encoded


def _plain(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """The attributes as a dict: the SDK's own mapping copies itself much faster than it is iterated over."""
    copy = getattr(attributes, "copy", None)
    return copy() if copy else dict(attributes or {})


def _points(resource: Raw, scope: str, metric: Metric) -> Iterable[Point]:
    kind = type(metric.data).__name__.lower()
    for point in metric.data.data_points:
        facts: Any = point
        counted = hasattr(facts, "count")
        yield Point(
            resource,
            scope,
            metric.name,
            metric.unit or "",
            kind,
            _plain(facts.attributes),
            facts.start_time_unix_nano or 0,
            facts.time_unix_nano,
            facts.sum if counted else facts.value,
            facts.count if counted else None,
            list(getattr(facts, "bucket_counts", ())),
            list(getattr(facts, "explicit_bounds", ())),
        )
