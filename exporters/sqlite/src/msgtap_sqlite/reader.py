"""What is in the store: the questions that `msgtap report`, `tail` and `run` ask. Nothing here prints.

Reports by what ``rollups`` knows are made of whole hours from there, and of the calls of the hours at both ends. All
others are made of calls.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from msgtap_sqlite import database
from msgtap_sqlite.calls import TOKEN_CLASSES
from msgtap_sqlite.facts import Call, Dimension, Report, Row, RunSummary, Tokens
from msgtap_sqlite.ingest import Ingester
from msgtap_sqlite.journal import files
from msgtap_sqlite.place import Place, locate
from msgtap_sqlite.rollups import NAMES
from msgtap_sqlite.selection import FILTERS, Selection, select
from msgtap_sqlite.texts import joined
from msgtap_sqlite.totals import Key, Sums, Totals, combined, most_called

__all__ = ["FILTERS", "Call", "Dimension", "Report", "Row", "RunSummary", "Store", "Tokens", "open_reader"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES = ("service", "run", "model", "provider", "client", "session", "user", "error", "ending", "stop_reason")
_CALL = (
    "SELECT id, ended_at, duration_us, first_token_us, status, cost, attempt, trace_id, span_id,"
    f" {', '.join(TOKEN_CLASSES)},"
    f" {', '.join(f'(SELECT value FROM text WHERE text.id = calls.{name})' for name in _NAMES)} FROM calls"
)


class Store:
    """A reader beside whoever writes. A context manager."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.path = place.database
        self._connection = database.open_reader(place.database)

    def report(
        self,
        by: Dimension,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        where: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> Report:
        """Calls that ended from ``since`` on and before ``until``, by ``by``.

        Args:
            by: what a row stands for.
            since: aware, or local time.
            until: the same.
            where: filters by name, see `FILTERS`.
            limit: most rows; the total is of all calls.

        Raises:
            StoreError: a key of ``where`` is none of `FILTERS`.
        """
        selection = select(since=since, until=until, where=where)
        with self._snapshot():
            sums, total = self._totals(by, selection, limit)
            order = (lambda key: -(key or 0)) if by == "hour" else (lambda key: (-sums[key].calls, key or 0))
            ranked = sorted(sums, key=order)[:limit]
            names = {key: _hour(key) for key in ranked} if by == "hour" else self._texts(ranked)
        return Report(rows=tuple(sums[key].row(names[key]) for key in ranked), total=total.row(None))

    def calls_after(self, call_id: int, *, where: Mapping[str, str] | None = None, limit: int = 1000) -> list[Call]:
        """The calls that arrived after ``call_id``, in that order: the next ones for a tail."""
        return self._calls("id > ? ORDER BY id", [call_id], select(where=where), limit)

    def last_calls(self, *, where: Mapping[str, str] | None = None, limit: int = 10) -> list[Call]:
        """The calls that arrived last, in order of arrival: where a tail begins."""
        return self._calls("1 ORDER BY id DESC", [], select(where=where), limit)[::-1]

    def last_id(self) -> int:
        """Of the call that arrived last; 0 in an empty store."""
        (found,) = self._connection.execute("SELECT value FROM meta WHERE name = 'last_call'").fetchone()
        return int(found)

    def slowest(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        where: Mapping[str, str] | None = None,
        limit: int = 10,
    ) -> list[Call]:
        """The calls that took longest."""
        selection = select(since=since, until=until, where=where)
        return self._calls("1 ORDER BY duration_us DESC", [], selection, limit)

    def run_summary(self, run_id: str) -> RunSummary:
        """What one run did; its total has 0 calls where nothing is known of it."""
        where = {"run": run_id}
        by_model = self.report("model", where=where)
        slowest = self.slowest(where=where, limit=1)
        return RunSummary(
            run=run_id,
            total=by_model.total,
            by_model=by_model.rows,
            by_error=tuple(row for row in self.report("error", where=where).rows if row.key is not None),
            slowest=slowest[0] if slowest else None,
        )

    def attributes(self, call_id: int) -> dict[str, Any]:
        """What a call has beyond the fields of `Call`, by attribute name."""
        query = "SELECT text.value, vals FROM call_attributes JOIN text ON text.id = keys WHERE call_attributes.id = ?"
        found = self._connection.execute(query, (call_id,)).fetchone()
        return joined(*found) if found else {}

    def _totals(self, by: str, selection: Selection, limit: int | None = None) -> tuple[dict[Key, Sums], Sums]:
        """The sums by key, of ``limit`` keys at least; and that of all calls."""
        totals = Totals(self._connection)
        if selection.by_hours() and by in ("0", "hour", *NAMES):
            totals.add_hours(by, selection)
            for edge in selection.edges():
                totals.add_calls(by, edge)
            return totals.sums, combined(totals.sums.values())
        only = None if limit is None else most_called(self._connection, by, selection, limit)
        totals.add_calls(by, selection, only)
        if only is None or limit is None or len(only) < limit:
            return totals.sums, combined(totals.sums.values())
        return totals.sums, self._totals("0", selection)[1]

    def _texts(self, keys: Sequence[Key]) -> dict[Key, str | None]:
        ids = ", ".join(str(key) for key in keys if key is not None)
        found = self._connection.execute(f"SELECT id, value FROM text WHERE id IN ({ids})")
        return {None: None, **dict(found)}

    def _calls(self, condition: str, parameters: Sequence[Any], selection: Selection, limit: int) -> list[Call]:
        selected, more = selection.condition()
        query = f"{_CALL} WHERE {selected} AND {condition} LIMIT ?"
        return [_call(row) for row in self._connection.execute(query, [*more, *parameters, limit])]

    @contextmanager
    def _snapshot(self) -> Generator[None]:
        """All of the block's queries see the same state."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")

    def catch_up(self) -> int:
        """Take in what processes left behind that died; how many journals that were. For a tail, now and then."""
        return _catch_up(self._place)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


def open_reader(path: Path | None = None) -> Store:
    """The store at ``path``, else where the environment says. Takes in first what dead processes left behind.

    Raises:
        StoreError: there is none yet, or the file is none of ours or of a later msgtap. Its text is for the user.
    """
    place = Place(path.absolute()) if path else locate(os.environ)
    _catch_up(place)
    return Store(place)


def _catch_up(place: Place) -> int:
    found = files(place.journals)
    if not found and not place.database.exists():
        return 0
    ingester = Ingester(place)
    try:
        ingester.connection()  # which brings an old schema up to date
        for path in found:
            while ingester.take_orphan(path):
                pass
    except (sqlite3.Error, OSError):
        pass  # full, or not ours to write: what is there can be read all the same
    finally:
        ingester.close()
    return sum(not path.exists() for path in found)


def _call(row: Sequence[Any]) -> Call:
    number, ended_at, duration, first_token, status, cost, attempt, trace_id, span_id, *rest = row
    tokens, names = rest[: len(TOKEN_CLASSES)], rest[len(TOKEN_CLASSES) :]
    return Call(
        id=number,
        ended_at=_EPOCH + timedelta(milliseconds=ended_at),
        duration=duration / 1e6,
        first_token=None if first_token is None else first_token / 1e6,
        status=status,
        cost=cost,
        attempt=attempt,
        trace_id=trace_id.hex() if trace_id else None,
        span_id=span_id.hex() if span_id else None,
        tokens=Tokens(**dict(zip(TOKEN_CLASSES, tokens, strict=True))),
        **dict(zip(_NAMES, names, strict=True)),
    )


def _hour(hour: Key) -> str:
    return f"{_EPOCH + timedelta(hours=hour or 0):%Y-%m-%dT%H:%MZ}"
