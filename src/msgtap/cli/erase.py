"""``msgtap erase``: one user's or one session's calls leave the store, and the disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from msgtap.cli import terminal
from msgtap.cli.figures import printable
from msgtap.cli.filters import opened
from msgtap_sqlite.erase import erase as erase_rows

if TYPE_CHECKING:
    from msgtap_sqlite.erase import Erased


def erase(user: str | None, session: str | None, *, sure: bool) -> None:
    """Erase what is stored of ``user`` or of ``session``; ask first, unless that is ``sure``."""
    kind, value = ("user", user) if user is not None else ("session", session or "")
    whose = f"{kind} {printable(value)}"
    with opened() as store:
        path = terminal.home(store.path)
        calls = store.report("model", where={kind: value}).total.calls
    if not sure:
        number = "1 call" if calls == 1 else f"{calls:,} calls"
        click.confirm(f"Erase {number} of {whose} from {path}? This cannot be undone.", abort=True, err=True)
    console = terminal.errors()
    with console.status("Erasing; programs that are running are waited for"):
        erased = erase_rows(user=user, session=session)
    for line in outcome(erased, whose):
        terminal.say(console, line)


def outcome(erased: Erased, whose: str) -> Iterator[str]:
    """What was erased, and what else is to be done."""
    if erased.calls or erased.spans or erased.logs:
        yield f"Erased {erased.calls:,} calls, {erased.spans:,} spans and {erased.logs:,} log records of {whose}."
    else:
        yield f"Nothing of {whose} was stored. Where ids are hashed (MSGTAP_IDENTIFIERS), name the hash."
    if erased.journals:
        yield f"{len(erased.journals)} programs are still writing: when they have ended, erase again."
    if not erased.compacted:
        yield "The file could not be compacted, so traces remain in it: erase again when nothing else uses it."
