"""``msgtap tail``: a line for each call, as it arrives."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping

import click
from rich.text import Text

from msgtap.cli import terminal
from msgtap.cli.figures import UNKNOWN, clock, count, duration, fitted, money, printable, tokens_in, tokens_out
from msgtap.cli.filters import opened, resolved
from msgtap.cli.machine import call_facts
from msgtap_sqlite.place import StoreError, locate
from msgtap_sqlite.reader import Call, Store, Tokens

_INTERVAL = 0.25
"""Seconds between two looks at the store."""
_LOOKS_UNTIL_CATCHING_UP = 8
_DATE = re.compile(r"-\d{8}$")
_TOKENS = 11
_WIDE = 100
"""A terminal of fewer characters than these shows less of the model and of the outcome."""
_NARROW, _BROAD = (17, 13), (26, 20)


def tail(number: int, given: Mapping[str, str | None], *, follow: bool, as_json: bool) -> None:
    """Print the last ``number`` calls, and those that follow."""
    if follow:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is how it ends, and no error
    console = terminal.output()
    width = console.width if console.is_terminal else None
    with _opened(wait=follow) as store:
        if width is not None and not as_json:
            terminal.say(terminal.errors(), f"store  {terminal.home(store.path)}", "dim")
            terminal.say(console, head(width))
        for call in calls(store, number, resolved(store, given), follow=follow):
            if as_json:
                click.echo(json_line(call))
            else:
                terminal.say(console, line(call, width))


def _opened(*, wait: bool) -> Store:
    """The store; where there is none yet, ``wait`` for it."""
    database = locate(os.environ).database
    said = False
    while True:
        try:
            return opened()
        except StoreError:
            if not wait or database.exists():
                raise
        if not said:
            terminal.say(
                terminal.errors(), f"waiting for the first call; there is no {terminal.home(database)} yet", "dim"
            )
            said = True
        time.sleep(_INTERVAL)


def calls(
    store: Store,
    number: int,
    where: Mapping[str, str],
    *,
    follow: bool,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Call]:
    """The last ``number`` calls in order of arrival, then each that follows."""
    seen = store.last_id()
    for call in store.last_calls(where=where, limit=number) if number else ():
        seen = max(seen, call.id)
        yield call
    looks = 0
    while follow:
        found = store.calls_after(seen, where=where)
        for call in found:
            seen = call.id
            yield call
        looks += 1
        if not found:
            pause(_INTERVAL)
        if looks % _LOOKS_UNTIL_CATCHING_UP == 0:
            store.catch_up()


def head(width: int) -> Text:
    """What stands above the lines on a terminal of ``width`` characters."""
    model, outcome = _widths(width)
    return _cut(
        Text(
            f"{'ended':8} {'model':{model}} {'in→out':>{_TOKENS}} {'first':>6} {'time':>6} {'outcome':{outcome}}"
            " cost session user",
            "dim",
        ),
        width,
    )


def line(call: Call, width: int | None) -> Text:
    """A call in one line: of ``width`` characters at most, or as long as it takes where `None`."""
    model_width, outcome_width = _widths(width)
    model = _DATE.sub("", printable(call.model or UNKNOWN))
    if (model_width, outcome_width) == _NARROW:
        model = model.rpartition("/")[2]
    text = Text.assemble(
        (clock(call.ended_at), "dim"),
        f" {_fit(model, model_width, width)}",
        f" {_tokens(call.tokens):>{_TOKENS}}",
        f" {duration(call.first_token):>6}",
        f" {duration(call.duration):>6} ",
        (_fit(outcome(call), outcome_width, width), _outcome_style(call)),
        (f" {who_called(call)}", "dim"),
    )
    text.rstrip()
    return text if width is None else _cut(text, width)


def _tokens(tokens: Tokens) -> str:
    return f"{count(tokens_in(tokens))}→{count(tokens_out(tokens))}" if tokens.total else UNKNOWN


def _widths(width: int | None) -> tuple[int, int]:
    """Of the model, and of the outcome."""
    return _NARROW if width is not None and width < _WIDE else _BROAD


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text


def _fit(text: str, width: int, terminal: int | None) -> str:
    """``text`` in its column; where nothing is cut, a long one pushes the rest to the right."""
    return f"{text:{width}}" if terminal is None else fitted(text, width)


def outcome(call: Call) -> str:
    """How a call ended: what failed, who stopped it, or the model's reason; a retry's number."""
    said = (call.error or "").rpartition(".")[2].removesuffix("_error") or call.ending or call.stop_reason or UNKNOWN
    return printable(said) + (f" #{call.attempt + 1}" if call.attempt else "")


def _outcome_style(call: Call) -> str:
    return "red" if call.error else "yellow" if call.ending else ""


def who_called(call: Call) -> str:
    """Cost, session and user, as far as they are known."""
    cost = None if call.cost is None else money(call.cost)
    return " ".join(printable(part) for part in (cost, call.session, call.user) if part)


def json_line(call: Call) -> str:
    """A call as a line of JSON."""
    return json.dumps(call_facts(call))
