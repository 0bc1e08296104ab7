"""``msgtap run``: a program in a child process, observed from before its first import, and a summary when it ends.

The program keeps its standard input, output and error, its signals and its exit code.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from types import FrameType

from msgtap.bootstrap import MODULES, PATH, RUN_ID
from msgtap.configuration import ADAPTERS

# A terminal sends these to the whole group, so the program has them already.
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)


def run(command: Sequence[str]) -> tuple[str, int]:
    """Run ``command`` to its end.

    Returns:
        The run's id, under which its calls are in the store; and the exit code, negative for a signal's number.

    Raises:
        OSError: it could not be started.
    """
    run_id = uuid.uuid4().hex
    child = subprocess.Popen(program(command), env=environment(os.environ, run_id))  # noqa: S603  # it is what the user asked for
    with _signals_to(child):
        return run_id, child.wait()


def program(command: Sequence[str]) -> list[str]:
    """The command line: ``-m module`` and ``script.py`` are run by this Python."""
    first = command[0]
    if first == "-m" or (first.endswith(".py") and not os.access(first, os.X_OK)):
        return [sys.executable, *command]
    return list(command)


def environment(environ: Mapping[str, str], run_id: str) -> dict[str, str]:
    """What the program, and every Python that it starts, gets in addition."""
    modules = ",".join(sorted({point.name for point in entry_points(group=ADAPTERS)}))
    path = os.pathsep.join(part for part in (PATH, environ.get("PYTHONPATH")) if part)
    return {**environ, "PYTHONPATH": path, RUN_ID: run_id, MODULES: modules}


@contextmanager
def _signals_to(child: subprocess.Popen[bytes]) -> Iterator[None]:
    def forward(number: int, _: FrameType | None) -> None:
        child.send_signal(number)

    handlers = {number: signal.signal(number, forward) for number in _FORWARDED}
    handlers |= {number: signal.signal(number, signal.SIG_IGN) for number in _FROM_TERMINAL}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def end_as(code: int) -> None:
    """End this process as the program ended: with its exit code, or by the same signal."""
    if code >= 0:
        sys.exit(code)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program's core file, if any, is the interesting one
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    time.sleep(1)
    sys.exit(128 - code)
