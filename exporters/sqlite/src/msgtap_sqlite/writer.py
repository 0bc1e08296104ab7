"""The store's writer in this process: an entry goes into the journal at once, and into the database on another thread.

Nothing here raises into the program, and nothing but `Writer.flush` waits for the database. There is one writer for
each store, whichever exporters share it.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from msgtap import shield
from msgtap.shield import attempt
from msgtap_sqlite import database, retention
from msgtap_sqlite.entries import ENTRY_LIMIT
from msgtap_sqlite.ingest import Ingester
from msgtap_sqlite.journal import Journal, files
from msgtap_sqlite.place import Place, StoreError, locate, prepare
from msgtap_sqlite.retention import Limits

GATHER: Final = 0.1
"""Seconds in which entries gather before they are taken in."""
REST: Final = 2.0
"""Seconds without an entry after which the journal's file and the connection are given up, until the next one."""
TURN: Final = 10.0
"""Seconds after which a new file of the journal begins: what was erased shall not linger in an old one."""
EXIT: Final = 3.0
"""Seconds that the program's exit waits at most; what is not taken in by then, the next process takes in."""

R = TypeVar("R")

_SWEEP = 60.0
_SLOWEST = 30.0
_FORK = 2.0


class Writer:
    """What this process has to do with one store.

    Attributes:
        off: why nothing is written; `None` as long as all is well.
    """

    def __init__(self, place: Place, limits: Limits, off: str | None = None) -> None:
        self.off = off
        self._place = place
        self._limits = limits
        self._journal = Journal(place.journals)
        self._ingester = Ingester(place)
        self._inherited: list[Ingester] = []
        self._full = False
        self._held = False
        self._begin()

    def _begin(self) -> None:
        """What each process has for itself."""
        self._busy = threading.Lock()  # whoever has it has the ingester
        self._starting = threading.Lock()
        self._wake = threading.Event()
        self._leaving = threading.Event()  # set while the process forks
        self._thread: threading.Thread | None = None
        self._swept = float("-inf")

    def write(self, line: bytes) -> bool:
        """Take an entry: whether it is in the journal."""
        if reason := self._refusal(line):
            shield.count(reason)
            return False
        try:
            self._journal.append(line)
        except OSError as error:
            shield.count("store_write_failed")
            _say(f"the store cannot write to {self._place.journals}: {error.strerror or error}")
            return False
        if not self._wake.is_set():
            self._wake.set()
            if self._thread is None:
                self._start()
        return True

    def _refusal(self, line: bytes) -> str | None:
        if self.off is not None:
            return "store_off"
        if self._full:
            return "store_backlog"
        return "store_entry_too_long" if len(line) > ENTRY_LIMIT else None

    def flush(self, timeout: float) -> bool:
        """Have all entries in the database, waiting at most ``timeout`` seconds: whether they are."""
        until = time.monotonic() + timeout
        while self._journal.waiting():
            done = self._guarded(self._take_in, until)
            if done is None and self._may_take_in() and time.monotonic() < until:
                time.sleep(GATHER)  # somebody else is writing, say
            else:
                return bool(done)
        return True

    def rest(self) -> None:
        """Nothing is expected for now: leave as little behind as can be."""
        until = time.monotonic() + EXIT
        self._journal.close()
        if self.flush(EXIT):
            self._guarded(self._take_in, until)  # deletes what has been closed
            self._guarded(self._alone, self._ingester.close, until)

    def _may_take_in(self) -> bool:
        return self.off is None and not self._inherited

    def _start(self) -> None:
        if not self._may_take_in() or not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None and not self._leaving.is_set():
                thread = threading.Thread(target=self._run, name="msgtap-store", daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError:  # the interpreter is shutting down: `rest` is yet to come
            pass
        finally:
            self._starting.release()

    def _run(self) -> None:
        pause = GATHER
        while self._may_take_in():
            if not self._wake.wait(REST):
                self.rest()
                self._wake.wait()
            if self._leaving.wait(pause):
                return
            self._wake.clear()
            self._journal.close(older_than=TURN)
            if self._guarded(self._work):
                self._full, pause = False, GATHER
            else:
                self._full = self._journal.waiting() > self._limits.bytes
                pause = min(2 * pause, _SLOWEST)
                self._wake.set()

    def _work(self) -> bool:
        until = time.monotonic() + _SLOWEST
        done = self._take_in(until)
        if time.monotonic() - self._swept > _SWEEP:
            self._swept = time.monotonic()
            for path in files(self._place.journals):
                while self._alone(partial(self._ingester.take_orphan, path), until):
                    pass
            if self._alone(self._sweep_is_due, until):
                while self._alone(self._sweep, until):
                    pass
        return done

    def _take_in(self, until: float) -> bool:
        """Take in our own journal: whether all of it was before ``until``."""
        while time.monotonic() < until:
            more = self._alone(self._take_piece, until)
            if not more:
                return more is False
        return False

    def _take_piece(self) -> bool:
        for segment, closed in self._journal.segments():
            if self._ingester.take(segment):
                return True
            if closed:
                self._journal.finish(segment)
                self._ingester.forget(segment)
        return False

    def _sweep_is_due(self) -> bool:
        return retention.due(self._ingester.connection(), _now())

    def _sweep(self) -> bool:
        return retention.sweep(self._ingester.connection(), self._limits, _now())

    def _alone(self, step: Callable[[], R], until: float) -> R | None:
        """A step of work with the database, or `None` where it could not begin in time.

        Between two steps the process may fork; so none takes long.
        """
        if not self._busy.acquire(timeout=max(0.0, until - time.monotonic())):
            return None
        try:
            return step()
        finally:
            self._busy.release()

    def _guarded(self, step: Callable[..., R], *arguments: object) -> R | None:
        """``step(*arguments)``, or `None` where the database did not let it."""
        return attempt(self._judged, step, *arguments) if self._may_take_in() else None

    def _judged(self, step: Callable[..., R], *arguments: object) -> R | None:
        try:
            return step(*arguments)
        except StoreError as error:
            self._turn_off(str(error))
        except (sqlite3.OperationalError, OSError) as error:
            shield.count("store_retried")
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                _say(f"the store cannot write {self._place.database}, and will try again: {error}")
        except sqlite3.DatabaseError as error:
            self._turn_off(str(database.spoilt(self._place.database, error)))
        return None

    def _turn_off(self, reason: str) -> None:
        self.off = reason
        _say(f"the store is off: {reason}")

    def hold(self) -> None:
        """The process is about to fork: SQLite's connections and our locks must not be in use meanwhile.

        Nor may our thread be there: Python warns a program that forks while it has threads, which it has not.
        """
        self._leave()
        self._held = self._busy.acquire(timeout=_FORK)
        if self._held:
            self._ingester.close(tidy=False)
        self._journal.hold()

    def _leave(self) -> None:
        """End the thread when it has taken in what is waiting; the next entry starts another."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        self._leaving.set()
        self._wake.set()
        thread.join(_FORK)
        if self._journal.waiting():
            self._guarded(self._take_in, time.monotonic() + _FORK)

    def release(self) -> None:
        """It has forked, and this is the parent."""
        self._journal.release()
        if self._leaving.is_set():
            self._wake.clear()
            if self._thread is not None and not self._thread.is_alive():
                self._thread = None
            self._leaving.clear()
        if self._held:
            self._held = False
            self._busy.release()

    def begin_child(self) -> None:
        """It has forked, and this is the child: a journal of its own, nothing of its parent's."""
        self._journal.abandon()
        if not self._held:
            # A connection came along. SQLite would take its locks for ours, so nobody may open or close one here.
            self._inherited.append(self._ingester)
        self._held = False
        self._begin()


_writers: dict[Place, Writer] = {}
_said: set[str] = set()


def writer(environ: Mapping[str, str]) -> Writer:
    """This process's writer for the store that ``environ`` means. One that is off where that cannot be used.

    Raises:
        ValueError: a variable's value means nothing.
    """
    limits = retention.limits(environ)
    try:
        place = locate(environ)
        if place not in _writers:
            prepare(place)
            database.inspect(place.database)
            _writers[place] = Writer(place, limits)
        return _writers[place]
    except (StoreError, sqlite3.Error) as error:
        _say(f"the store is off: {error}")
        return Writer(Place(Path(os.devnull)), limits, off=str(error))


def _now() -> int:
    return time.time_ns() // 1_000_000


def _say(text: str) -> None:
    if text not in _said:
        _said.add(text)
        shield.LOGGER.warning("%s", text)


def _each(act: Callable[[Writer], None]) -> Callable[[], None]:
    def do() -> None:
        for one in _writers.values():
            attempt(act, one)

    return do


os.register_at_fork(
    before=_each(Writer.hold), after_in_parent=_each(Writer.release), after_in_child=_each(Writer.begin_child)
)
atexit.register(_each(Writer.rest))
