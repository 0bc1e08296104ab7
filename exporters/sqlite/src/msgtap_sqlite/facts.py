"""What the store's reader answers with: facts, frozen. Nothing here reads or prints.

Durations are seconds, costs USD, times aware datetimes in UTC. Percentiles are within 2.2 % of exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Dimension = Literal["model", "service", "session", "user", "hour", "provider", "client", "error"]
"""What the rows of a report stand for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens by class; the classes do not overlap."""

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    thinking: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h + self.output + self.thinking


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of a report.

    Attributes:
        key: what the calls have in common; an hour is ``2026-11-24T13:00Z``. `None`: the calls that have no such thing,
            or all of them in `Report.total`.
        errors: how many of ``calls`` failed.
        cost: of the ``priced_calls`` in USD; `None` where there are none, which is not zero.
        p50: half of the calls took no longer, in seconds; `None` where there are no calls.
        first_token_p50: the same of the time to the first thinking or answer; `None` where no call tells it.
    """

    key: str | None
    calls: int
    errors: int
    tokens: Tokens
    cost: float | None
    priced_calls: int
    p50: float | None
    p95: float | None
    first_token_p50: float | None
    first_token_p95: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The rows with most calls first (by hour: the latest first), and the total of all calls, listed or not."""

    rows: tuple[Row, ...]
    total: Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call. What it has beyond this, `Store.attributes` gives.

    Attributes:
        id: grows in the order of arrival in the store.
        duration: in seconds.
        first_token: seconds from the start to the first thinking or answer.
        status: of HTTP; `None` where there was no response.
        error: ``error.type``; `None` for a call that did not fail.
        ending: ``msgtap.ended`` for a call that the program ended early: ``closed``, ``cancelled``, ``exit``.
        attempt: 0 is the first.
        trace_id: 32 hexadecimal digits; ``span_id`` 16.
    """

    id: int
    ended_at: datetime
    duration: float
    first_token: float | None
    service: str | None
    run: str | None
    model: str | None
    provider: str | None
    client: str | None
    session: str | None
    user: str | None
    status: int | None
    error: str | None
    ending: str | None
    stop_reason: str | None
    tokens: Tokens
    cost: float | None
    attempt: int
    trace_id: str | None
    span_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run of a program (resource attribute ``msgtap.run.id``)."""

    run: str
    total: Row
    by_model: tuple[Row, ...]
    by_error: tuple[Row, ...]
    slowest: Call | None
