"""Calls one by one: as lines, and as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from msgtap.cli.machine import as_csv, as_json
from msgtap.cli.tail import head, json_line, line
from msgtap_sqlite.reader import Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgtap_sqlite.reader import Call, Row

ROUTED = {"model": "anthropic/claude-sonnet-5", "cost": 0.0123}
RETRIED = {"error": "overloaded_error", "attempt": 1, "first_token": None, "stop_reason": None}
BARE = {"model": None, "session": None, "user": None, "error": "502", "first_token": None, "duration": 0.0123}
EVIL = {"session": "a\x1b[31mred\u202eb", "user": None, "ending": "closed"}
LONG = {"model": "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "session": "0123456789" * 5, "duration": 125.0}


def without_clock(text: str) -> str:
    """A line after its time of day, which depends on where the test runs."""
    assert re.match(r"\d\d:\d\d:\d\d ", text)
    return text[9:]


@pytest.mark.parametrize(
    ("expected", "facts"),
    [
        ("claude-sonnet-5     6,812→188  420ms  1.23s end_turn      claim-44 ana", {}),
        ("claude-sonnet-5     6,812→188  420ms  1.23s end_turn      $0.0123 clai…", ROUTED),
        ("claude-sonnet-5     6,812→188      –  1.23s overloaded #2 claim-44 ana", RETRIED),
        ("–                   6,812→188      –   12ms 502", BARE),
        (r"claude-sonnet-5     6,812→188  420ms  1.23s closed        a\x1b[31mred…", EVIL),
        ("us.anthropi…-v1:0   6,812→188  420ms  2m05s end_turn      012345678901…", LONG),
    ],
)
def test_80_columns(make_call: Callable[..., Call], expected: str, facts: dict[str, Any]) -> None:
    """A call is one line of 80 columns, with each fact in its place."""
    assert expected == without_clock(line(make_call(**facts), 80).plain)


@pytest.mark.parametrize("facts", [{}, ROUTED, RETRIED, BARE, EVIL, LONG])
@pytest.mark.parametrize("width", [40, 80, 100, 120])
def test_fits(make_call: Callable[..., Call], facts: dict[str, Any], width: int) -> None:
    """No line is wider than the terminal, nor is what stands above them; and none writes to it."""
    shown = line(make_call(**facts), width).plain
    assert width >= max(len(shown), len(head(width).plain))
    assert shown.isprintable()


def test_pipe(make_call: Callable[..., Call]) -> None:
    """In a pipe nothing is cut."""
    shown = line(make_call(**LONG), None).plain
    assert "us.anthropic.claude-sonnet-4-5-20250929-v1:0" in shown
    assert shown.endswith(f"{'0123456789' * 5} ana")


CALL_KEYS = [
    "id", "ended_at", "model", "provider", "service", "client", "run", "session", "user", "status", "error", "ending",
    "stop_reason", "attempt", "duration_s", "first_token_s", "tokens_input", "tokens_cache_read",
    "tokens_cache_write_5m", "tokens_cache_write_1h", "tokens_output", "tokens_thinking", "tokens_total", "cost_usd",
    "trace_id", "span_id",
]  # fmt: skip
ROW_KEYS = [
    "key", "calls", "errors", "tokens_input", "tokens_cache_read", "tokens_cache_write_5m", "tokens_cache_write_1h",
    "tokens_output", "tokens_thinking", "tokens_total", "cost_usd", "priced_calls", "duration_p50_s", "duration_p95_s",
    "first_token_p50_s", "first_token_p95_s",
]  # fmt: skip


def test_call_as_json(make_call: Callable[..., Call]) -> None:
    """A call is a line of JSON with keys that stay, in ASCII, with null for what is not known."""
    text = json_line(make_call(**EVIL))
    found = json.loads(text)
    assert (True, CALL_KEYS) == (text.isascii(), list(found))
    assert (None, None, 1.234, 7000, "2026-11-24T13:03:21.250Z", EVIL["session"]) == tuple(
        found[key] for key in ("user", "cost_usd", "duration_s", "tokens_total", "ended_at", "session")
    )


def test_report_as_json(make_row: Callable[..., Row]) -> None:
    """A report is one JSON object: what was asked, the rows and the total."""
    report = Report(rows=(make_row("m", 2), make_row(None, 1)), total=make_row(None, 3, cost=1.5, priced_calls=2))
    since = datetime(2026, 11, 24, 13, tzinfo=UTC)
    found = json.loads(as_json(report, "model", since, None, {"user": "ana"}))
    assert ["by", "since", "until", "where", "rows", "total"] == list(found)
    assert ["model", "2026-11-24T13:00:00.000Z", None, {"user": "ana"}] == list(found.values())[:4]
    assert [ROW_KEYS, ROW_KEYS, ROW_KEYS] == [list(row) for row in (*found["rows"], found["total"])]
    assert (["m", None], 1.5) == ([row["key"] for row in found["rows"]], found["total"]["cost_usd"])


def test_report_as_csv(make_row: Callable[..., Row]) -> None:
    """The rows are CSV that no spreadsheet or terminal misreads; what is not known is empty."""
    report = Report(rows=(make_row('a,"b"\nc', 2), make_row(None, 1)), total=make_row(None, 3))
    rows = list(csv.reader(io.StringIO(as_csv(report))))
    assert [ROW_KEYS, r'a,"b"\nc', ""] == [rows[0], rows[1][0], rows[2][0]]
    assert ("2", "13624", "") == (rows[1][1], str(int(rows[1][3]) + int(rows[1][4]) + int(rows[1][5])), rows[1][10])


def test_empty_report(make_row: Callable[..., Row]) -> None:
    """A report without rows still has its header, and its form."""
    report = Report(rows=(), total=make_row(None, 0))
    assert (",".join(ROW_KEYS) + "\n", []) == (
        as_csv(report),
        json.loads(as_json(report, "user", None, None, {}))["rows"],
    )
