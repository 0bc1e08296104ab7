"""Erasing what is known of one user or one session, down to the bytes in the files.

Hourly sums stay: they name nobody.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from msgtap import semconv
from msgtap_sqlite import database
from msgtap_sqlite.ingest import Ingester
from msgtap_sqlite.journal import files
from msgtap_sqlite.place import Place, StoreError, locate
from msgtap_sqlite.retention import collect, delete_calls
from msgtap_sqlite.texts import joined

WAIT: Final = 15.0
"""Seconds to wait for the journals of processes that are running: longer than each of their files lives."""

Ids: TypeAlias = tuple[bytes | None, bytes | None]

_NAMES = {"user": (semconv.USER_ID,), "session": (semconv.SESSION_ID, semconv.CONVERSATION_ID)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What was erased.

    Attributes:
        journals: files of processes that are running and have not been taken in; they may still name the id.
        compacted: whether the bytes are gone from the database's files too. Otherwise the disk was too full for that,
            or somebody was reading all the time.
    """

    calls: int
    spans: int
    logs: int
    journals: tuple[Path, ...]
    compacted: bool


def erase(
    *, user: str | None = None, session: str | None = None, path: Path | None = None, wait: float = WAIT
) -> Erased:
    """Erase the calls of a user or of a session, with their attributes, spans and log records.

    Args:
        user: the id as the store has it; hashed where it was hashed.
        session: the same. One of the two is needed.
        path: the store's file; default: where the environment says.
        wait: seconds to wait for the processes that are running, those that write and those that read.

    Raises:
        StoreError: there is no store, or it is none of ours, or it cannot be written.
    """
    if (user is None) == (session is None):
        raise StoreError("say whose calls to erase: of one user, or of one session")
    kind, value = ("user", user) if user is not None else ("session", session)
    place = Place(path.absolute()) if path else locate(os.environ)
    if not place.database.exists():
        raise StoreError(f"nothing has been recorded yet: there is no {place.database}")
    try:
        left = _take_in(place, wait)
        with closing(database.open_writer(place, wait=30.0)) as connection:
            calls, spans, logs = _erase(connection, kind, str(value))
            compacted = _compact(connection, wait)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"cannot write {place.database}: {error}") from error
    return Erased(calls=calls, spans=spans, logs=logs, journals=left, compacted=compacted)


def _take_in(place: Place, wait: float) -> tuple[Path, ...]:
    """Take in the journals that there are now, or wait until their processes have: those that are left."""
    left, until = files(place.journals), time.monotonic() + wait
    ingester = Ingester(place)
    try:
        while True:
            for path in left:
                while ingester.take_orphan(path):
                    pass
            left = [path for path in left if path.exists()]
            if not left or time.monotonic() > until:
                return tuple(left)
            time.sleep(0.1)
    finally:
        ingester.close()


def _erase(connection: sqlite3.Connection, kind: str, value: str) -> tuple[int, int, int]:
    with database.transaction(connection):
        calls = connection.execute(
            f"SELECT id, trace_id, span_id FROM calls WHERE {kind} = (SELECT id FROM text WHERE value = ?)",
            (value,),
        ).fetchall()
        ids = {(trace_id, span_id) for _, trace_id, span_id in calls if span_id}
        spans = {*_linked_spans(connection, ids), *_naming(connection, "spans", kind, value)}
        logs = {*_linked_logs(connection, ids), *_naming(connection, "logs", kind, value)}
        delete_calls(connection, calls)
        for table, numbers in (("spans", spans), ("logs", logs)):
            connection.executemany(f"DELETE FROM {table} WHERE id = ?", [(number,) for number in numbers])
        collect(connection)
    return len(calls), len(spans), len(logs)


def _linked_spans(connection: sqlite3.Connection, ids: Collection[Ids]) -> Iterator[int]:
    """The spans of calls, and those right below, which are a call's attempts."""
    for trace_id, span_id in ids:
        query = "SELECT id FROM spans WHERE trace_id = ? AND (span_id = ? OR parent_id = ?)"
        yield from (number for (number,) in connection.execute(query, (trace_id, span_id, span_id)))


def _linked_logs(connection: sqlite3.Connection, ids: Collection[Ids]) -> Iterator[int]:
    for number, *of in connection.execute("SELECT id, trace_id, span_id FROM logs WHERE span_id IS NOT NULL"):
        if tuple(of) in ids:
            yield number


def _naming(connection: sqlite3.Connection, table: str, kind: str, value: str) -> Iterator[int]:
    """The rows of a table whose attributes name the id."""
    written = msgspec.json.encode(value).decode()
    query = f"SELECT {table}.id, text.value, vals FROM {table} JOIN text ON text.id = {table}.keys WHERE instr(vals, ?)"
    for number, keys, values in connection.execute(query, (written,)):
        attributes = joined(keys, values)
        if any(attributes.get(name) == value for name in _NAMES[kind]):
            yield number


def _compact(connection: sqlite3.Connection, wait: float) -> bool:
    """Write the file anew: pages keep shreds of what they once held, though deleted rows are overwritten."""
    connection.execute(f"PRAGMA busy_timeout = {int(wait * 1000)}")
    try:
        connection.execute("VACUUM")
    except sqlite3.OperationalError:
        connection.execute("PRAGMA incremental_vacuum").fetchall()
        return False
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy
