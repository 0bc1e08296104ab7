"""What is too old or too much goes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import pytest
from msgspec import Raw

from msgtap_sqlite import database, retention
from msgtap_sqlite.entries import Entry, Log, Point, Span
from msgtap_sqlite.place import Place
from msgtap_sqlite.retention import MS_PER_DAY, Limits

Make = Callable[..., list[Entry]]
Fill = Callable[[Iterable[Entry]], None]

NOW = 1_764_000_000_000
OLD = -40 * MS_PER_DAY
TABLES = ("calls", "call_attributes", "spans", "logs", "points", "rollups", "text")


@pytest.fixture
def connection(place: Place) -> Iterator[sqlite3.Connection]:
    """A connection that writes."""
    with closing(database.open_writer(place, wait=5)) as made:
        yield made


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """How many rows each table has."""
    return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}


def sweep(connection: sqlite3.Connection, limits: Limits, now: int = NOW) -> int:
    """Sweep to the end; in how many steps."""
    steps = 1
    while retention.sweep(connection, limits, now):
        steps += 1
    return steps


def others(at: int) -> list[Entry]:
    """A span without a call, a log record and a point, so many milliseconds from now."""
    time = (NOW + at) * 1_000_000
    return [
        Span(Raw(b"{}"), "app", f"{-at:032x}", "0b" * 8, None, f"span {at}", 1, time, time, 0, {}),
        Log(Raw(b"{}"), "app", time, None, None, 9, None, f"log {at}", {}),
        Point(Raw(b"{}"), "app", f"metric {at}", "", "sum", {}, time, time, 1),
    ]


def test_age(make: Make, fill: Fill, connection: sqlite3.Connection) -> None:
    """What is older than the limit goes, with its texts; the sums of its hours stay."""
    fill([*make(at=OLD, session_id="old"), *others(OLD), *make(session_id="new"), *others(-1)])
    sweep(connection, Limits(days=30))
    expected = {"calls": 1, "call_attributes": 1, "spans": 2, "logs": 1, "points": 1, "rollups": 2}
    assert expected == {name: number for name, number in counts(connection).items() if name in expected}
    texts = {value for (value,) in connection.execute("SELECT value FROM text")}
    assert {"new", "span -1", "metric -1"} <= texts
    assert not {"old", f"span {OLD}", f"metric {OLD}"} & texts


def test_young_enough(make: Make, fill: Fill, connection: sqlite3.Connection) -> None:
    """What is younger than the limit stays as it is."""
    fill([*make(at=OLD), *others(OLD)])
    before = counts(connection)
    assert 1 == sweep(connection, Limits(days=41))
    assert before == counts(connection)


def test_hourly_sums(make: Make, fill: Fill, connection: sqlite3.Connection) -> None:
    """The sums of an hour stay twelve times as long as its calls."""
    fill(make(at=OLD))
    sweep(connection, Limits(days=40 / 12 + 0.1))
    assert (0, 1) == (counts(connection)["calls"], counts(connection)["rollups"])
    sweep(connection, Limits(days=40 / 12 - 0.1))
    assert 0 == counts(connection)["rollups"]


def test_size(make: Make, fill: Fill, connection: sqlite3.Connection, place: Place) -> None:
    """Where there is too much, the oldest goes, until there is not, and the file becomes smaller."""
    fill(entry for index in range(3000) for entry in make(at=(index - 3000) * 60_000, session_id=f"s-{index}"))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = place.database.stat().st_size
    limit = before // 2
    sweep(connection, Limits(days=30, bytes=limit))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert place.database.stat().st_size <= limit
    ((number, oldest, latest),) = connection.execute("SELECT count(*), min(id), max(id) FROM calls")
    assert 500 < number < 2500
    assert (3001 - number, 3000) == (oldest, latest)
    assert number == counts(connection)["call_attributes"] == counts(connection)["spans"]


def test_one_entry_too_much(make: Make, fill: Fill, connection: sqlite3.Connection) -> None:
    """A limit that is smaller than an empty store empties it, and comes to an end."""
    fill([*make(), *others(-1)])
    sweep(connection, Limits(bytes=1), now=NOW + MS_PER_DAY)
    found = counts(connection)
    assert [0, 0, 0, 0] == [found[table] for table in ("calls", "spans", "logs", "points")]


def test_small_steps(make: Make, fill: Fill, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Much is deleted in several transactions, so that nobody waits long."""
    monkeypatch.setattr(retention, "_ROWS", 10)
    fill(entry for _ in range(35) for entry in make(at=OLD))
    assert 5 == sweep(connection, Limits(days=30))
    assert 0 == counts(connection)["calls"]


def test_late_arrival(make: Make, fill: Fill, connection: sqlite3.Connection) -> None:
    """A call that arrived late goes when it is due, not when its neighbours are."""
    fill([*make(), *make(at=OLD)])
    sweep(connection, Limits(days=30))
    assert [(1,)] == connection.execute("SELECT id FROM calls").fetchall()


def test_once_a_minute(connection: sqlite3.Connection) -> None:
    """Of all processes one sweeps, once a minute; a clock that was set back stops nobody."""
    asked = [NOW, NOW, NOW + 59_000, NOW + 61_000, NOW + 61_001, NOW - 1]
    assert [True, False, False, True, False, True] == [retention.due(connection, now) for now in asked]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Limits(days=30, bytes=1024**3)),
        ({"MSGTAP_STORE_DAYS": "0.5", "MSGTAP_STORE_BYTES": "1e6"}, Limits(days=0.5, bytes=1_000_000)),
        ({"MSGTAP_STORE_DAYS": " ", "MSGTAP_STORE_BYTES": ""}, Limits()),
    ],
)
def test_limits(environ: dict[str, str], expected: Limits) -> None:
    """The limits are set by the environment."""
    assert expected == retention.limits(environ)


@pytest.mark.parametrize("value", ["a month", "0", "-1", "nan", "inf"])
@pytest.mark.parametrize("variable", ["MSGTAP_STORE_DAYS", "MSGTAP_STORE_BYTES"])
def test_limits_that_mean_nothing(variable: str, value: str) -> None:
    """A limit that is no number above zero is an error that names it."""
    with pytest.raises(ValueError, match=f"{variable}='{value}' is no number above zero"):
        retention.limits({variable: value})


def test_erased_ids_are_not_used_again(make: Make, fill: Fill, connection: sqlite3.Connection) -> None:
    """A call's id is never that of another call before it, so that a tail misses none."""
    fill(make(at=OLD))
    sweep(connection, Limits(days=30))
    fill(make())
    found: list[Any] = connection.execute("SELECT id FROM calls").fetchall()
    assert [(2,)] == found
