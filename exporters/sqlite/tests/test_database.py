"""The database's file: made, brought up to date, or left alone."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from msgtap_sqlite import database, schema
from msgtap_sqlite.entries import Entry
from msgtap_sqlite.place import Place, StoreError
from msgtap_sqlite.reader import Store, open_reader

Make = Callable[..., list[Entry]]
Fill = Callable[[list[Entry]], None]


def pragma(connection: sqlite3.Connection, name: str) -> Any:
    """A pragma's value."""
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def test_made(place: Place) -> None:
    """A new file has the settings that the store rests on."""
    with closing(database.open_writer(place, wait=1)) as connection:
        expected = {
            "application_id": schema.APPLICATION_ID,
            "user_version": len(schema.MIGRATIONS),
            "journal_mode": "wal",
            "auto_vacuum": 2,
            "secure_delete": 1,
            "synchronous": 1,
        }
        assert expected == {name: pragma(connection, name) for name in expected}


@pytest.mark.parametrize("umask", [0, 0o777])
def test_mode(place: Place, umask: int, with_umask: Callable[[int], None]) -> None:
    """All of its files are this user's alone, whatever the umask."""
    with_umask(umask)
    with closing(database.open_writer(place, wait=1)) as connection:
        connection.execute("UPDATE meta SET value = 1 WHERE name = 'last_call'")
        found = {
            path.name: path.stat().st_mode & 0o777 for path in place.database.parent.glob("calls.db*") if path.is_file()
        }
    assert {"calls.db": 0o600, "calls.db-wal": 0o600, "calls.db-shm": 0o600} == found


def test_made_by_many_at_once(place: Place) -> None:
    """Processes that start together make one database."""
    versions: list[int] = []

    def make() -> None:
        with closing(database.open_writer(place, wait=10)) as connection:
            versions.append(database.version(connection))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(schema.MIGRATIONS)] * 8 == versions


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this system does not tell of locks")
def test_locks_survive_a_look(place: Place) -> None:
    """Looking at the file takes no lock away from a connection of the same process."""
    with closing(database.open_writer(place, wait=1)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE meta SET value = 1 WHERE name = 'last_call'")
        database.inspect(place.database)
        open_reader(place.database).close()
        held = Path("/proc/locks").read_text(encoding="ascii")
        files = [place.database, place.database.with_name("calls.db-shm")]
        assert [True, True] == [f":{path.stat().st_ino} " in held for path in files]


def other_program(path: Path) -> None:
    """Another program's database."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")


def later_version(path: Path) -> None:
    """A store of a later msgtap."""
    database.open_writer(Place(path), wait=1).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")


@pytest.mark.parametrize(
    ("put", "line"),
    [
        (lambda path: path.write_text("dear diary"), "is no database: move it away"),
        (lambda path: path.write_bytes(b"SQLite"), "is no database"),
        (other_program, "is another program's database: set MSGTAP_STORE to another file"),
        (later_version, "was written by a later msgtap .*: update msgtap"),
    ],
)
def test_not_ours(place: Place, put: Callable[[Path], Any], line: str) -> None:
    """A file that is none of ours, or too new, is left exactly as it is, and a line says what to do."""
    put(place.database)
    before = place.database.read_bytes()
    for attempt in (lambda: database.inspect(place.database), lambda: database.open_writer(place, wait=1)):
        with pytest.raises(StoreError, match=line):
            attempt()
    with pytest.raises(StoreError, match=line):
        open_reader(place.database)
    assert before == place.database.read_bytes()


def test_directory_in_its_place(place: Place) -> None:
    """A directory where the file should be is an error that names it."""
    place.database.mkdir()
    with pytest.raises(StoreError, match="is no file: set MSGTAP_STORE"):
        database.inspect(place.database)


@pytest.mark.parametrize("made", ["nothing", "marked"])
def test_killed_while_making(place: Place, made: str) -> None:
    """Whoever was killed while making the file has left one that the next process completes."""
    place.database.touch()
    if made == "marked":
        with closing(sqlite3.connect(place.database)) as connection:
            connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
            connection.execute("PRAGMA journal_mode = WAL")
    with closing(database.open_writer(place, wait=1)) as connection:
        assert len(schema.MIGRATIONS) == database.version(connection)


def test_old_schema(
    place: Place, make: Make, fill: Fill, read: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of an earlier version is brought up to date by who writes, and by who reads, and keeps what it has."""
    fill(make())
    monkeypatch.setattr(
        schema, "MIGRATIONS", (*schema.MIGRATIONS, "ALTER TABLE calls ADD COLUMN mood TEXT DEFAULT 'good'")
    )
    fill(make())
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE moods (mood TEXT)"))
    assert 2 == read().report("model").total.calls
    with closing(database.open_writer(place, wait=1)) as connection:
        assert len(schema.MIGRATIONS) == database.version(connection)
        assert [("good",), ("good",)] == connection.execute("SELECT mood FROM calls").fetchall()


def test_migration_that_fails(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that cannot be done leaves the file as it was."""
    database.open_writer(place, wait=1).close()
    before = len(schema.MIGRATIONS)
    broken = "CREATE TABLE moods (mood TEXT); ALTER TABLE nothing ADD COLUMN x"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
    with pytest.raises(sqlite3.OperationalError):
        database.open_writer(place, wait=1)
    with closing(sqlite3.connect(place.database)) as connection:
        assert before == database.version(connection)
        assert [] == connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'moods'").fetchall()


def test_schema_changed_meanwhile(place: Place) -> None:
    """Who has the file open while a later msgtap changes its schema writes no more."""
    with closing(database.open_writer(place, wait=1)) as connection:
        later_version(place.database)
        with pytest.raises(StoreError, match="another version of msgtap"), database.transaction(connection):
            pass
        assert not connection.in_transaction


def test_nothing_yet(place: Place) -> None:
    """Reading a store that is not there says so, and makes none."""
    with pytest.raises(StoreError, match="nothing has been recorded yet"):
        open_reader(place.database)
    assert not place.database.exists()


def test_reader_writes_nothing(place: Place, make: Make, fill: Fill, read: Callable[[], Store]) -> None:
    """A reader cannot change the store."""
    fill(make())
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        read()._connection.execute("DELETE FROM calls")


def test_references() -> None:
    """Each column that holds ids of texts is known to the collector, and the list names none that is not there."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(schema.MIGRATIONS[0])
        for table, columns in schema.REFERENCES.items():
            connection.execute(f"SELECT {columns} FROM {table}")
