"""A program under `msgtap run` is the same program: its input, output, signals and exit code are its own."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from msgtap.bootstrap import PATH

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MSGTAP = [sys.executable, "-m", "msgtap.cli"]
RUN = [*MSGTAP, "run", "--no-summary", "--"]
TIMEOUT = 60


@pytest.fixture(autouse=True)
def _store_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written where the user's calls are."""
    monkeypatch.setenv("MSGTAP_STORE", str(tmp_path / "calls.db"))


def done(command: list[str], code: str, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run code to its end."""
    command = [*command, sys.executable, "-c", code, *arguments]
    return subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT, check=False)


@pytest.mark.parametrize("code", [0, 3, 255])
def test_exit_code(code: int) -> None:
    """The program's exit code is that of the command."""
    assert code == done(RUN, f"raise SystemExit({code})").returncode


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGINT", "SIGABRT", "SIGSEGV", "SIGUSR1", "SIGPIPE"])
def test_ended_by_a_signal(name: str) -> None:
    """Where a signal ends the program, the same signal ends the command."""
    number = getattr(signal, name)
    default = "" if number == signal.SIGKILL else f"signal.signal({number:d}, signal.SIG_DFL); "
    assert -number == done(RUN, f"import os, signal; {default}os.kill(os.getpid(), {number:d})").returncode


def test_bytes_pass_through() -> None:
    """What goes in comes out, byte by byte, on each of the three streams."""
    code = (
        "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data); sys.stderr.buffer.write(data[::-1])"
    )
    data = bytes(range(256)) * 400
    found = done(RUN, code, data=data)
    assert (0, data, data[::-1]) == (found.returncode, found.stdout, found.stderr)


STATE = """
import os, signal, sys

def inode(number):
    try:
        return os.fstat(number).st_ino
    except OSError:
        return None

names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE", "SIGCHLD", "SIGUSR1")
print([str(signal.getsignal(getattr(signal, name))) for name in names], signal.pthread_sigmask(signal.SIG_BLOCK, []))
print(os.getpgrp(), os.getsid(0), sys.path[1:], sys.argv, sys.flags, [inode(number) for number in range(3, 9)])
"""


def test_same_world() -> None:
    """The program has the signals, the group, the files, the paths and the arguments that it has without us."""
    assert done([], STATE, "--x", "y").stdout == done(RUN, STATE, "--x", "y").stdout


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A script that says how it was started."""
    path = tmp_path / "app.py"
    path.write_text("import sys; print(sys.argv[1:], __name__)\n")
    return path


@pytest.mark.parametrize("executable", [False, True])
@pytest.mark.parametrize("first_line", ["", f"#!{sys.executable}\n"])
def test_script(script: Path, first_line: str, *, executable: bool) -> None:
    """A script is run as it is if it can be, else by this Python."""
    script.write_text(first_line + script.read_text())
    script.chmod(0o755 if executable else 0o644)
    found = subprocess.run([*RUN, str(script), "-v"], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (0, "['-v'] __main__\n", "") == (found.returncode, found.stdout, found.stderr)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["--", "-m", "app", "-v"], "['-v']"), (["-m", "app", "-v"], "['-v']"), (["app.py", "--help"], "['--help']")],
)
def test_arguments(script: Path, arguments: list[str], expected: str) -> None:
    """What follows the program's name is the program's, and ``-m`` is Python's."""
    command = [*MSGTAP, "run", "--no-summary", *arguments]
    found = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (f"{expected} __main__\n", "") == (found.stdout, found.stderr)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("no-such-command", 127, "cannot run no-such-command: no such command"),
        ("./nowhere.py", 127, "cannot run ./nowhere.py: no such file"),
        ("/", 126, "cannot run /: Permission denied"),
        ("{tmp_path}/bad", 127, "cannot run {tmp_path}/bad: the interpreter that its first line names is not there"),
    ],
)
def test_cannot_run(tmp_path: Path, command: str, code: int, said: str) -> None:
    """What cannot be run is named in a line, with the exit code that a shell would give."""
    (tmp_path / "bad").write_text("#!/no/such/interpreter\n")
    (tmp_path / "bad").chmod(0o755)
    command, said = command.format(tmp_path=tmp_path), said.format(tmp_path=tmp_path)
    found = subprocess.run([*RUN, command], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (code, "", f"msgtap: {said}\n") == (found.returncode, found.stdout, found.stderr)


WAITING = """
import signal, sys
def handle(number, _):
    print(signal.Signals(number).name, flush=True)
    sys.exit(7)
signal.signal(getattr(signal, sys.argv[1]), handle)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGINT", "SIGQUIT"])
def test_signals_reach_the_program(name: str) -> None:
    """A signal that somebody sends to the command is the program's to handle."""
    command = [*RUN, sys.executable, "-c", WAITING, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        process.send_signal(getattr(signal, name))
        assert (f"{name}\n", 7) == (process.stdout.read(), process.wait(TIMEOUT))


COUNTING = """
import signal, sys
seen = []
signal.signal(signal.SIGINT, lambda *_: (seen.append(1), print("interrupted", flush=True)))
print("ready", flush=True)
while (line := sys.stdin.readline()) != "done\\n":
    pass
print("seen", len(seen), flush=True)
"""


def reading(descriptor: int) -> Iterator[str]:
    """The lines that come from a terminal."""
    with os.fdopen(descriptor, "rb", closefd=False) as stream:
        while True:
            try:
                yield stream.readline().decode().strip()
            except OSError:  # the other end is closed
                return


def test_keys_reach_the_program_once() -> None:
    """Ctrl-C is the terminal's affair: the program gets it, once, and the command stays to the end."""
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [*RUN, sys.executable, "-c", COUNTING])  # noqa: S606  # as wanted
    try:
        lines = reading(terminal)
        assert any(line == "ready" for line in lines)
        os.write(terminal, b"\x03")
        assert any(line.endswith("interrupted") for line in lines)
        os.write(terminal, b"done\n")
        assert "seen 1" == next(line for line in lines if line.startswith("seen"))
    finally:
        os.close(terminal)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_children_are_observed_too() -> None:
    """What the program starts finds the same environment; what it looked for itself is still on its path."""
    code = "import os; print(os.environ['PYTHONPATH'])"
    environ = {**os.environ, "PYTHONPATH": f"{os.pathsep}/mine"}
    found = subprocess.run(
        [*RUN, sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert f"{PATH}{os.pathsep}{os.pathsep}/mine\n" == found.stdout


def test_nothing_seen() -> None:
    """A program without a call gets one line that says what to check."""
    found = done([*MSGTAP, "run", "--"], "print('hello')")
    assert (0, b"hello\n", 1) == (found.returncode, found.stdout, found.stderr.count(b"\n"))
    assert found.stderr.startswith(b"msgtap: no call was seen; watched: httpx or httpx2 in each Python that has msgtap")


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where msgtap is switched off, the line says so."""
    monkeypatch.setenv("MSGTAP_DISABLED", "true")
    found = done([*MSGTAP, "run", "--"], "import httpx")
    expected = b"msgtap: nothing was observed: MSGTAP_DISABLED or OTEL_SDK_DISABLED is set\n"
    assert (0, expected) == (found.returncode, found.stderr)
