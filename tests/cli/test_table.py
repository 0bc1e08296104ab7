"""A report as a table, and what it leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len

from msgtap.cli.table import note, table
from msgtap_sqlite.reader import Report, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgtap_sqlite.reader import Row

SONNET, ROUTED, OPUS = "claude-sonnet-5-20260901", "anthropic/claude-sonnet-5", "claude-opus-4-1-20250805"


@pytest.fixture
def models(make_row: Callable[..., Row]) -> Report:
    """Three models and calls that no model answered; a limit has left some rows out."""
    rows = (
        make_row(SONNET, 2410, errors=12, cost=1.2345, priced_calls=1204),
        make_row(ROUTED, 812, cost=0.0421, priced_calls=812, p50=0.247, p95=1.78),
        make_row(OPUS, 44, errors=44, p50=14.8, p95=107.0, first_token_p50=None, first_token_p95=None),
        make_row(None, 3, errors=3, p50=0.00123, p95=0.009, first_token_p50=None, first_token_p95=None),
    )
    return Report(rows=rows, total=make_row(None, 4469, errors=59, cost=1.2766, priced_calls=2016))


def drawn(report: Report, width: int, by: str = "model", *, ascii_only: bool = False) -> list[str]:
    """The lines of a table, as text."""
    return [line.plain.rstrip() for line in table(report, by, width=width, ascii_only=ascii_only)]  # type: ignore[arg-type]


def test_80_columns(models: Report) -> None:
    """In 80 columns whole model names, and the figures that matter most."""
    assert [
        "                                          tokens                time       first",
        "model                     calls       err     in   out    cost   p50   p95 token",
        "─" * 80,
        "claude-sonnet-5-20260901  2,410 █████  12  16.4M  453k  $1.23+ 1.23s 8.91s 420ms",
        "anthropic/claude-sonnet-5   812 █▋         5.53M  153k $0.0421 247ms 1.78s 420ms",
        "claude-opus-4-1-20250805     44 ▏      44   300k 8,272       – 14.8s 1m47s     –",
        "(no model)                    3 ▏       3  20.4k   564       –   1ms   9ms     –",
        "(others)                  1,200            8.17M  226k       –     –     –     –",
        "─" * 80,
        "total                     4,469        59  30.4M  840k  $1.28+ 1.23s 8.91s 420ms",
    ] == drawn(models, 80)


def test_wide(models: Report) -> None:
    """Where there is room, all figures and longer bars."""
    head = drawn(models, 120)[1].split()
    assert ["model", "calls", "err", "in", "cached", "out", "thought", "cost", "p50", "p95", "token", "p95"] == head


@pytest.mark.parametrize("width", [50, 60, 70, 80, 100, 120, 200])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_fits(models: Report, width: int, *, ascii_only: bool) -> None:
    """No line is wider than the terminal, and figures stand under figures."""
    lines = drawn(models, width, ascii_only=ascii_only)
    assert width >= max(map(len, lines))
    assert 1 == len({len(line) for line in lines[3:]})


@pytest.mark.parametrize("width", [50, 60, 70, 80, 100, 120])
@pytest.mark.parametrize("key", ["s-1", "会議の要約セッション", "0123456789" * 9])
def test_names_of_any_length(make_row: Callable[..., Row], key: str, width: int) -> None:
    """Nor are lines wider where names are short, or long, or in characters that are two columns wide."""
    rows = tuple(make_row(f"{key}{number}", 1000, errors=2, cost=1.0, priced_calls=3) for number in range(3))
    report = Report(rows=rows, total=make_row(None, 3000, errors=6, cost=3.0, priced_calls=9))
    assert width >= max(map(cell_len, drawn(report, width, "session")))


def test_ascii(models: Report) -> None:
    """Bars and rules need no more than ASCII where there is no more."""
    drawing = "".join(line for line in drawn(models, 80, ascii_only=True)).replace("–", "-")
    assert drawing.isascii()
    assert "####" in drawing


def test_nothing_to_say(make_row: Callable[..., Row]) -> None:
    """A column that would say nothing in any row is left out."""
    quiet = {"tokens": Tokens(input=10, output=5), "first_token_p50": None, "first_token_p95": None}
    report = Report(rows=(make_row("m", 2, **quiet),), total=make_row(None, 2, **quiet))
    assert ["model", "calls", "in", "out", "p50", "p95"] == drawn(report, 200)[1].split()


def test_hours(make_row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest hour stands last, next to the prompt, in the user's time."""
    monkeypatch.setattr("msgtap.cli.table.hour", lambda key: f"local {key}")
    rows = (make_row("2026-11-24T13:00Z", 2), make_row("2026-11-24T12:00Z", 1))
    lines = drawn(Report(rows=rows, total=make_row(None, 3)), 100, "hour")
    assert ["local 2026-11-24T12:00Z", "local 2026-11-24T13:00Z"] == [line[:23] for line in lines[3:5]]


def test_hostile_names(make_row: Callable[..., Row]) -> None:
    """A name that would move the cursor is shown, not obeyed."""
    report = Report(rows=(make_row("a\x1b[2Jb", 1),), total=make_row(None, 1))
    assert r"a\x1b[2Jb" in drawn(report, 80, "session")[3]


@pytest.mark.parametrize(
    ("expected", "cost", "priced"),
    [
        (None, 1.0, 10),
        ("Cost is unknown: no answer told it.", None, 0),
        ("+ the cost of 7 more calls is unknown: their answers did not tell it.", 1.0, 3),
    ],
)
def test_note(make_row: Callable[..., Row], expected: str | None, cost: float | None, priced: int) -> None:
    """What the cost leaves out is said, so that spend is never silently low."""
    assert expected == note(Report(rows=(), total=make_row(None, 10, cost=cost, priced_calls=priced)))
