"""``msgtap report``: calls added up, from the store to standard output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import click
from rich.text import Text

from msgtap.cli import terminal
from msgtap.cli.filters import BEGIN, opened, resolved, said
from msgtap.cli.machine import as_csv, as_json
from msgtap.cli.table import note, table
from msgtap_sqlite.reader import Dimension, Report

_ROWS = 20
"""Rows of a table, unless the user says how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked; ``limit`` 0 is no limit, `None` what suits the form."""

    by: Dimension
    since: datetime | None
    until: datetime | None
    given: Mapping[str, str | None]
    limit: int | None


def show(question: Question, form: str | None) -> None:
    """Answer the question on standard output, as a table, or as ``json`` or ``csv``."""
    limit = (None if form else _ROWS) if question.limit is None else question.limit or None
    with opened() as store:
        where = resolved(store, question.given)
        found = store.report(question.by, since=question.since, until=question.until, where=where, limit=limit)
        path = terminal.home(store.path)
    if form == "json":
        click.echo(as_json(found, question.by, question.since, question.until, where))
    elif form == "csv":
        click.echo(as_csv(found), nl=False)
    else:
        _print(found, question, where, path)


def _print(found: Report, question: Question, where: Mapping[str, str], path: str) -> None:
    console = terminal.output()
    if not found.total.calls:
        raise click.ClickException(_nothing(question, where, path))
    terminal.say(console, _title(question, where))
    for line in table(found, question.by, width=console.width, ascii_only=terminal.is_ascii(console)):
        terminal.say(console, line)
    if (rest := note(found)) is not None:
        terminal.say(console, rest, "dim")
    terminal.say(terminal.errors(), f"store  {path}", "dim")


def _title(question: Question, where: Mapping[str, str]) -> Text:
    title = Text(f"Calls by {question.by}", style="bold")
    for word, moment in (("since", question.since), ("until", question.until)):
        if moment is not None:
            title.append(f"  {word} {moment.astimezone():%Y-%m-%d %H:%M}", style="dim")
    title.append(f"  {said(where)}" if where else "", style="dim")
    return title


def _nothing(question: Question, where: Mapping[str, str], path: str) -> str:
    if not where and question.since is None and question.until is None:
        return f"there are no calls in {path} yet; {BEGIN}"
    names = [name for name in where if name != "run"]
    hint = f"; what there is: msgtap report --by {names[0]}" if names else ""
    period = "in that time" if question.since or question.until else ""
    asked = " ".join(part for part in (said(where), period) if part)
    return f"no calls {asked}{hint}"
