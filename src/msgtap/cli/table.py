"""A report as a table: figures by column, the calls as bars. What there is no room for is left out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from msgtap.cli.bars import bar
from msgtap.cli.figures import UNKNOWN, count, duration, fitted, hour, money, printable, share, tokens_in, tokens_out
from msgtap_sqlite.reader import Dimension, Report, Row, Tokens

_WANTED_KEY, _WIDEST_KEY = 28, 56
_NARROWEST_BAR, _WIDEST_BAR = 4, 20
_OTHERS = "(others)"
_NOTHING = frozenset({"", "0%", UNKNOWN})


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of figures.

    Args:
        head: its two lines.
        cell: what it says of a row.
        rank: the higher, the sooner it makes room.
        style: of its cells.
    """

    head: tuple[str, str]
    cell: Callable[[Row], str]
    rank: int = 0
    style: str = ""

    def width(self, rows: Sequence[Row]) -> int:
        """Of its widest text."""
        return max(len(text) for text in (*self.head, *map(self.cell, rows)))


_CALLS = _Column(("", "calls"), lambda row: f"{row.calls:,}")
_COLUMNS = (
    _Column(("", "err"), lambda row: f"{row.errors:,}" if row.errors else "", 5, style="red"),
    _Column(("tokens", "in"), lambda row: count(tokens_in(row.tokens)), 2),
    _Column(("", "cached"), lambda row: share(row.tokens.cache_read, tokens_in(row.tokens)), 7),
    _Column(("", "out"), lambda row: count(tokens_out(row.tokens)), 1),
    _Column(("", "thought"), lambda row: share(row.tokens.thinking, tokens_out(row.tokens)), 9),
    _Column(("", "cost"), lambda row: money(row.cost, partly=row.priced_calls < row.calls), 4),
    _Column(("time", "p50"), lambda row: duration(row.p50), 3),
    _Column(("", "p95"), lambda row: duration(row.p95), 0),
    _Column(("first", "token"), lambda row: duration(row.first_token_p50), 6),
    _Column(("first", "p95"), lambda row: duration(row.first_token_p95), 8),
)


def table(report: Report, by: Dimension, *, width: int, ascii_only: bool = False) -> Iterator[Text]:
    """The report by ``by``, line by line, in ``width`` characters."""
    rows = [(_key(row, by), row) for row in report.rows]
    if by == "hour":
        rows.reverse()  # the latest next to the prompt
    rows += [(_OTHERS, row) for row in _others(report)]
    most = max((row.calls for row in report.rows), default=0)
    layout = _Layout(rows, report.total, by, width)
    yield from layout.head(by)
    yield layout.rule("-" if ascii_only else "─")
    for key, row in rows:
        yield layout.line(key, row, "" if key == _OTHERS else bar(row.calls, most, layout.bar, ascii_only=ascii_only))
    yield layout.rule("-" if ascii_only else "─")
    total = layout.line("total", report.total, "")
    total.stylize("bold")
    yield total


class _Layout:
    """Which columns there is room for, and how wide they are."""

    def __init__(self, rows: Sequence[tuple[str, Row]], total: Row, by: str, width: int) -> None:
        shown = [total, *(row for _, row in rows)]
        longest = max(cell_len(key) for key in ("total", by, *(key for key, _ in rows)))
        wanted = min(longest, _WANTED_KEY)
        columns = [(column, column.width(shown)) for column in _COLUMNS if column.cell(total) not in _NOTHING]
        self.calls = _CALLS.width(shown)
        while (room := _room(width, self.calls, columns)) < wanted and columns:
            columns.remove(max(columns, key=lambda sized: sized[0].rank))
        self.columns = columns
        self.key = min(longest, max(room, wanted), _WIDEST_KEY)
        self.bar = max(_NARROWEST_BAR, min(_WIDEST_BAR, room - self.key + _NARROWEST_BAR))

    def head(self, by: Dimension) -> Iterator[Text]:
        """The two lines above the figures."""
        for which, name in enumerate(("", by)):
            line = self._line(name, _CALLS.head[which], "", [column.head[which] for column, _ in self.columns])
            yield Text(line.plain, "dim")

    def rule(self, mark: str) -> Text:
        """A line across."""
        return Text(mark * (self.key + self.calls + self.bar + 2 + sum(width + 1 for _, width in self.columns)), "dim")

    def line(self, key: str, row: Row, length: str) -> Text:
        """A row, with its bar."""
        return self._line(key, _CALLS.cell(row), length, [column.cell(row) for column, _ in self.columns])

    def _line(self, key: str, calls: str, length: str, cells: Sequence[str]) -> Text:
        line = Text(f"{fitted(key, self.key)} {calls:>{self.calls}} ")
        line.append(f"{length:{self.bar}}", "cyan")
        for (column, width), cell in zip(self.columns, cells, strict=True):
            line.append(f" {cell:>{width}}", column.style)
        return line


def _room(width: int, calls: int, columns: Sequence[tuple[_Column, int]]) -> int:
    """What is left for the key beside the narrowest bar."""
    return width - calls - _NARROWEST_BAR - 2 - sum(width + 1 for _, width in columns)


def _key(row: Row, by: Dimension) -> str:
    if row.key is None:
        return "(no error)" if by == "error" else f"(no {by})"
    return hour(row.key) if by == "hour" else printable(row.key)


def _others(report: Report) -> Iterator[Row]:
    """What the rows leave of the total, where there are more of them than were asked for."""
    total, rows = report.total, report.rows
    calls = total.calls - sum(row.calls for row in rows)
    if calls <= 0:
        return
    names = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "thinking")
    left = {name: getattr(total.tokens, name) - sum(getattr(row.tokens, name) for row in rows) for name in names}
    priced = total.priced_calls - sum(row.priced_calls for row in rows)
    yield Row(
        key=None,
        calls=calls,
        errors=total.errors - sum(row.errors for row in rows),
        tokens=Tokens(**left),
        cost=(total.cost or 0) - sum(row.cost or 0 for row in rows) if priced else None,
        priced_calls=priced,
        p50=None,
        p95=None,
        first_token_p50=None,
        first_token_p95=None,
    )


def note(report: Report) -> str | None:
    """What the table's cost leaves out."""
    total = report.total
    unpriced = total.calls - total.priced_calls
    if not total.calls or not unpriced:
        return None
    if total.cost is None:
        return "Cost is unknown: no answer told it."
    return f"+ the cost of {unpriced:,} more calls is unknown: their answers did not tell it."
