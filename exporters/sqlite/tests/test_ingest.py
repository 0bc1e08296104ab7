"""Journals into the database, exactly once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from msgtap import shield
from msgtap_sqlite import database, ingest
from msgtap_sqlite import journal as journals
from msgtap_sqlite.entries import Entry, Log, Point, Span, encode
from msgtap_sqlite.ingest import Ingester
from msgtap_sqlite.journal import Journal, Segment, files
from msgtap_sqlite.place import Place

Make = Callable[..., list[Entry]]
Fill = Callable[[list[Entry]], None]
Rows = Callable[[str], list[Any]]


@pytest.fixture
def ingester(place: Place) -> Iterator[Ingester]:
    """Takes in."""
    made = Ingester(place)
    yield made
    made.close()


@pytest.fixture
def rows(place: Place) -> Rows:
    """What a query finds."""

    def found(query: str) -> list[Any]:
        with closing(sqlite3.connect(place.database)) as connection:
            return connection.execute(query).fetchall()

    return found


def written(place: Place, *entries: Entry) -> Segment:
    """A segment of a journal with ``entries``."""
    journal = Journal(place.journals)
    for entry in entries:
        journal.append(encode(entry))
    ((segment, _),) = journal.segments()
    return segment


def test_piece_by_piece(
    place: Place, make: Make, ingester: Ingester, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each piece is taken in once, with the mark of where it ends, whoever goes on from there."""
    monkeypatch.setattr(journals, "PIECE_BYTES", 1500)
    segment = written(place, *make(), *make(), *make())
    assert ingester.take(segment)
    assert [(segment.name, segment.taken)] == rows("SELECT * FROM journal")
    segment.taken = 0  # another process knows nothing of it but the mark
    while ingester.take(segment):
        pass
    assert [(3,)] == rows("SELECT count(*) FROM calls")
    assert [(3, 3)] == rows("SELECT count(name), count(call) FROM spans")
    assert segment.size == segment.taken
    assert not ingester.take(segment)


def test_rolled_back(place: Place, make: Make, ingester: Ingester, rows: Rows) -> None:
    """What fails is undone wholly, and done wholly the next time."""
    segment = written(place, *make(session_id="s"))
    with closing(database.open_writer(place, wait=1)) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON rollups BEGIN SELECT 1 / raise(FAIL, 'disk is full'); END")
        with pytest.raises(sqlite3.IntegrityError, match="disk is full"), database.transaction(other):
            other.execute("INSERT INTO rollups VALUES (0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,'','')")
        assert [(0,)] == rows("SELECT count(*) FROM calls")
        other.execute("DROP TRIGGER full")
    assert ingester.take(segment)
    assert [(1, 1)] == rows("SELECT (SELECT count(*) FROM calls), (SELECT sum(calls) FROM rollups)")


def test_locked(place: Place, make: Make, ingester: Ingester, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody else writes, nothing is taken in; afterwards all is."""
    monkeypatch.setattr(ingest, "WAIT", 0.01)
    segment = written(place, *make())
    with closing(database.open_writer(place, wait=1)) as other:
        with database.transaction(other), pytest.raises(sqlite3.OperationalError, match="locked"):
            ingester.take(segment)
        assert 0 == segment.taken
    assert ingester.take(segment)


def test_odd_entry(place: Place, make: Make, ingester: Ingester, rows: Rows) -> None:
    """An entry that fits no column is left out, and costs no other."""
    before = shield.counts().get("internal_error", 0)
    odd = make(http_status={"not": "a status"}, session_id="odd")
    assert ingester.take(written(place, *make(session_id="a"), *odd, *make(session_id="b")))
    assert [("msg-2",), ("msg-3",)] == [
        (response,)
        for (values,) in rows("SELECT vals FROM call_attributes")
        for response in msgspec.json.decode(values)
        if str(response).startswith("msg")
    ]
    assert [(2, 3)] == rows("SELECT count(call), count(*) FROM spans")
    assert before < shield.counts()["internal_error"]
    shield._counts["internal_error"] = before


def test_orphan(place: Place, make: Make, ingester: Ingester, rows: Rows) -> None:
    """The journal of a dead process is taken in and deleted, with its mark; that of a living one is left to it."""
    journal, living = Journal(place.journals), Journal(place.journals)
    for one in (journal, living):
        one.append(b"".join(map(encode, make())))
    dead, alive = files(place.journals)
    journal.abandon()
    for path in (dead, alive):
        while ingester.take_orphan(path):
            pass
    assert [alive] == files(place.journals)
    assert [(1, 0)] == rows("SELECT (SELECT count(*) FROM calls), (SELECT count(*) FROM journal)")
    assert not ingester.take_orphan(dead)


def test_file_deleted_but_not_its_mark(place: Place, make: Make, ingester: Ingester, rows: Rows) -> None:
    """Whoever dies between the two leaves a mark that names no file, and nothing twice."""
    journal = Journal(place.journals)
    journal.append(b"".join(map(encode, make())))
    ((segment, _),) = journal.segments()
    journal.abandon()
    assert ingester.take_orphan(segment.path)
    segment.remove()
    assert not ingester.take_orphan(segment.path)
    assert [(1,)] == rows("SELECT count(*) FROM calls")


def test_database_deleted(place: Place, make: Make, ingester: Ingester, rows: Rows) -> None:
    """Where somebody deletes the database under us, the next entries make it anew."""
    journal = Journal(place.journals)
    for expected in ("msg-1", "msg-2"):
        journal.append(b"".join(map(encode, make())))
        ((segment, _),) = journal.segments()
        assert ingester.take(segment)
        ((values,),) = rows("SELECT vals FROM call_attributes")
        assert expected in values
        place.database.unlink()


def test_texts_deleted(place: Place, make: Make, ingester: Ingester, rows: Rows) -> None:
    """Where somebody deletes texts, their ids are not used any more."""
    journal = Journal(place.journals)
    journal.append(b"".join(map(encode, make(session_id="a"))))
    ((segment, _),) = journal.segments()
    ingester.take(segment)
    with closing(database.open_writer(place, wait=1)) as other, database.transaction(other):
        other.execute("DELETE FROM calls")
        other.execute("DELETE FROM text WHERE value = 'a'")
        other.execute("INSERT INTO text (value) VALUES ('b')")
        other.execute("UPDATE meta SET value = value + 1 WHERE name = 'epoch'")
    journal.append(b"".join(map(encode, make(session_id="a"))))
    ingester.take(segment)
    assert [("a",)] == rows("SELECT value FROM calls JOIN text ON text.id = session")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("together", [True, False])
def test_span_and_call(make: Make, fill: Fill, rows: Rows, order: tuple[int, int], together: bool) -> None:
    """A span and its call find each other, in whatever order they come, and together they know all."""
    made = make(session_id="s")
    entries = [made[index] for index in order]
    for part in [entries] if together else [[entry] for entry in entries]:
        fill(part)
    ((call, name, keys),) = rows(
        "SELECT call, (SELECT value FROM text WHERE id = name), (SELECT value FROM text WHERE id = keys) FROM spans"
    )
    assert (1, "chat") == (call, name)
    assert keys is None if together else "session.id" in keys


def test_span_with_more_than_its_call(make: Make, fill: Fill, rows: Rows) -> None:
    """What somebody else wrote onto our span stays with the span."""
    span, log = make()
    assert isinstance(span, Span)
    fill([msgspec.structs.replace(span, attributes={**span.attributes, "theirs": 1}), log])
    assert [('["theirs"]', "[1]")] == rows("SELECT value, vals FROM spans JOIN text ON text.id = keys")


def test_span_of_another_scope(make: Make, fill: Fill, rows: Rows) -> None:
    """A span that msgtap has only enriched keeps all that it has."""
    fill(make(scope="com.anthropic.sdk.python"))
    ((keys, call),) = rows("SELECT value, call FROM spans JOIN text ON text.id = keys")
    assert "gen_ai.response.id" in keys
    assert 1 == call


def test_span_written_twice(fill: Fill, rows: Rows) -> None:
    """A group's span that two processes wrote is one, as long as both."""
    one = Span(Raw(b"{}"), "msgtap", "0a" * 16, "0b" * 8, None, "triage", 1, 100, 200, 0, {"a": 1})
    fill([one, msgspec.structs.replace(one, started_at=50, ended_at=150)])
    fill([msgspec.structs.replace(one, ended_at=300, parent_id="0c" * 8, events=[["e", 1, {}]])])
    assert [(50, 300, b"\x0c" * 8, '{"events":[["e",1,{}]],"links":[]}')] == rows(
        "SELECT started_at, ended_at, parent_id, more FROM spans"
    )


def test_other_log_records(fill: Fill, rows: Rows) -> None:
    """The program's own log records are kept too."""
    fill([Log(Raw(b"{}"), "app", 5, "0a" * 16, "0b" * 8, 13, "paid", {"text": "ä"}, {"a": 1})])
    assert [(5, b"\x0a" * 16, b"\x0b" * 8, 13, '{"text":"ä"}', "[1]")] == rows(
        "SELECT time, trace_id, span_id, severity, body, vals FROM logs"
    )
    assert [(0,)] == rows("SELECT count(*) FROM calls")


def test_points(fill: Fill, rows: Rows) -> None:
    """Of each series the last state in each hour is kept."""
    hour = 3_600_000_000_000
    point = Point(Raw(b"{}"), "msgtap", "m", "s", "histogram", {"a": 1}, 0, 1, 2.5, 2, [1, 1], [0.5])
    later = msgspec.structs.replace(point, time=2, value=3.5, count=3)
    fill([point, later, msgspec.structs.replace(later, time=hour), msgspec.structs.replace(later, attributes={})])
    assert [(0, 2, 3.5, 3), (0, 2, 3.5, 3), (1, hour, 3.5, 3)] == rows("SELECT hour, time, value, count FROM points")


def test_hours(make: Make, fill: Fill, rows: Rows) -> None:
    """Calls are added up by the hour, over any number of transactions."""
    hour = 3_600_000
    for at in (0, hour - 1, hour):
        fill([*make(at=at, cost=0.5, input_tokens=10), *make(at=at, error_type="x")])
    assert [(2, 20, 1.0, 2), (2, 0, 0.0, 0), (1, 10, 0.5, 1), (1, 0, 0.0, 0)] == rows(
        "SELECT calls, input, cost, priced_calls FROM rollups ORDER BY hour, error"
    )
