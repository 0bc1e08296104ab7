"""The command ``msgtap``."""

from __future__ import annotations

import sys


def main() -> None:
    """The console script. It needs the extra ``cli``, which a service that only instruments does without."""
    try:
        from msgtap.cli.commands import msgtap  # noqa: PLC0415  # as the docstring says
    except ModuleNotFoundError as error:
        if error.name == "fcntl":
            sys.exit("msgtap's commands read the embedded store, which there is on POSIX systems only")
        if error.name not in ("click", "rich"):
            raise
        sys.exit("msgtap's commands need one more package: pip install 'msgtap[cli]'")
    msgtap(prog_name="msgtap")
