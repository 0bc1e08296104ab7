"""``msgtap demo``: the calls of `msgtap.cli.demo_calls`, then a table of what was seen, and one call in full."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence

import anthropic
import httpx
import httpx2
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

import msgtap
from msgtap.cli.demo_calls import CALLS
from msgtap.console import log_lines, metric_lines, span_lines
from msgtap.exporting import STORE
from msgtap.record import CallRecord, Ending
from msgtap.telemetry.attributes import input_tokens
from msgtap.testing import capture_calls
from msgtap.testing.endpoint import Endpoint
from msgtap.testing.memory import Memory
from msgtap.testing.replies import Reply

# What the clients raise where the endpoint misbehaves, as it does in this demo.
_EXPECTED = (anthropic.APIError, httpx.HTTPError, httpx2.HTTPError)
_METRICS_SHOWN = 4
_SERVICE = "msgtap-demo"
_NEXT = (
    (f"msgtap report --service {_SERVICE}", "these calls, added up"),
    ("msgtap run -- python your_app.py", "your own program, as it is"),
    ("msgtap tail", "calls as they happen"),
)
_SHOWN = (
    "gen_ai.request.model",
    "gen_ai.response.finish",
    "gen_ai.usage",
    "session",
    "user",
    "openrouter.trace",
    "trace.metadata",
    "msgtap.time",
    "msgtap.longest",
)


def run(exporters: Sequence[str]) -> None:
    """Run the demo; ``exporters`` are names of further ones that get its telemetry."""
    console = Console()
    memory = Memory()
    openrouter = msgtap.Endpoint(host="127.0.0.1", path="/api/v1/messages", provider="openrouter")
    msgtap.configure(
        exporters=[memory.exporter, *dict.fromkeys([STORE, *exporters])],
        service_name=_SERVICE,
        endpoints=[openrouter],
    )
    seen = list(_calls(console))
    msgtap.flush()
    console.print(_table(seen))
    _summary(console, seen)
    _one_call(console, memory)


def _calls(console: Console) -> Iterator[tuple[str, CallRecord]]:
    """Each call's title with the records that it made."""
    script: deque[Reply] = deque()
    with Endpoint(respond=lambda _: script.popleft()) as endpoint:
        for call in track(CALLS, "Calling a stand-in endpoint on this machine", console=console, transient=True):
            script.extend(call.replies)
            with capture_calls() as records, contextlib.suppress(*_EXPECTED):
                call.do(endpoint.url)
            yield from ((call.what, record) for record in records)


def _table(seen: Sequence[tuple[str, CallRecord]]) -> Table:
    title = "What msgtap saw: a row for each HTTP attempt"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("call\n[dim]model · session · user[/]", min_width=32)
    for column in ("tokens\n[dim]in[/]", "\n[dim]out[/]", "first\n[dim]token[/]", "total"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("outcome\n[dim]cost[/]", no_wrap=True)
    for what, record in seen:
        table.add_row(*_row(what, record))
    return table


def _row(what: str, record: CallRecord) -> tuple[str, ...]:
    usage, timing, who = record.response.usage, record.timing, record.correlation
    first = timing.first_answer if timing.first_thinking is None else timing.first_thinking
    details = " · ".join(part for part in (record.request.model, who.session_id, who.user_id) if part)
    cost = "" if usage.cost is None else f"\n[dim]${usage.cost:.4f}[/]"
    return (
        f"{what}\n[dim]{escape(details)}[/]",
        _count(input_tokens(usage)),
        _count(usage.output_tokens),
        _milliseconds(first),
        _milliseconds(timing.duration),
        _outcome(record) + cost,
    )


def _outcome(record: CallRecord) -> str:
    if record.error_type is not None:
        return f"[red]{escape(record.error_type.rpartition('.')[2])}[/]"
    return (
        escape(record.response.stop_reason or "") if record.ending == Ending.COMPLETE else f"[yellow]{record.ending}[/]"
    )


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:,.0f} ms"


def _summary(console: Console, seen: Sequence[tuple[str, CallRecord]]) -> None:
    failed = sum(record.error_type is not None for _, record in seen)
    console.print(
        f"{len(CALLS)} calls, {len(seen)} attempts, {failed} of them failed. No line of theirs knows msgtap.\n"
    )


def _one_call(console: Console, memory: Memory) -> None:
    """The stream with thinking, in OpenTelemetry's three signals."""
    span = next((span for span in memory.spans if "explain-decision" in str(span.attributes)), None)
    if span is None:
        console.print("No spans were made: the environment switches them off (OTEL_*, MSGTAP_*).", style="yellow")
        return
    context = span.get_span_context()
    log = next(data.log_record for data in memory.logs if context and data.log_record.span_id == context.span_id)
    metrics = memory.metrics
    shown = (
        [line for line in metric_lines(metrics) if "time_to_first" in line or "msgtap.tokens" in line]
        if metrics
        else []
    )
    console.print("The second call as OpenTelemetry gets it, then the sums of all calls:", style="bold")
    for line in (
        *_interesting(list(span_lines(span))),
        *(line.partition("  gen_ai")[0] for line in log_lines(log)),
        *shown[:_METRICS_SHOWN],
    ):
        console.print(line, highlight=False, soft_wrap=True)
    console.print("\nThey are kept, and your own program's will be. Next:", style="bold")
    for command, what in _NEXT:
        console.print(f"  {command:37} [dim]{what}[/]", highlight=False)


def _interesting(lines: Sequence[str]) -> Iterator[str]:
    """A span's first line, and those of its attributes that nobody else writes, or that everybody looks for."""
    first, *attributes = lines
    yield first
    chosen = [line for line in attributes if line.split()[0].startswith(_SHOWN)]
    yield from chosen
    yield f"         … and {len(attributes) - len(chosen)} more"
