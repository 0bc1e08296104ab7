"""What `msgtap run` says at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgtap.cli.summary import lines
from msgtap_sqlite.reader import RunSummary, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgtap_sqlite.reader import Call, Row


def said(summary: RunSummary, *exported: str) -> list[str]:
    """The summary, as text."""
    return [line.plain for line in lines(summary, 8.4, "~/calls.db", exported)]


def test_one_call(make_row: Callable[..., Row], make_call: Callable[..., Call]) -> None:
    """One call has no percentiles, and is not the slowest of anything."""
    row = make_row(None, 1, cost=0.0421, priced_calls=1)
    summary = RunSummary(run="3f2a91c04d7e", total=row, by_model=(row,), by_error=(row,), slowest=make_call())
    assert [
        "msgtap   1 call in 8.40s · run 3f2a91c04d7e",
        "tokens   6,812 in (72% from cache) · 188 out (20% thinking)",
        "cost     $0.0421",
        "latency  1.23s · first token 420ms",
        "stored   ~/calls.db",
        "more     msgtap report --run last · msgtap tail",
    ] == said(summary)


def test_many_calls(make_row: Callable[..., Row], make_call: Callable[..., Call]) -> None:
    """Several models, failures and an export each have their word, and the slowest call its session."""
    summary = RunSummary(
        run="3f2a91c04d7e",
        total=make_row(None, 1469, errors=59, cost=1.2766, priced_calls=1016),
        by_model=tuple(make_row(f"m{n}", 1000 - n) for n in range(6)),
        by_error=(make_row(None, 1410), make_row("overloaded_error", 44), make_row("rate_limit_error", 15)),
        slowest=make_call(duration=125.0, error="api_error"),
    )
    shown = said(summary, "otlp")
    assert "msgtap   1,469 calls in 8.40s, 59 failed · run 3f2a91c04d7e" == shown[0]
    assert "models   m0 1,000 · m1 999 · m2 998 · m3 997 · 2 more" == shown[1]
    assert "cost     $1.28 for 1,016 calls · unknown for 453" == shown[3]
    assert "latency  p50 1.23s · p95 8.91s · first token p50 420ms" == shown[4]
    assert "errors   overloaded_error 44 · rate_limit_error 15" == shown[5]
    assert shown[6].startswith("slowest  2m05s · claude-sonnet-5-20260901 · api_error · session claim-44 · ended ")
    assert ["stored   ~/calls.db", "exported otlp"] == shown[7:9]


def test_unknown(make_row: Callable[..., Row]) -> None:
    """What no answer told is unknown, and no zero; of calls that all failed there is nothing to add up."""
    row = make_row(None, 2, tokens=Tokens(input=3, output=1), first_token_p50=None)
    shown = said(RunSummary(run="r", total=row, by_model=(), by_error=(), slowest=None))
    assert ["tokens   3 in · 1 out", "cost     unknown: no answer told it", "latency  p50 1.23s · p95 8.91s"] == shown[
        1:4
    ]
    row = make_row(None, 2, errors=2, tokens=Tokens(), first_token_p50=None)
    shown = said(RunSummary(run="r", total=row, by_model=(), by_error=(), slowest=None))
    assert ["latency", "errors", "stored", "more"] == [line.split()[0] for line in shown[1:]]


def test_hostile_names(make_row: Callable[..., Row], make_call: Callable[..., Call]) -> None:
    """No name can write to the terminal."""
    evil = "a\x1b]0;b\x07"
    row = make_row(evil, 2, errors=1)
    slowest = make_call(model=evil, session=evil, error=evil)
    shown = said(RunSummary(run="r", total=row, by_model=(row, row), by_error=(row,), slowest=slowest))
    assert "\n".join(shown).replace("\n", "").isprintable()
