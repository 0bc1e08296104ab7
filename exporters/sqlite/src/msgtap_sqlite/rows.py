"""Entries as rows: inside a transaction that is open, and with no word on when that begins or ends."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

from msgtap import semconv
from msgtap_sqlite import latency, rollups
from msgtap_sqlite.calls import TOKEN_CLASSES, Call, is_call, read_call
from msgtap_sqlite.entries import Entry, Log, Point, Span
from msgtap_sqlite.texts import Texts

Ids: TypeAlias = tuple[str, str]
"""A trace's and a span's, in hexadecimal digits."""

_CALL = (
    "id, ended_at, duration_us, first_token_us, duration_bucket, first_token_bucket, trace_id, span_id, status,"
    " attempt, resource, service, run, model, request_model, provider, client, error, ending, stop_reason, session,"
    f" user, {', '.join(TOKEN_CLASSES)}, cost"
)
_SPAN = (
    "trace_id, span_id, parent_id, name, kind, started_at, ended_at, status, resource, scope, keys, vals, more, call"
)
_REPLACED = "parent_id, name, kind, status, resource, scope, keys, vals, more, call"
_LOG = "time, trace_id, span_id, severity, event, body, resource, scope, keys, vals"
_POINT = "hour, metric, attributes, resource, started_at, scope, unit, kind, time, value, count, buckets, bounds"

NS_PER_HOUR = 3_600_000_000_000


def _insert(table: str, columns: str, verb: str = "INSERT") -> str:
    places = ", ".join("?" for _ in columns.split(", "))
    return f"{verb} INTO {table} ({columns}) VALUES ({places})"


_INSERT_CALL = _insert("calls", _CALL)
_INSERT_ATTRIBUTES = _insert("call_attributes", "id, keys, vals")
_INSERT_LOG = _insert("logs", _LOG)
_INSERT_POINT = _insert("points", _POINT, "INSERT OR REPLACE")
# A span comes before its call, with it or after it; and more than once where its id derives from its name.
_UPSERT_SPAN = f"""
{_insert("spans", _SPAN)} ON CONFLICT (trace_id, span_id) DO UPDATE SET
started_at = min(coalesce(started_at, excluded.started_at), coalesce(excluded.started_at, started_at)),
ended_at = max(coalesce(ended_at, excluded.ended_at), coalesce(excluded.ended_at, ended_at)),
{", ".join(f"{name} = coalesce(excluded.{name}, {name})" for name in _REPLACED.split(", "))}
"""


class _Resource(Struct, frozen=True):
    text: str
    service: str | None
    run: str | None


class Rows:
    """Writes entries to the tables."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._resources: dict[bytes, _Resource] = {}
        self.texts = Texts(connection)

    def insert(self, entries: Sequence[Entry]) -> None:
        """All of ``entries``, each to where it belongs."""
        logs = [entry for entry in entries if isinstance(entry, Log)]
        calls = [(entry, read_call(entry)) for entry in logs if is_call(entry)]
        linked = self._insert_calls(calls) if calls else {}
        self._insert_spans([entry for entry in entries if isinstance(entry, Span)], linked)
        self._insert_logs([entry for entry in logs if not is_call(entry)])
        self._insert_points([entry for entry in entries if isinstance(entry, Point)])

    def _insert_calls(self, calls: Sequence[tuple[Log, Call]]) -> dict[Ids, tuple[int, Log]]:
        """The ids of the calls that have a span, by the ids of that."""
        execute, split = self._connection.execute, self.texts.split
        (first,) = execute("SELECT value + 1 FROM meta WHERE name = 'last_call'").fetchone()
        numbered = list(enumerate(calls, first))
        of = [(self._resource(entry.resource), call) for entry, call in calls]
        self._connection.executemany(_INSERT_CALL, [self._call(number, *pair) for number, pair in enumerate(of, first)])
        self._connection.executemany(
            _INSERT_ATTRIBUTES, [(number, *split(call.rest)) for number, (_, call) in numbered]
        )
        execute("UPDATE meta SET value = ? WHERE name = 'last_call'", (first + len(calls) - 1,))
        rollups.add(self._connection, self.texts, [(resource.service, call) for resource, call in of])
        return {
            (entry.trace_id, entry.span_id): (number, entry)
            for number, (entry, _) in numbered
            if entry.trace_id and entry.span_id
        }

    def _call(self, number: int, resource: _Resource, call: Call) -> tuple[Any, ...]:
        known, first = self.texts.known, call.first_token
        return (
            number,
            call.ended_at,
            call.duration,
            first,
            latency.bucket(call.duration),
            None if first is None else latency.bucket(first),
            call.trace_id,
            call.span_id,
            call.status,
            call.attempt,
            known(resource.text),
            known(resource.service),
            known(resource.run),
            known(call.model),
            known(call.request_model),
            known(call.provider),
            known(call.client),
            known(call.error),
            known(call.ending),
            known(call.stop_reason),
            known(call.session),
            known(call.user),
            *call.tokens,
            call.cost,
        )

    def _insert_spans(self, spans: Sequence[Span], linked: Mapping[Ids, tuple[int, Log]]) -> None:
        rows = [self._span(span, *linked.get((span.trace_id, span.span_id), (None, None))) for span in spans]
        here = {(span.trace_id, span.span_id) for span in spans}
        nothing = (None,) * _SPAN.count(", ", len("trace_id, span_id, "))
        rows += [
            (bytes.fromhex(trace_id), bytes.fromhex(span_id), *nothing, number)
            for (trace_id, span_id), (number, _) in linked.items()
            if (trace_id, span_id) not in here
        ]
        self._connection.executemany(_UPSERT_SPAN, rows)

    def _span(self, span: Span, number: int | None, log: Log | None) -> tuple[Any, ...]:
        attributes = span.attributes
        if log is not None and span.scope == semconv.SCOPE:
            attributes = _beyond(attributes, log.attributes)
        more = {"events": span.events, "links": span.links}
        return (
            bytes.fromhex(span.trace_id),
            bytes.fromhex(span.span_id),
            bytes.fromhex(span.parent_id) if span.parent_id else None,
            self.texts.code(span.name),
            span.kind,
            span.started_at,
            span.ended_at,
            span.status,
            self.texts.code(self._resource(span.resource).text),
            self.texts.code(span.scope),
            *(self.texts.split(attributes) if attributes else (None, None)),
            _json(more) if span.events or span.links else None,
            number,
        )

    def _insert_logs(self, logs: Sequence[Log]) -> None:
        code, known = self.texts.code, self.texts.known
        self._connection.executemany(
            _INSERT_LOG,
            [
                (
                    log.time,
                    bytes.fromhex(log.trace_id) if log.trace_id else None,
                    bytes.fromhex(log.span_id) if log.span_id else None,
                    log.severity,
                    known(log.event),
                    None if log.body is None else _json(log.body),
                    code(self._resource(log.resource).text),
                    code(log.scope),
                    *self.texts.split(log.attributes),
                )
                for log in logs
            ],
        )

    def _insert_points(self, points: Sequence[Point]) -> None:
        code = self.texts.code
        self._connection.executemany(
            _INSERT_POINT,
            [
                (
                    point.time // NS_PER_HOUR,
                    code(point.metric),
                    code(_json(point.attributes)),
                    code(self._resource(point.resource).text),
                    point.started_at,
                    code(point.scope),
                    code(point.unit),
                    code(point.kind),
                    point.time,
                    point.value,
                    point.count,
                    _json(point.buckets) if point.buckets else None,
                    code(_json(point.bounds)) if point.bounds else None,
                )
                for point in points
            ],
        )

    def _resource(self, raw: Raw) -> _Resource:
        encoded = bytes(raw)
        found = self._resources.get(encoded)
        if found is None:
            facts = msgspec.json.decode(encoded)
            names = (facts.get("service.name"), facts.get("msgtap.run.id"))
            found = self._resources[encoded] = _Resource(
                encoded.decode(), *[name if isinstance(name, str) else None for name in names]
            )
        return found


def _beyond(attributes: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    if attributes == told:  # nearly always
        return {}
    return {name: value for name, value in attributes.items() if name not in told or told[name] != value}


def _json(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
