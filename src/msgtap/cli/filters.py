"""The options that narrow a report or a tail, and what they mean to the store."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click
from click.shell_completion import CompletionItem

from msgtap.cli.figures import printable
from msgtap.cli.period import moment
from msgtap_sqlite.place import StoreError, locate
from msgtap_sqlite.reader import Store, open_reader

F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    _ParamType = click.ParamType[datetime]
else:
    _ParamType = click.ParamType  # before click 8.4 it took no type

ANY = "*"
BEGIN = "begin with: msgtap run -- python your_app.py"
LAST = "last"
"""Instead of a run's id."""
ID_LENGTH = 12
"""Of a run's id, in characters: unique on this machine, and short enough to be typed."""
_COMPLETED = 50


class Moment(_ParamType):
    """A point in time, as `msgtap.cli.period` reads it."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ANN401
        """The point in time, aware."""
        if isinstance(value, datetime):
            return value
        try:
            return moment(value, datetime.now(UTC))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True, slots=True)
class _Filter:
    name: str
    help: str
    metavar: str = "PATTERN"


_FILTERS = (
    _Filter("model", "Only calls that this model answered; * stands for anything."),
    _Filter("service", "Only calls of this service: OTEL_SERVICE_NAME, else the script's name."),
    _Filter("session", "Only calls of this session.", "ID"),
    _Filter("user", "Only calls of this user.", "ID"),
    _Filter("provider", "Only calls to this provider."),
    _Filter("client", "Only calls by this HTTP client."),
)


def filters(command: F) -> F:
    """The options, on a click command."""
    error = click.option(
        "--error",
        metavar="[TYPE]",
        is_flag=False,
        flag_value=ANY,
        help="Only calls that failed, or failed so.",
        shell_complete=_completing("error"),
    )
    run = click.option("--run", metavar="ID|last", help="Only calls of this `msgtap run`; the start of its id will do.")
    for option in (run, error, *map(_option, reversed(_FILTERS))):
        command = option(command)
    return command


def _option(of: _Filter) -> Callable[[F], F]:
    return click.option(f"--{of.name}", metavar=of.metavar, help=of.help, shell_complete=_completing(of.name))


class _Completing(Protocol):
    def __call__(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]: ...


def _completing(dimension: Any) -> _Completing:  # noqa: ANN401  # a name of `Dimension`, from a table of names
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
        try:
            with open_reader() as store:
                rows = store.report(dimension, limit=_COMPLETED).rows
        except StoreError:
            return []
        return [CompletionItem(row.key) for row in rows if row.key and row.key.startswith(incomplete)]

    return complete


def opened() -> Store:
    """The store where the environment says.

    Raises:
        StoreError: it cannot be read; where there is none yet, the text says how to get one.
    """
    try:
        return open_reader()
    except StoreError as error:
        if locate(os.environ).database.exists():
            raise
        raise StoreError(f"{error}; {BEGIN}") from error


def resolved(store: Store, given: Mapping[str, str | None]) -> dict[str, str]:
    """The filters that were given, as the store takes them: ``last`` becomes the id of the last run.

    Raises:
        StoreError: there has been no run yet.
    """
    where = {name: value for name, value in given.items() if value is not None}
    run = where.get("run")
    if run == LAST:
        last = store.last_calls(where={"run": ANY}, limit=1)
        if not last:
            raise StoreError(f"no run has made a call yet; {BEGIN}")
        where["run"] = last[0].run or ""
    elif run and len(run) < ID_LENGTH and ANY not in run:
        where["run"] = f"{run}{ANY}"
    return where


def said(where: Mapping[str, str]) -> str:
    """The filters as they are typed."""
    return " ".join(f"--{name} {shlex.quote(printable(value))}" for name, value in where.items())
