"""Where the commands write: tables and lines on standard output, what is said about them on standard error."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

_ASCII = str.maketrans({"…": "~", "→": ">", "–": "-", "·": "|", "─": "-"})


def output() -> Console:
    """Standard output; colours only on a terminal, and never where ``NO_COLOR`` is set."""
    return _console(stderr=False)


def errors() -> Console:
    """Standard error."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    # A name that the terminal's encoding lacks is no reason to fail.
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def is_ascii(console: Console) -> bool:
    """Whether only ASCII can be shown."""
    return not console.encoding.lower().startswith("utf")


def say(console: Console, line: Text | str, style: str = "") -> None:
    """Print a line as it is, however long; with its typography in ASCII where the console has no other."""
    text = Text(line) if isinstance(line, str) else line
    if is_ascii(console):
        text.plain = text.plain.translate(_ASCII)  # character for character, so that styles stay in place
    console.print(text, style=style, soft_wrap=True)


def home(path: Path) -> str:
    """A path as one types it: below the home folder it begins with ``~``."""
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):  # it is elsewhere; or there is no home
        return str(path)
