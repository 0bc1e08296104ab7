"""What `msgtap run` says when the program has ended: a few lines on its calls. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from msgtap.cli.figures import clock, count, duration, money, printable, share, tokens_in, tokens_out

if TYPE_CHECKING:
    from msgtap_sqlite.reader import Call, Row, RunSummary, Tokens

_LABEL = 9
_LISTED = 4


def lines(summary: RunSummary, seconds: float, stored: str, exported: Sequence[str]) -> Iterator[Text]:
    """The summary of a run that took ``seconds`` and whose calls are ``stored`` in that file."""
    total = summary.total
    yield _headline(total, seconds, summary.run)
    if len(summary.by_model) > 1:
        yield _line("models", _listed(summary.by_model))
    if total.tokens.total:
        yield _line("tokens", tokens(total.tokens))
        yield _line("cost", _cost(total))
    yield _line("latency", _latency(total, summary.slowest))
    if total.errors:
        yield _line("errors", _listed([row for row in summary.by_error if row.key is not None]), "red")
    if summary.slowest is not None and total.calls > 1:
        yield _line("slowest", _slowest(summary.slowest))
    yield _line("stored", stored)
    if exported:
        yield _line("exported", ", ".join(exported))
    yield _line("more", "msgtap report --run last · msgtap tail", "cyan")


def _headline(total: Row, seconds: float, run: str) -> Text:
    failed = f", {total.errors:,} failed" if total.errors else ""
    text = Text("msgtap   ", style="bold")
    text.append(f"{total.calls:,} {'call' if total.calls == 1 else 'calls'} in {duration(seconds)}")
    text.append(failed, style="red")
    text.append(f" · run {run}", style="dim")
    return text


def _line(label: str, value: str, style: str = "") -> Text:
    return Text.assemble((f"{label:{_LABEL}}", "dim"), (value, style))


def tokens(of: Tokens) -> str:
    """Tokens in and out; of those in, how many came from the cache."""
    read, written = tokens_in(of), tokens_out(of)
    cached = f" ({share(of.cache_read, read)} from cache)" if of.cache_read else ""
    thought = f" ({share(of.thinking, written)} thinking)" if of.thinking else ""
    return f"{count(read)} in{cached} · {count(written)} out{thought}"


def _cost(total: Row) -> str:
    unpriced = total.calls - total.priced_calls
    if total.cost is None:
        return "unknown: no answer told it"
    if not unpriced:
        return money(total.cost)
    return f"{money(total.cost)} for {total.priced_calls:,} calls · unknown for {unpriced:,}"


def _latency(total: Row, slowest: Call | None) -> str:
    half = "p50 " if total.calls > 1 else ""
    longest = slowest.duration if slowest else float("inf")  # percentiles are not exact, and must not belie it
    last = f" · p95 {duration(min(total.p95 or 0, longest))}" if total.calls > 1 else ""
    first = "" if total.first_token_p50 is None else f" · first token {half}{duration(total.first_token_p50)}"
    return f"{half}{duration(total.p50)}{last}{first}"


def _listed(rows: Sequence[Row]) -> str:
    shown = [f"{printable(row.key or 'unknown')} {row.calls:,}" for row in rows[:_LISTED]]
    return " · ".join(shown + ([f"{len(rows) - _LISTED} more"] if len(rows) > _LISTED else []))


def _slowest(call: Call) -> str:
    session = f"session {call.session}" if call.session else None
    facts = (duration(call.duration), call.model, call.error, session, f"ended {clock(call.ended_at)}")
    return " · ".join(printable(fact) for fact in facts if fact)
