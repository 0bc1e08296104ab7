"""Opening the database: made or brought up to date where that is due, and left alone where it is not ours."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from msgtap_sqlite import latency, schema
from msgtap_sqlite.place import Place, StoreError, create

_CHECKPOINT_PAGES = 4000
"""16 MiB: with fewer, a backlog is taken in at half the speed."""


def inspect(database: Path) -> None:
    """Look at the head of the file, and nothing else.

    Raises:
        StoreError: it is no store of ours, or of a later version.
        sqlite3.OperationalError: it cannot be read, at the moment at least.
    """
    if not database.exists():
        return
    if not database.is_file():
        raise StoreError(f"{database} is no file: set MSGTAP_STORE to one")
    try:
        # By SQLite, since closing a file takes away all locks that the process has on it: SQLite waits with that.
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            if _pragma(connection, "schema_version") or _pragma(connection, "application_id"):
                _check(database, _pragma(connection, "application_id"), version(connection))
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        # Whoever looks without a lock may find the file half-way between two states: only this is for sure.
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise spoilt(database, error) from error


def spoilt(database: Path, error: sqlite3.DatabaseError) -> StoreError:
    """What to say of a file that SQLite cannot make sense of."""
    what = "no database" if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB else f"damaged ({error})"
    return StoreError(f"{database} is {what}: move it away, or set MSGTAP_STORE to another file")


def _check(database: Path, application_id: int, version: int) -> None:
    if application_id != schema.APPLICATION_ID:
        raise StoreError(f"{database} is another program's database: set MSGTAP_STORE to another file")
    if version > (known := len(schema.MIGRATIONS)):
        raise StoreError(
            f"{database} was written by a later msgtap (schema {version}, this one knows {known}):"
            " update msgtap, or set MSGTAP_STORE to another file"
        )


def open_writer(place: Place, *, wait: float) -> sqlite3.Connection:
    """A connection that writes, to a database of this version, in autocommit mode.

    Args:
        place: where; its directories are there.
        wait: seconds to wait for whoever else writes.

    Raises:
        StoreError: the file is no store of ours, or of a later version.
        sqlite3.Error: SQLite cannot open it.
    """
    inspect(place.database)
    if not place.database.exists():
        _make_file(place)
    connection = sqlite3.connect(place.database, timeout=wait, isolation_level=None, check_same_thread=False)
    try:
        _make_current(connection, place)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {_CHECKPOINT_PAGES * 4096}")
        connection.create_function("merged", 2, latency.merged, deterministic=True)
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(database: Path) -> sqlite3.Connection:
    """A connection that only reads.

    Raises:
        StoreError: there is no store, or it is none of ours, or of another version.
    """
    if not database.exists():
        raise StoreError(f"nothing has been recorded yet: there is no {database}")
    try:
        inspect(database)
        return _open_reader(database)
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {database}: {error}") from error


def _open_reader(database: Path) -> sqlite3.Connection:
    # Who may not write leaves SQLite's own files lying about.
    mode = "rw" if os.access(database, os.W_OK) else "ro"
    connection = sqlite3.connect(f"{database.as_uri()}?mode={mode}", uri=True, timeout=30.0, isolation_level=None)
    try:
        connection.execute("PRAGMA query_only = ON")
        _check_current(database, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_current(database: Path, connection: sqlite3.Connection) -> None:
    _check(database, _pragma(connection, "application_id"), version(connection))
    if version(connection) < len(schema.MIGRATIONS):
        raise StoreError(f"{database} is of an earlier msgtap, and cannot be written to be brought up to date")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """A transaction that writes, for the block.

    Raises:
        StoreError: the schema is no longer that of this version.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        _check_unchanged(connection)
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite may have rolled back on its own
            connection.execute("ROLLBACK")
        raise


def _check_unchanged(connection: sqlite3.Connection) -> None:
    if version(connection) != len(schema.MIGRATIONS):
        raise StoreError("another version of msgtap has changed the store's schema meanwhile")


def version(connection: sqlite3.Connection) -> int:
    """The version of the schema."""
    return _pragma(connection, "user_version")


def used_bytes(connection: sqlite3.Connection) -> int:
    """How much of the file holds something."""
    pages = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
    return pages * _pragma(connection, "page_size")


def mostly_used(connection: sqlite3.Connection, part: float) -> bool:
    """Whether at least such a part of the file's pages is in use."""
    pages = _pragma(connection, "page_count")
    return pages - _pragma(connection, "freelist_count") >= part * pages


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _make_file(place: Place) -> None:
    """Make an empty file that is this user's alone. It is closed before it has its name, for the sake of locks."""
    blank = place.journals / f"blank-{os.getpid()}-{threading.get_ident()}"
    os.close(create(blank, os.O_RDWR))
    with suppress(FileExistsError):
        place.database.hardlink_to(blank)
    blank.unlink()


def _make_current(connection: sqlite3.Connection, place: Place) -> None:
    if _pragma(connection, "schema_version") == 0:
        with _alone(place.journals):
            if _pragma(connection, "schema_version") == 0:
                # The file is known as ours from its first page on, should anybody look, or be killed, in between.
                connection.executescript(
                    "BEGIN; PRAGMA auto_vacuum = INCREMENTAL;"
                    f" PRAGMA application_id = {schema.APPLICATION_ID}; COMMIT; PRAGMA journal_mode = WAL"
                )
                _migrate(connection, 0)
    found = version(connection)
    _check(place.database, _pragma(connection, "application_id"), found)
    if found < len(schema.MIGRATIONS):
        with _alone(place.journals):
            _migrate(connection, version(connection))


def _migrate(connection: sqlite3.Connection, found: int) -> None:
    for number, script in enumerate(schema.MIGRATIONS[found:], found + 1):
        # One transaction for each version; whoever is killed in it has done nothing.
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT")
    # Into the file itself, where the next `inspect` looks.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def _alone(directory: Path) -> Generator[None]:
    """No other process makes or changes the schema while the block runs."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
