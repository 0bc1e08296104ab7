"""``msgtap run``: a program in a child process, observed from before its first import.

The program keeps its standard input, output and error, its signals and its exit code.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from msgtap.bootstrap import MODULES, PATH
from msgtap.configuration import ADAPTERS
from msgtap.exporting import RUN_ID

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""The shell's exit codes for a command that there is not, or that is none."""

_KEYS = frozenset({signal.SIGINT, signal.SIGQUIT})
_AWAITED = _KEYS | {
    signal.SIGCHLD,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
}
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class CannotRun(Exception):  # noqa: N818  # it says what is the matter
    """The command could not be started; the text is a line for the user.

    Attributes:
        code: the exit code that a shell would give.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def run(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run ``command`` to its end, and pass on what signals come meanwhile.

    Returns:
        Its exit code, or the number of the signal that ended it, negative.

    Raises:
        CannotRun: it could not be started.
    """
    # Blocked, they wait for `_follow`: none is lost between the start of the program and our reading them.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, nobody hears of a child's end
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    try:
        return _follow(_start(program(command), environ, mask))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def program(command: Sequence[str]) -> list[str]:
    """The command line: ``-m module`` and ``script.py`` are run by this Python.

    Raises:
        CannotRun: there is no such script.
    """
    first = command[0]
    if first == "-m":
        return [sys.executable, *command]
    if not first.endswith(".py") or shutil.which(first):
        return list(command)
    if not Path(first).is_file():
        raise CannotRun(f"cannot run {first}: no such file", NOT_FOUND)
    return [sys.executable, *command]


def environment(environ: Mapping[str, str], run_id: str) -> dict[str, str]:
    """What the program, and every Python that it starts, finds in its environment."""
    path = os.pathsep.join(part for part in (PATH, environ.get("PYTHONPATH")) if part)
    return {**environ, "PYTHONPATH": path, RUN_ID: run_id, MODULES: ",".join(clients())}


def clients() -> list[str]:
    """The modules whose calls are seen."""
    return sorted({point.name for point in entry_points(group=ADAPTERS)})


def _start(arguments: Sequence[str], environ: Mapping[str, str], mask: Collection[int]) -> int:
    try:
        return os.posix_spawnp(arguments[0], list(arguments), environ, setsigmask=mask, setsigdef=_IGNORED_BY_PYTHON)
    except FileNotFoundError as error:
        missing = (
            "the interpreter that its first line names is not there"
            if shutil.which(arguments[0])
            else "no such command"
        )
        raise CannotRun(f"cannot run {arguments[0]}: {missing}", NOT_FOUND) from error
    except OSError as error:
        if error.errno == errno.ENOEXEC and arguments[0].endswith(".py"):  # executable, but without a #! line
            return _start([sys.executable, *arguments], environ, mask)
        raise CannotRun(f"cannot run {arguments[0]}: {error.strerror}", NOT_EXECUTABLE) from error


def _follow(child: int) -> int:
    while True:
        number, sent = _next_signal()
        if number == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
        elif sent:
            os.kill(child, number)


def _next_signal() -> tuple[int, bool]:
    """The next signal, and whether it came from a process: a terminal sends what it sends to the program too."""
    if sys.platform == "darwin":  # which does not say where it came from
        number = signal.sigwait(_AWAITED)
        return number, number not in _KEYS or not sys.stdin.isatty()
    received = signal.sigwaitinfo(_AWAITED)
    return received.si_signo, received.si_code <= 0  # as SI_USER is; a terminal's are SI_KERNEL


def end_as(code: int) -> None:
    """End this process as the program ended: with its exit code, or by the same signal."""
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program's core file, if any, is the interesting one
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        sys.stdout.flush()
        os.kill(os.getpid(), -code)
    sys.exit(code if code >= 0 else 128 - code)
