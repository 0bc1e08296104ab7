"""What is too old or too much goes, the oldest first, a few thousand rows at a time; hourly sums stay longer."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from msgtap_sqlite import database, schema
from msgtap_sqlite.rollups import MS_PER_HOUR

MS_PER_DAY: Final = 24 * MS_PER_HOUR
SWEEP_MS: Final = 60_000
"""Between two sweeps of a store, whichever processes do them."""
ROLLUP_AGES: Final = 12

_ROWS = 2000
_PAGES = 1000
_FULL = 0.9
"""The part of the size that may be in use: a tenth is for pages that are free, and not worth giving back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long and how much is kept."""

    days: float = 30.0
    bytes: int = 1024**3


def limits(environ: Mapping[str, str]) -> Limits:
    """The limits that the environment sets.

    Raises:
        ValueError: a value is no number above zero.
    """
    found = Limits()
    days = _number(environ, "MSGTAP_STORE_DAYS", found.days)
    size = _number(environ, "MSGTAP_STORE_BYTES", found.bytes)
    return Limits(days=days, bytes=int(size))


def _number(environ: Mapping[str, str], variable: str, default: float) -> float:
    text = environ.get(variable, "").strip()
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"{variable}={text!r} is no number above zero")
    return number


def due(connection: sqlite3.Connection, now: int) -> bool:
    """Whether nobody has swept this store within the last minute; if so, the caller is the one who does.

    Args:
        connection: one that writes.
        now: milliseconds since the epoch.
    """
    claim = "UPDATE meta SET value = ? WHERE name = 'swept_at' AND value NOT BETWEEN ? AND ?"
    return connection.execute(claim, (now, now - SWEEP_MS, now)).rowcount > 0


def sweep(connection: sqlite3.Connection, kept: Limits, now: int) -> bool:
    """One step of a sweep, in one transaction: whether there is more to do.

    Args:
        connection: one that writes.
        kept: what may stay.
        now: milliseconds since the epoch.
    """
    if _delete_before(connection, now - int(kept.days * MS_PER_DAY)):
        return True
    if database.used_bytes(connection) > _FULL * kept.bytes and _delete_before(connection, _early(connection, now)):
        return True
    with database.transaction(connection):
        oldest = (now - int(ROLLUP_AGES * kept.days * MS_PER_DAY)) // MS_PER_HOUR
        connection.execute("DELETE FROM rollups WHERE hour < ?", (oldest,))
        _collect_daily(connection, now)
    return _give_back(connection)


def _early(connection: sqlite3.Connection, now: int) -> int:
    """A time by which a twentieth, or so, of all that is stored had ended."""
    found = connection.execute(
        "SELECT min(ended_at) FROM calls"
        " UNION ALL SELECT ended_at / 1000000 FROM (SELECT ended_at FROM spans ORDER BY id LIMIT 1)"
        " UNION ALL SELECT time / 1000000 FROM (SELECT time FROM logs ORDER BY id LIMIT 1)"
    )
    oldest = min((time for (time,) in found if time is not None), default=now)
    return oldest + max(0, now - oldest) // 20 + 1


def _delete_before(connection: sqlite3.Connection, time: int) -> int:
    """Delete some of what ended before ``time``, in milliseconds: how many rows."""
    calls = connection.execute(
        "SELECT id, trace_id, span_id FROM calls WHERE ended_at < ? ORDER BY ended_at LIMIT ?", (time, _ROWS)
    ).fetchall()
    with database.transaction(connection):
        delete_calls(connection, calls)
        deleted = len(calls)
        # Rows arrive nearly in the order of time, so that neither table needs an index for this.
        for table, column in (("spans", "ended_at"), ("logs", "time")):
            deleted += connection.execute(
                f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} ORDER BY id LIMIT ?) AND {column} < ?",
                (_ROWS, time * 1_000_000),
            ).rowcount
        deleted += connection.execute("DELETE FROM points WHERE hour < ?", (time // MS_PER_HOUR,)).rowcount
        connection.execute("UPDATE meta SET value = value + ? WHERE name = 'deleted'", (deleted,))
    return deleted


def delete_calls(connection: sqlite3.Connection, calls: list[tuple[int, bytes | None, bytes | None]]) -> None:
    """Delete calls, given as their ids and those of trace and span, with their attributes and spans."""
    ids = [(number,) for number, _, _ in calls]
    connection.executemany("DELETE FROM calls WHERE id = ?", ids)
    connection.executemany("DELETE FROM call_attributes WHERE id = ?", ids)
    connection.executemany(
        "DELETE FROM spans WHERE trace_id = ? AND span_id = ?", [(trace, span) for _, trace, span in calls]
    )


def _collect_daily(connection: sqlite3.Connection, now: int) -> None:
    """Collect texts, where there may be any to collect: among a million calls it takes seconds."""
    claim = (
        "UPDATE meta SET value = ? WHERE name = 'collected_at' AND value NOT BETWEEN ? AND ?"
        " AND (SELECT value FROM meta WHERE name = 'deleted')"
    )
    if connection.execute(claim, (now, now - MS_PER_DAY, now)).rowcount:
        collect(connection)


def collect(connection: sqlite3.Connection) -> None:
    """Delete the texts that nothing refers to any more; inside a transaction."""
    connection.execute("UPDATE meta SET value = 0 WHERE name = 'deleted'")
    used = {0}
    for table, columns in schema.REFERENCES.items():
        for column in columns.split(", "):
            used.update(number for (number,) in connection.execute(f"SELECT DISTINCT {column} FROM {table}"))
    unused = [(number,) for (number,) in connection.execute("SELECT id FROM text") if number not in used]
    if unused:
        connection.executemany("DELETE FROM text WHERE id = ?", unused)
        connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'epoch'")


def _give_back(connection: sqlite3.Connection) -> bool:
    """Give pages back to the file system where many are free: whether there are more such."""
    if not database.mostly_used(connection, _FULL):
        connection.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()
        return not database.mostly_used(connection, _FULL)
    return False
