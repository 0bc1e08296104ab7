"""A process's own journal: what has been appended survives whatever becomes of the process.

It is a file of lines, and a new file begins when one is long or old. Whoever appends to a file holds a lock on it; the
kernel gives that up when the process dies, however it dies. So a file whose lock can be had is an orphan, and anybody
may take it in. A power cut is another matter: nothing is synced to the disk here.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from msgtap_sqlite.place import create, make_directory

SEGMENT_BYTES: Final = 8 * 1024 * 1024
"""A file this long is closed."""
PIECE_BYTES: Final = 2 * 1024 * 1024
"""How much is taken in at once: some 600 calls with their spans. More than the longest entry."""

_SUFFIX = ".jsonl"
_numbers = itertools.count()


class Segment:
    """A file of a journal that this process has the lock of.

    Attributes:
        taken: all before this offset is in the database, as far as is known here.
    """

    __slots__ = ("_descriptor", "_torn", "begun", "path", "size", "taken")

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = os.fstat(descriptor).st_size
        self.taken = 0
        self.begun = time.monotonic()
        self._descriptor = descriptor
        self._torn = False

    @property
    def name(self) -> str:
        """What the database knows it by; never used twice."""
        return self.path.name

    def append(self, line: bytes) -> None:
        """Write a line, wholly.

        Raises:
            OSError: it could not be written, or a part only; a newline before the next line makes up for that.
        """
        data = b"\n" + line if self._torn else line
        accepted = os.write(self._descriptor, data)
        self.size += accepted
        self._torn = accepted != len(data)
        if self._torn:
            raise OSError(f"only {accepted} of {len(data)} bytes of an entry could be written")

    def read(self, offset: int) -> bytes:
        """The complete lines from ``offset`` on, `PIECE_BYTES` at most."""
        data = os.pread(self._descriptor, PIECE_BYTES, offset)
        end = data.rfind(b"\n") + 1
        return data[:end] if end or len(data) < PIECE_BYTES else data  # so long a line is none of ours: junk

    def close(self) -> None:
        """Give up the file and its lock."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """Delete the file: all of it has been taken in."""
        self.path.unlink(missing_ok=True)


class Journal:
    """The segments that this process writes. Safe to use from several threads, and from within itself."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.RLock()  # an object that is collected in here may end a span of the program's
        self._current: Segment | None = None
        self._closed: list[Segment] = []

    def append(self, line: bytes) -> None:
        """Write a line: when this returns, the kernel has it.

        Raises:
            OSError: it could not be written.
        """
        with self._lock:
            segment = self._current
            if segment is None:
                segment = self._current = self._begin()
            segment.append(line)
            if segment.size >= SEGMENT_BYTES:
                self.close()

    def segments(self) -> list[tuple[Segment, bool]]:
        """The files that are not all taken in, the oldest first, and of each whether it is closed."""
        with self._lock:
            return [(segment, True) for segment in self._closed] + ([(self._current, False)] if self._current else [])

    def waiting(self) -> int:
        """Bytes that are not in the database yet."""
        return sum(segment.size - segment.taken for segment, _ in self.segments())

    def close(self, *, older_than: float = 0.0) -> None:
        """Append no more to the current file, if it was begun so many seconds ago."""
        with self._lock:
            if self._current is not None and time.monotonic() - self._current.begun >= older_than:
                self._closed.append(self._current)
                self._current = None

    def finish(self, segment: Segment) -> None:
        """Delete a closed file: all of it has been taken in."""
        with self._lock:
            self._closed.remove(segment)
        segment.remove()
        segment.close()

    def hold(self) -> None:
        """The process is about to fork: no change until `release`."""
        self._lock.acquire()

    def release(self) -> None:
        """It has forked, and this is the parent."""
        self._lock.release()

    def abandon(self) -> None:
        """Close all files and forget them: in a forked child they are its parent's, and so are their locks."""
        self._lock = threading.RLock()
        inherited = self.segments()
        self._current, self._closed = None, []
        for segment, _ in inherited:
            segment.close()

    def _begin(self) -> Segment:
        while True:
            path = self._directory / f"{time.time_ns():020d}-{os.getpid()}-{next(_numbers)}{_SUFFIX}"
            try:
                descriptor = create(path, os.O_RDWR | os.O_APPEND)
            except FileNotFoundError:  # the directory was deleted under us
                make_directory(self._directory)
                continue
            if _lock(descriptor):
                return Segment(path, descriptor)


def _lock(descriptor: int) -> bool:
    """Whether the lock of an open file could be had, and the file is still there; otherwise it is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:  # not so where somebody took it in between its opening and its lock
            return True
    except BlockingIOError:
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return False


def files(directory: Path) -> list[Path]:
    """The files of all journals, the oldest first."""
    return sorted(directory.glob(f"*{_SUFFIX}"))


@contextmanager
def claimed(path: Path) -> Generator[Segment | None]:
    """The file with its lock while the block runs; `None` if its process lives, or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    if not _lock(descriptor):
        yield None
        return
    segment = Segment(path, descriptor)
    try:
        yield segment
    finally:
        segment.close()
