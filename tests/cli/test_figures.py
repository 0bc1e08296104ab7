"""Numbers, times and texts as a terminal shows them."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from rich.cells import cell_len

from msgtap.cli.bars import bar
from msgtap.cli.figures import clock, count, duration, fitted, hour, money, printable, share
from msgtap.cli.period import moment

NOW = datetime(2026, 11, 24, 13, 3, 21, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _in_paris(monkeypatch: pytest.MonkeyPatch) -> object:
    """A machine whose clock is an hour ahead in winter, two in summer."""
    monkeypatch.setenv("TZ", "Europe/Paris")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("9,999", 9_999),
        ("10.0k", 10_000),
        ("81.7k", 81_744),
        ("999k", 999_499),
        ("1.00M", 999_500),
        ("5.12M", 5_118_000),
        ("12.3G", 12_300_000_000),
        ("1,234G", 1_234_000_000_000),
    ],
)
def test_count(text: str, number: int) -> None:
    """A count has three digits that count once it has more than four."""
    assert text == count(number)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("–", None),
        ("0ms", 0.0),
        ("0.42ms", 0.00042),
        ("1ms", 0.0012),
        ("420ms", 0.4204),
        ("999ms", 0.9994),
        ("1.00s", 0.9996),
        ("9.99s", 9.991),
        ("10.0s", 9.9951),
        ("59.9s", 59.94),
        ("1m00s", 59.96),
        ("2m05s", 125),
        ("59m59s", 3599.4),
        ("1h00m", 3600),
        ("27h46m", 100_000),
    ],
)
def test_duration(text: str, seconds: float | None) -> None:
    """A duration is short, and never rounded to more digits than its unit has."""
    assert text == duration(seconds)


@pytest.mark.parametrize(
    ("text", "dollars", "partly"),
    [
        ("–", None, False),
        ("–", None, True),
        ("$0.00", 0.0, False),
        ("$0.0001", 0.00012, False),
        ("<$0.0001", 0.00002, False),
        ("$0.0421", 0.0421, False),
        ("$0.131", 0.1312, False),
        ("$1.28+", 1.2766, True),
        ("$12,345.00", 12_345, False),
    ],
)
def test_money(text: str, dollars: float | None, *, partly: bool) -> None:
    """An unknown cost is no zero, a known one is never shown as zero, and a part of it says so."""
    assert text == money(dollars, partly=partly)


@pytest.mark.parametrize(
    ("text", "part", "whole"),
    [("–", 0, 0), ("0%", 0, 7), ("<1%", 1, 1000), ("72%", 72, 100), ("99%", 999, 1000), ("100%", 7, 7)],
)
def test_share(text: str, part: int, whole: int) -> None:
    """Something is never nothing, and nearly all is never all."""
    assert text == share(part, whole)


def test_times_are_local() -> None:
    """Hours and times of day are those of the user's clock."""
    assert ("14:03:21", "Tue 24 Nov 14:00") == (clock(NOW), hour("2026-11-24T13:00Z"))


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        ("plain müller 会議", "plain müller 会議"),
        (r"a\x1b[31mred", "a\x1b[31mred"),
        (r"two\nlines\r\t", "two\nlines\r\t"),
        (r"evil\u202egnp.exe", "evil\u202egnp.exe"),
        (r"\x9b2J\x7f\u2028", "\x9b2J\x7f\u2028"),
    ],
)
def test_printable(shown: str, text: str) -> None:
    """What a terminal would obey or hide stands there as an escape."""
    assert shown == printable(text)


@pytest.mark.parametrize(
    "text", ["", "short", "claude-sonnet-5-20260901", "会議の要約セッション", "a" * 99, "e\u0301" * 12]
)
@pytest.mark.parametrize("width", [4, 9, 16])
def test_fitted(text: str, width: int) -> None:
    """A text in a column is as wide as the column, whatever its characters are."""
    assert width == cell_len(fitted(text, width))


def test_fitted_keeps_the_end() -> None:
    """What tells two long names apart is often at their end."""
    assert "claude-son…60901" == fitted("claude-sonnet-5-20260901", 16)


@pytest.mark.parametrize(
    ("drawn", "part", "ascii_only"),
    [
        ("", 0, False),
        ("▏", 1, False),
        ("████", 50, False),
        ("████████", 100, False),
        ("#", 1, True),
        ("####", 50, True),
    ],
)
def test_bar(drawn: str, part: int, *, ascii_only: bool) -> None:
    """A bar is as long as its part of the whole, and what is not nothing can be seen."""
    assert drawn == bar(part, 100, 8, ascii_only=ascii_only)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("2026-11-24T12:03:21+00:00", "1h"),
        ("2026-11-24T11:33:21+00:00", " 90M "),
        ("2026-11-17T13:03:21+00:00", "7d"),
        ("2026-11-23T23:00:00+00:00", "today"),
        ("2026-11-22T23:00:00+00:00", "yesterday"),
        ("2026-11-20T23:00:00+00:00", "2026-11-21"),
        ("2026-06-30T22:00:00+00:00", "2026-07-01"),
        ("2026-11-24T12:30:00+00:00", "2026-11-24T13:30"),
        ("2026-11-24T13:30:00+00:00", "2026-11-24T13:30Z"),
    ],
)
def test_moment(expected: str, text: str) -> None:
    """A point in time is so long ago, a day, or a date and time, local unless it says otherwise."""
    assert expected == moment(text, NOW).astimezone(UTC).isoformat()


@pytest.mark.parametrize("text", ["", "soon", "1x", "2026-13-01", "999999w", "-1h"])
def test_no_moment(text: str) -> None:
    """What is no point in time is answered with what would be one."""
    with pytest.raises(ValueError, match="is no time; try 90m, 24h, 7d, today"):
        moment(text, NOW)
