"""Journals into the database: each piece of a journal in one transaction, together with the mark of how far it goes.

So every entry is taken in exactly once, whoever is killed and whenever.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from msgtap import shield
from msgtap_sqlite import database
from msgtap_sqlite.entries import Entry, decode
from msgtap_sqlite.journal import Segment, claimed
from msgtap_sqlite.place import Place
from msgtap_sqlite.rows import Rows

WAIT = 1.0
"""Seconds to wait for another process's transaction before trying again later."""

# What an odd entry can raise. SQLite's own trouble, a full disk or a damaged file, is none of these.
_ODD = (
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


class Ingester:
    """Takes in, over a connection that is opened when it is needed.

    What it does raises `StoreError` where the database is none of ours, and `sqlite3.Error` where it is damaged, or
    cannot be written at the moment; then nothing was done, and it may be tried again.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._open: tuple[sqlite3.Connection, Rows, tuple[int, int]] | None = None

    def take(self, segment: Segment) -> bool:
        """Take in the next piece of ``segment``; False where no complete line is left."""
        try:
            return self._take(segment)
        except BaseException:
            self.close()  # and with it what was remembered of a transaction that came to nothing
            raise

    def take_orphan(self, path: Path) -> bool:
        """Take in the next piece of a file if its process is dead; False where that is not so, or nothing is left."""
        with claimed(path) as segment:
            if segment is None:
                return False
            if self.take(segment):
                return True
            segment.remove()
        self.forget(segment)
        return False

    def forget(self, segment: Segment) -> None:
        """The file of ``segment`` is gone, so its mark can go; the other way round, it might be taken in twice."""
        self.connection().execute("DELETE FROM journal WHERE name = ?", (segment.name,))

    def connection(self) -> sqlite3.Connection:
        """The connection; a new one where somebody replaced the file."""
        return self._opened()[0]

    def close(self, *, tidy: bool = True) -> None:
        """Close the connection. Where it is the last one, SQLite then tidies up, which takes syncing to the disk.

        Args:
            tidy: whether it shall; since Python 3.12 it can be told.
        """
        if self._open is not None:
            connection, self._open = self._open[0], None
            if not tidy and sys.version_info >= (3, 12):
                connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE)
            connection.close()

    def _opened(self) -> tuple[sqlite3.Connection, Rows]:
        if self._open is not None and self._open[2] != _identity(self._place.database):
            self.close()
        if self._open is None:
            connection = database.open_writer(self._place, wait=WAIT)
            self._open = (connection, Rows(connection), _identity(self._place.database))
        return self._open[:2]

    def _take(self, segment: Segment) -> bool:
        connection, rows = self._opened()
        mark = connection.execute("SELECT offset FROM journal WHERE name = ?", (segment.name,)).fetchone()
        # Only who has the segment's lock moves its mark. There may be none any more: the database is another one.
        segment.taken = max(segment.taken, mark[0] if mark else 0)
        data = segment.read(segment.taken)
        if not data:
            return False
        entries, end = decode(data), segment.taken + len(data)
        with database.transaction(connection):
            rows.texts.begin()
            _insert(connection, rows, entries)
            connection.execute("INSERT OR REPLACE INTO journal (name, offset) VALUES (?, ?)", (segment.name, end))
        segment.taken = end
        return True


def _insert(connection: sqlite3.Connection, rows: Rows, entries: Sequence[Entry]) -> None:
    """Insert ``entries``; where one is odd, each on its own, and that one not at all."""
    connection.execute("SAVEPOINT entries")
    try:
        rows.insert(entries)
    except _ODD as error:
        connection.execute("ROLLBACK TO entries")
        rows.texts.forget()
        if len(entries) == 1:
            shield.failed("the store, at an entry that it leaves out", error)
        else:
            for entry in entries:
                _insert(connection, rows, [entry])
    finally:
        with suppress(sqlite3.OperationalError):  # where the transaction itself is lost, on a full disk say
            connection.execute("RELEASE entries")


def _identity(path: Path) -> tuple[int, int]:
    """Which file that is; zeros where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return status.st_dev, status.st_ino
