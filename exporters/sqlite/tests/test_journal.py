"""A process's own journal."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from msgtap_sqlite import journal as module
from msgtap_sqlite.journal import Journal, claimed, files
from msgtap_sqlite.place import Place


@pytest.fixture
def journal(place: Place) -> Journal:
    """A journal of this process."""
    return Journal(place.journals)


def test_lines(journal: Journal) -> None:
    """What was appended can be read, from wherever one was before."""
    for line in (b"one\n", b"two\n"):
        journal.append(line)
    ((segment, closed),) = journal.segments()
    assert (False, b"one\ntwo\n", b"two\n", b"") == (closed, segment.read(0), segment.read(4), segment.read(8))
    assert journal.waiting() == 8


def test_one_file_until_it_is_long(journal: Journal, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is long enough is closed, and another one begins."""
    monkeypatch.setattr(module, "SEGMENT_BYTES", 8)
    for _ in range(5):
        journal.append(b"one\n")
    assert [True, True, False] == [closed for _, closed in journal.segments()]
    assert [segment.path for segment, _ in journal.segments()] == files(place.journals)


def test_finished(journal: Journal, place: Place) -> None:
    """What has been taken in is deleted, and a new file has a new name."""
    journal.append(b"one\n")
    ((segment, _),) = journal.segments()
    journal.close()
    journal.finish(segment)
    assert [] == files(place.journals)
    journal.append(b"two\n")
    assert segment.path not in files(place.journals)


def test_young_file_stays_open(journal: Journal) -> None:
    """A file is closed only if it is as old as asked."""
    journal.append(b"one\n")
    journal.close(older_than=60)
    assert [False] == [closed for _, closed in journal.segments()]


def test_lock(journal: Journal, place: Place) -> None:
    """Nobody can claim the file of a process that lives; when it gives it up, anybody can."""
    journal.append(b"one\n")
    (path,) = files(place.journals)
    with claimed(path) as segment:
        assert segment is None
    journal.abandon()
    with claimed(path) as segment:
        assert segment is not None
        assert segment.read(0) == b"one\n"
        with claimed(path) as second:
            assert second is None


def test_claim_of_a_file_that_is_gone(place: Place) -> None:
    """Somebody else was faster."""
    with claimed(place.journals / "1-2-3.jsonl") as segment:
        assert segment is None


def test_killed(place: Place) -> None:
    """The file of a process that was killed can be claimed, though its last line may be half a line."""
    program = f"""
        import os, signal
        from pathlib import Path
        from msgtap_sqlite.journal import Journal
        journal = Journal(Path({str(place.journals)!r}))
        journal.append(b"one\\n")
        journal.append(b"tw")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert -signal.SIGKILL == subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False).returncode
    (path,) = files(place.journals)
    with claimed(path) as segment:
        assert segment is not None
        assert (b"one\n", b"") == (segment.read(0), segment.read(4))


def test_forked_child_has_its_own(
    journal: Journal, place: Place, in_child: Callable[[Callable[[], None]], None]
) -> None:
    """A child leaves its parent's file to it, with its lock."""

    def program() -> None:
        journal.abandon()
        journal.append(b"child\n")

    journal.append(b"parent\n")
    (path,) = files(place.journals)
    in_child(program)
    with claimed(path) as segment:
        assert segment is None
    (of_child,) = {*files(place.journals)} - {path}
    with claimed(of_child) as segment:
        assert segment is not None
        assert segment.read(0) == b"child\n"


def test_torn_line(place: Place, in_child: Callable[[Callable[[], None]], None]) -> None:
    """A line that found no room is an error, and spoils no other line."""

    def program() -> None:
        journal = Journal(place.journals)
        journal.append(b"one\n")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6, hard))
        for _ in range(2):
            with pytest.raises(OSError, match=r"could be written|too large"):
                journal.append(b"two\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        journal.append(b"three\n")
        ((segment, _),) = journal.segments()
        assert segment.read(0) == b"one\ntw\nthree\n"

    in_child(program)


def test_directory_deleted(journal: Journal, place: Place) -> None:
    """Where somebody deletes the directory, the next file makes it anew."""
    place.journals.rmdir()
    journal.append(b"one\n")
    assert 1 == len(files(place.journals))


def test_junk_is_passed_over(place: Place, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without a newline in sight does not stop whoever reads it."""
    monkeypatch.setattr(module, "PIECE_BYTES", 8)
    (place.journals / "1-1-1.jsonl").write_bytes(b"x" * 20)
    with claimed(place.journals / "1-1-1.jsonl") as segment:
        assert segment is not None
        assert [8, 8, 0] == [len(segment.read(offset)) for offset in (0, 8, 16)]


@pytest.mark.parametrize("umask", [0, 0o777])
def test_mode(journal: Journal, place: Place, umask: int, with_umask: Callable[[int], None]) -> None:
    """A journal is this user's alone, whatever the umask."""
    with_umask(umask)
    journal.append(b"one\n")
    (path,) = files(place.journals)
    assert 0o600 == path.stat().st_mode & 0o777


def test_names_sort_by_age(journal: Journal, place: Place) -> None:
    """The oldest file is taken in first."""
    for line in (b"one\n", b"two\n", b"three\n"):
        journal.append(line)
        journal.close()
    found: list[Path] = files(place.journals)
    assert [b"one\n", b"two\n", b"three\n"] == [path.read_bytes() for path in found]
