"""The command ``msgtap run``: what the program's environment becomes, and what is said when it has ended."""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections.abc import Sequence

import click

from msgtap.cli import terminal
from msgtap.cli.filters import ID_LENGTH
from msgtap.cli.run import CannotRun, clients, end_as, environment, run
from msgtap.cli.summary import lines
from msgtap.configuration import read_settings
from msgtap.exporting import SIGNALS, STORE_NAMES, exporter_names
from msgtap.settings import SettingsError
from msgtap_sqlite.database import inspect
from msgtap_sqlite.place import StoreError, locate, prepare
from msgtap_sqlite.reader import open_reader
from msgtap_sqlite.retention import limits


def observed(ctx: click.Context, command: Sequence[str], service: str | None, *, summary: bool) -> None:
    """Run ``command`` observed, sum its calls up unless that is not wanted, and end as it has ended."""
    disabled = _checked()
    run_id = uuid.uuid4().hex[:ID_LENGTH]
    environ = environment(os.environ, run_id)
    if service:
        environ["OTEL_SERVICE_NAME"] = service
    usable = _usable()
    began = time.monotonic()
    try:
        code = run(command, environ)
    except CannotRun as error:
        click.echo(f"msgtap: {error}", err=True)
        ctx.exit(error.code)
    try:
        if summary and usable:
            _say(run_id, time.monotonic() - began, disabled=disabled)
    finally:
        end_as(code)


def _checked() -> bool:
    """Whether msgtap is switched off. A setting that means nothing is said here, once, and not by every process.

    Raises:
        SettingsError: there is one.
    """
    try:
        limits(os.environ)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    return read_settings().disabled


def _usable() -> bool:
    """Whether calls can be stored; if not, that is said before the program begins, which runs all the same."""
    try:
        place = locate(os.environ)
        prepare(place)
        inspect(place.database)
    except (StoreError, sqlite3.Error) as error:
        terminal.say(terminal.errors(), f"msgtap: nothing will be stored: {error}")
        return False
    return True


def _say(run_id: str, seconds: float, *, disabled: bool) -> None:
    console = terminal.errors()
    try:
        with open_reader() as store:
            found = store.run_summary(run_id)
            path = terminal.home(store.path)
    except sqlite3.Error as error:
        terminal.say(console, f"msgtap: the store cannot be read: {error}")
        return
    except StoreError as error:
        unused = not locate(os.environ).database.exists()
        terminal.say(console, _nothing(disabled=disabled) if unused else f"msgtap: {error}")
        return
    if not found.total.calls:
        terminal.say(console, _nothing(disabled=disabled))
        return
    for line in lines(found, seconds, path, _exported()):
        if console.is_terminal:
            line.truncate(console.width, overflow="ellipsis")
        terminal.say(console, line)


def _nothing(*, disabled: bool) -> str:
    if disabled:
        return "msgtap: nothing was observed: MSGTAP_DISABLED or OTEL_SDK_DISABLED is set"
    modules = " or ".join(clients())
    return f"msgtap: no call was seen; watched: {modules} in each Python that has msgtap, for POST …/v1/messages"


def _exported() -> list[str]:
    """Where else the calls went."""
    named = {name for signal in SIGNALS for name in exporter_names(signal, os.environ)}
    return sorted(named - set(STORE_NAMES))
