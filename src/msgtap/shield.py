"""The one place where our exceptions end: counted, logged once, never raised into the program.

It also counts what was cut or left out, so that nothing is lost in silence.
"""

from __future__ import annotations

import functools
import logging
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

LOGGER = logging.getLogger("msgtap")
# Without a handler of its own, logging's last resort would print into a program that configured no logging.
LOGGER.addHandler(logging.NullHandler())

_counts: Counter[str] = Counter()
_logged: set[str] = set()


def count(reason: str) -> None:
    """Count something that was cut, left out or failed, under a short ``reason``."""
    _counts[reason] += 1


def counts() -> Mapping[str, int]:
    """What has been counted in this process so far, by reason."""
    return dict(_counts)


def failed(place: str, error: Exception) -> None:
    """Count a failure of our own, and log where it was the first time that ``place`` fails so.

    Neither the text of ``error`` nor the exceptions that it came from are logged: they may be the program's, and repeat
    what it sent, its key even. For the same reason the lines of source are left out.
    """
    try:
        count("internal_error")
        key = f"{place}: {type(error).__name__}"
        if key not in _logged:
            _logged.add(key)
            LOGGER.warning("msgtap failed in %s and let the call pass (said once)%s", key, _frames(error))
    except Exception:  # noqa: BLE001, S110  # a logging handler that raises: there is nobody left to tell
        pass


def _frames(error: Exception) -> str:
    stack = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False)
    return "".join(f'\n  File "{frame.filename}", line {frame.lineno}, in {frame.name}' for frame in stack)


def attempt(function: Callable[..., R | None], *arguments: object, default: R | None = None) -> R | None:
    """``function(*arguments)``, or ``default`` where that raises an `Exception`.

    What is no `Exception` (cancellation, ``KeyboardInterrupt``, ``SystemExit``) belongs to the program and passes.
    """
    try:
        return function(*arguments)
    except Exception as error:  # noqa: BLE001  # this is the place
        failed(getattr(function, "__qualname__", repr(type(function))), error)
        return default


def shielded(function: Callable[P, R]) -> Callable[P, R | None]:
    """``function``, returning `None` where it would have raised an `Exception`."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  # and so is this: a call less on the path of every chunk
            failed(function.__qualname__, error)
            return None

    return guarded
