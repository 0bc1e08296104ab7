"""The writer of a process: what it has taken is never lost, and it never harms the program."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from msgtap import shield
from msgtap_sqlite import database, journal
from msgtap_sqlite import writer as module
from msgtap_sqlite.entries import ENTRY_LIMIT, Entry, encode
from msgtap_sqlite.journal import Journal, files
from msgtap_sqlite.place import Place
from msgtap_sqlite.reader import Store
from msgtap_sqlite.retention import Limits
from msgtap_sqlite.writer import Writer

Make = Callable[..., list[Entry]]
Read = Callable[[], Store]
InChild = Callable[[Callable[[], None]], None]

PROGRAM = """
    import os, signal, sys, threading, time
    from msgspec import Raw
    from msgtap import shield
    from msgtap_sqlite.entries import Log, encode
    from msgtap_sqlite.writer import writer

    store = writer(os.environ)
    def call(name):
        facts = {"msgtap.duration": 1.0, "session.id": name}
        resource = Raw(b'{"service.name":"app"}')
        return store.write(encode(Log(resource, "msgtap", time.time_ns(), None, None, 9, "messages.call", None, facts)))
"""


def run(place: Place, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program that writes to the store."""
    source = textwrap.dedent(PROGRAM) + textwrap.dedent(program)
    environ = {**os.environ, "MSGTAP_STORE": str(place.database)}
    return subprocess.run(
        [sys.executable, "-c", source], env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def sessions(store: Store) -> list[str | None]:
    """The sessions of all calls, in order of arrival; here each call has its own."""
    return [call.session for call in store.calls_after(0, limit=1_000_000)]


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def write(writer: Writer, entries: list[Entry]) -> bool:
    """Write entries: whether all are in the journal."""
    return not [entry for entry in entries if not writer.write(encode(entry))]


def test_taken_in_by_itself(writer: Writer, make: Make, place: Place) -> None:
    """Entries are in the database soon, though nobody asks for it."""
    assert write(writer, make())
    until(lambda: place.database.exists() and 0 == writer._journal.waiting())
    with closing(database.open_reader(place.database)) as connection:
        assert [(1,)] == connection.execute("SELECT count(*) FROM calls").fetchall()


def test_flush(writer: Writer, make: Make, read: Read) -> None:
    """After a flush, all is in the database."""
    for _ in range(20):
        write(writer, make())
    assert writer.flush(10)
    assert 20 == len(read().last_calls(limit=100))
    assert writer.flush(0)


def test_rest(writer: Writer, make: Make, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without calls has no file open, and goes on when there is one."""
    monkeypatch.setattr(module, "REST", 0.05)
    for expected in (1, 2):
        write(writer, make())
        until(lambda: [] == files(place.journals) and not place.database.with_name("calls.db-wal").exists())
        with closing(sqlite3.connect(place.database)) as connection:
            assert [(expected, 0)] == connection.execute(
                "SELECT count(*), (SELECT count(*) FROM journal) FROM calls"
            ).fetchall()


def test_files_are_closed_when_long(writer: Writer, make: Make, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over many files of the journal, each call is taken in once and in order."""
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 2000)
    monkeypatch.setattr(journal, "PIECE_BYTES", 1500)
    for number in range(30):
        write(writer, make(session_id=str(number)))
    assert writer.flush(10)
    assert [str(number) for number in range(30)] == sessions(read())


def test_orphans(writer: Writer, make: Make, place: Place, read: Read) -> None:
    """What a dead process left behind is taken in by the next one that has a call."""
    left = Journal(place.journals)
    left.append(b"".join(map(encode, make())))
    left.abandon()
    write(writer, make())
    until(lambda: place.database.exists() and 2 == read().last_id())


def test_old_calls_go(place: Place, make: Make, read: Read, stop: Callable[[Writer], None]) -> None:
    """A process with calls sees to it that old ones go."""
    writer = Writer(place, Limits(days=30))
    write(writer, make(at=0))  # of 2025
    until(lambda: place.database.exists() and 1 == read().last_id() and [] == read().last_calls())
    stop(writer)


def test_locked_database(writer: Writer, make: Make, place: Place, read: Read) -> None:
    """While another program keeps the database to itself, calls wait in the journal."""
    with closing(database.open_writer(place, wait=1)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert write(writer, make())
        assert not writer.flush(0.05)
        other.execute("ROLLBACK")
    assert writer.flush(30)
    assert 1 == read().last_id()


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda path: path.write_text("dear diary" * 1000), "is no database"),
        (lambda path: path.write_bytes(path.read_bytes()[:8192] + b"\xff" * 8192), "is damaged"),
    ],
)
def test_spoilt_database(
    writer: Writer, make: Make, spoil: Callable[[Path], None], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the database is spoilt under us, one line says so, and the program goes on without the store."""
    place = writer._place
    database.open_writer(place, wait=1).close()
    spoil(place.database)
    before = place.database.read_bytes()
    assert write(writer, make())
    assert not writer.flush(10)
    assert not write(writer, make())
    assert not writer.flush(10)
    assert line in str(writer.off)
    assert 1 == sum(line in record.message for record in caplog.records)
    assert before == place.database.read_bytes()


def test_too_long(writer: Writer) -> None:
    """An entry that is too long is left out, and counted."""
    before = shield.counts().get("store_entry_too_long", 0)
    assert not writer.write(b"x" * (ENTRY_LIMIT + 1))
    assert before + 1 == shield.counts()["store_entry_too_long"]
    assert writer.flush(0)


@pytest.mark.parametrize(
    ("put", "line"),
    [
        ({"MSGTAP_STORE": "/proc/none/calls.db"}, "the store is off: cannot write to /proc/none"),
        ({"MSGTAP_STORE": "/dev/null"}, "is no file: set MSGTAP_STORE to one"),
        ({"MSGTAP_STORE": __file__}, "is no database: move it away"),
        (
            {"HOME": "/proc/none", "XDG_STATE_HOME": ""},
            "the store is off: cannot write to /proc/none/.local/state/msgtap",
        ),
    ],
)
def test_unusable(
    put: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the store cannot be used, one line says why, and entries are only counted."""
    monkeypatch.delenv("MSGTAP_STORE", raising=False)
    for name, value in put.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "_said", set())
    writers = [module.writer(os.environ) for _ in range(2)]
    assert 1 == sum(line in record.message for record in caplog.records)
    before = shield.counts().get("store_off", 0)
    assert [False, False] == [writer.write(b"x") for writer in writers]
    assert before + 2 == shield.counts()["store_off"]


def test_one_for_each_store(place: Place, tmp_path: Path) -> None:
    """Exporters of one process that mean the same store share its writer."""
    try:
        one, same = (module.writer({"MSGTAP_STORE": str(place.database)}) for _ in range(2))
        other = module.writer({"MSGTAP_STORE": str(tmp_path / "other.db")})
        assert one is same
        assert one is not other
    finally:
        module._writers.clear()


def test_full_disk(place: Place, make: Make, read: Read, in_child: InChild) -> None:
    """On a full disk calls are counted as lost, what was there before is not, and room makes all well again."""

    def program() -> None:
        writer = Writer(place, Limits(days=100_000))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))  # of each file; that of the database is longer
        written = [write(writer, make(session_id=str(number))) for number in range(20)]
        room = written.index(False)
        assert room > 0
        assert not any(written[room:])
        assert not writer.flush(0.5)
        assert 0 < shield.counts()["store_write_failed"]
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert write(writer, make(session_id="room"))
        assert writer.flush(30)
        with closing(database.open_reader(place.database)) as connection:
            assert [(room + 1,)] == connection.execute("SELECT count(*) FROM calls").fetchall()

    in_child(program)
    assert "room" == sessions(read())[-1]


@pytest.mark.parametrize("ending", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "", "sys.exit(3)", "1 / 0"])
def test_endings(place: Place, read: Read, ending: str) -> None:
    """However a program ends right after its last call, nothing is lost."""
    run(place, f"for number in range(100): assert call(str(number))\n    {ending}".replace("\n    ", "\n"))
    assert [str(number) for number in range(100)] == sessions(read())
    assert [] == files(place.journals)


def test_tidy_exit(place: Place) -> None:
    """A program that ends as programs do leaves the database and nothing else."""
    assert 0 == run(place, "call('one')").returncode
    assert ["calls.db", "calls.db.journal"] == sorted(path.name for path in place.database.parent.iterdir())
    assert [] == files(place.journals)


def test_killed_in_the_midst(place: Place, read: Read) -> None:
    """Killed at any moment, a process has lost nothing of what it had written, and nothing is there twice."""
    program = """
        number = 0
        while True:
            number += 1
            call(f"{os.getpid()}-{number}")
            os.write(1, f"{os.getpid()}-{number}\\n".encode())
    """
    said: list[str] = []
    for pause in (0.05, 0.15, 0.3):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROGRAM) + textwrap.dedent(program)],
            env={**os.environ, "MSGTAP_STORE": str(place.database)},
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(pause)
        child.send_signal(signal.SIGKILL)
        said += (first + child.stdout.read()).decode().split("\n")[:-1]
        child.stdout.close()
        child.wait()
    found = sessions(read())
    assert len(set(found)) == len(found)
    assert set() == set(said) - set(found)
    assert len(found) <= len(said) + 3  # a call of each may have been written, and not yet said
    with closing(sqlite3.connect(place.database)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        assert [(len(found),)] == connection.execute("SELECT sum(calls) FROM rollups").fetchall()


@pytest.mark.parametrize("busy", ["", "store.flush(10)", "time.sleep(0.5)"])
def test_fork(place: Place, read: Read, busy: str) -> None:
    """A child has its own journal; calls of both are there, each once, however each ends."""
    program = f"""
        call("before")
        {busy}
        child = os.fork()
        name = "parent" if child else "child"
        for number in range(50):
            call(f"{{name}}-{{number}}")
        if child:
            os.waitpid(child, 0)
        else:
            assert store.flush(10)
            call("child-last")
            os._exit(0)
    """
    done = run(place, program)
    assert 0 == done.returncode, done.stderr
    expected = ["before", "child-last", *(f"{name}-{number}" for name in ("parent", "child") for number in range(50))]
    assert Counter(expected) == Counter(sessions(read()))


def test_fork_while_taking_in(place: Place, read: Read) -> None:
    """Forks at any moment of a busy writer harm neither the children nor their parent."""
    program = """
        over = threading.Event()
        def busy():
            number = 0
            while not over.is_set():
                call(f"parent-{number}")
                number += 1
                time.sleep(0.0005)
        thread = threading.Thread(target=busy, daemon=True)
        thread.start()
        children = []
        for number in range(20):
            time.sleep(0.02)
            child = os.fork()
            if not child:
                call(f"child-{number}")
                os._exit(0 if store.flush(20) else 1)
            children.append(child)
        assert store.off is None
        assert [0] * 20 == [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        over.set()
        thread.join()
    """
    done = run(place, program)
    assert 0 == done.returncode, done.stderr
    found = [str(name) for name in sessions(read())]
    assert len(found) == len(set(found))
    assert {f"child-{number}" for number in range(20)} == {name for name in found if name.startswith("child")}
    numbers = sorted(int(name.removeprefix("parent-")) for name in found if name.startswith("parent"))
    assert list(range(len(numbers))) == numbers


def test_fork_that_nobody_announced(place: Place, read: Read) -> None:
    """A child that has a connection of its parent's, since something else than Python forked, leaves it alone."""
    program = """
        call("parent")
        store.flush(10)
        store.begin_child()  # what Python calls in the child, without what it calls before
        assert call("child")
        assert not store.flush(1)
        os._exit(0)
    """
    done = run(place, program)
    assert 0 == done.returncode, done.stderr
    assert ["parent", "child"] == sessions(read())


def test_call_during_exit(place: Place, read: Read) -> None:
    """A call that ends while the interpreter is shutting down is taken in too."""
    program = """
        import atexit
        atexit.register(call, "late")
    """
    done = run(place, program)
    assert (0, "") == (done.returncode, done.stderr)
    assert [] == files(place.journals)
    assert ["late"] == sessions(read())
