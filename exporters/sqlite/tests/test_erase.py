"""Erasing one user, or one session, down to the bytes."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from msgtap_sqlite import database
from msgtap_sqlite.entries import Entry, Log, Span, encode
from msgtap_sqlite.erase import erase
from msgtap_sqlite.journal import Journal
from msgtap_sqlite.place import Place, StoreError
from msgtap_sqlite.reader import Store

Make = Callable[..., list[Entry]]
Fill = Callable[[Iterable[Entry]], None]
Read = Callable[[], Store]

TRACE = "0a" * 16


def bytes_of(place: Place) -> bytes:
    """All that is in the store's files."""
    paths = [path for path in place.database.parent.rglob("*") if path.is_file()]
    assert place.database in paths
    return b"".join(path.read_bytes() for path in paths)


def named(span_id: str, **attributes: Any) -> list[Entry]:
    """A span, its child, and a log record; all but the child have these attributes."""
    resource = Raw(b'{"service.name":"app"}')
    return [
        Span(resource, "app", TRACE, span_id, None, "request", 1, 1, 2, 0, attributes),
        Span(resource, "app", TRACE, "0c" * 8, span_id, "work", 1, 1, 2, 0, {"text": "innocent"}),
        Log(resource, "app", 1, TRACE, "0c" * 8, 9, None, "log", attributes),
    ]


@pytest.mark.parametrize("kind", ["user", "session"])
def test_erase(place: Place, make: Make, fill: Fill, read: Read, kind: str) -> None:
    """Nothing of what names the id is left in any file; all else is left as it was."""
    other = "session" if kind == "user" else "user"
    facts: dict[str, Any] = {f"{other}_id": "both", "error_type": "x", "http_status": 529}
    for _ in range(5):
        theirs = [make(**{f"{kind}_id": name}, **facts) for name in ("ana-secret", "ben") for _ in range(10)]
        fill(itertools.chain(*theirs))
    fill(named("0b" * 8, **{f"{kind}.id": "ana-secret"}))
    fill(named("0d" * 8, **{f"{kind}.id": "ana-secret-not"}))
    assert b"ana-secret" in bytes_of(place)

    ids: dict[str, Any] = {kind: "ana-secret"}
    erased = erase(**ids, path=place.database)

    assert (50, 51, 1, (), True) == (erased.calls, erased.spans, erased.logs, erased.journals, erased.compacted)
    assert bytes_of(place).count(b"ana-secret") == bytes_of(place).count(b"ana-secret-not")
    store = read()
    assert {"ben"} == {getattr(call, kind) for call in store.last_calls(limit=200)}
    assert {"both"} == {getattr(call, other) for call in store.last_calls(limit=200)}
    assert 100 == store.report("model").total.calls  # the hours' sums name nobody


def test_attempts_of_a_call(make: Make, fill: Fill, place: Place) -> None:
    """The spans right below a call's, its failed attempts, go with it, and so do its log records."""
    resource = Raw(b"{}")
    span, call = make(user_id="ana")
    assert isinstance(span, Span)
    attempt = Span(resource, "msgtap", span.trace_id, "0d" * 8, span.span_id, "messages.attempt", 3, 1, 2, 2, {})
    elsewhere = Span(resource, "app", span.trace_id, "0e" * 8, "0f" * 8, "other", 1, 1, 2, 0, {})
    log = Log(resource, "app", 1, span.trace_id, span.span_id, 9, None, "said", {})
    fill([span, call, attempt, elsewhere, log])
    erased = erase(user="ana", path=place.database)
    assert (1, 2, 1) == (erased.calls, erased.spans, erased.logs)
    with closing(sqlite3.connect(place.database)) as connection:
        assert [("other",)] == connection.execute("SELECT value FROM spans JOIN text ON text.id = name").fetchall()


def test_journals_first(place: Place, make: Make) -> None:
    """What a dead process left behind is taken in, so that it does not come back."""
    journal = Journal(place.journals)
    journal.append(b"".join(encode(entry) for entry in (*make(user_id="ana"), *make(user_id="ben"))))
    journal.abandon()
    database.open_writer(place, wait=1).close()
    assert 1 == erase(user="ana", path=place.database).calls
    assert b"ana" not in bytes_of(place)


def test_living_process(place: Place, make: Make, fill: Fill) -> None:
    """The journal of a process that does not take it in is named."""
    fill(make(user_id="ana"))
    journal = Journal(place.journals)
    journal.append(b"".join(map(encode, make(user_id="ana"))))
    erased = erase(user="ana", path=place.database, wait=0.0)
    assert (1, tuple(path.path for path, _ in journal.segments())) == (erased.calls, erased.journals)
    journal.abandon()


def test_reader_in_the_way(place: Place, make: Make, fill: Fill, read: Read) -> None:
    """Somebody who reads meanwhile may keep the bytes in the file; then that is said."""
    fill(make(user_id="ana"))
    connection = read()._connection
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM calls").fetchone()
    erased = erase(user="ana", path=place.database, wait=0.1)
    assert (1, False) == (erased.calls, erased.compacted)
    connection.execute("COMMIT")
    assert erase(user="ana", path=place.database).compacted
    assert b"ana" not in bytes_of(place)


def test_unknown_id(place: Place, make: Make, fill: Fill) -> None:
    """An id that is not there erases nothing."""
    fill(make(user_id="ana"))
    erased = erase(user="an", path=place.database)
    assert (0, 0, 0) == (erased.calls, erased.spans, erased.logs)


@pytest.mark.parametrize("ids", [{}, {"user": "a", "session": "b"}])
def test_one_of_both(place: Place, ids: dict[str, Any]) -> None:
    """Whose calls to erase must be said, and once."""
    with pytest.raises(StoreError, match="of one user, or of one session"):
        erase(**ids, path=place.database)


def test_no_store(tmp_path: Path) -> None:
    """Where there is no store, there is nothing to erase, and none is made."""
    with pytest.raises(StoreError, match="nothing has been recorded yet"):
        erase(user="ana", path=tmp_path / "calls.db")
    assert [] == list(tmp_path.iterdir())
