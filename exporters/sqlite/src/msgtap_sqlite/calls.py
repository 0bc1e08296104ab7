"""The log record of a call, as the facts that the store has columns for, and the attributes that it has none for."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from msgtap import semconv
from msgtap_sqlite.entries import Log

TOKEN_CLASSES: Final = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "thinking")

# What the columns hold, wholly or as far as it can be told from them.
_IN_COLUMNS = frozenset(
    {
        semconv.PROVIDER_NAME,
        semconv.REQUEST_MODEL,
        semconv.RESPONSE_MODEL,
        semconv.CLIENT,
        semconv.SESSION_ID,
        semconv.CONVERSATION_ID,
        semconv.USER_ID,
        semconv.HTTP_STATUS,
        semconv.HTTP_RESEND_COUNT,
        semconv.ERROR_TYPE,
        semconv.ENDED,
        semconv.STOP_REASON,
        semconv.DURATION,
        semconv.INPUT_TOKENS,
        semconv.OUTPUT_TOKENS,
        semconv.CACHE_READ_TOKENS,
        semconv.CACHE_WRITE_TOKENS,
        semconv.CACHE_WRITE_5M_TOKENS,
        semconv.CACHE_WRITE_1H_TOKENS,
        semconv.REASONING_TOKENS,
        semconv.COST,
    }
)
_TIMES = frozenset(
    {
        semconv.TIME_TO_HEADERS,
        semconv.TIME_TO_FIRST_CHUNK,
        semconv.TIME_TO_FIRST_THINKING,
        semconv.TIME_TO_FIRST_ANSWER,
        semconv.LONGEST_STALL,
    }
)


class Call(Struct, frozen=True, kw_only=True):
    """A call; times in microseconds, ``ended_at`` in milliseconds since the epoch, ``tokens`` by `TOKEN_CLASSES`."""

    ended_at: int
    duration: int
    first_token: int | None
    trace_id: bytes | None
    span_id: bytes | None
    status: int | None
    attempt: int
    model: str | None
    request_model: str | None
    provider: str | None
    client: str | None
    error: str | None
    ending: str | None
    stop_reason: str | None
    session: str | None
    user: str | None
    tokens: tuple[int, ...]
    cost: float | None
    rest: dict[str, Any]


def is_call(entry: Log) -> bool:
    """Whether a log record is msgtap's own of a call."""
    return entry.event == semconv.EVENT_CALL and entry.scope == semconv.SCOPE


def read_call(entry: Log) -> Call:
    """The call that a log record tells of."""
    facts = entry.attributes
    first = facts.get(semconv.TIME_TO_FIRST_THINKING, facts.get(semconv.TIME_TO_FIRST_ANSWER))
    return Call(
        ended_at=entry.time // 1_000_000,
        duration=_microseconds(facts.get(semconv.DURATION, 0.0)),
        first_token=None if first is None else _microseconds(first),
        trace_id=bytes.fromhex(entry.trace_id) if entry.trace_id else None,
        span_id=bytes.fromhex(entry.span_id) if entry.span_id else None,
        status=facts.get(semconv.HTTP_STATUS),
        attempt=facts.get(semconv.HTTP_RESEND_COUNT, 0),
        model=facts.get(semconv.RESPONSE_MODEL, facts.get(semconv.REQUEST_MODEL)),
        request_model=facts.get(semconv.REQUEST_MODEL),
        provider=facts.get(semconv.PROVIDER_NAME),
        client=facts.get(semconv.CLIENT),
        error=facts.get(semconv.ERROR_TYPE),
        ending=facts.get(semconv.ENDED),
        stop_reason=facts.get(semconv.STOP_REASON),
        session=facts.get(semconv.SESSION_ID),
        user=facts.get(semconv.USER_ID),
        tokens=token_classes(facts),
        cost=facts.get(semconv.COST),
        rest={
            name: round(value, 6) if name in _TIMES else value
            for name, value in facts.items()
            if name not in _IN_COLUMNS
        },
    )


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def token_classes(facts: dict[str, Any]) -> tuple[int, ...]:
    """The tokens of a call by class, as `msgtap.telemetry.metrics.token_classes` has them, from its attributes."""
    read = facts.get(semconv.CACHE_READ_TOKENS, 0)
    written = facts.get(semconv.CACHE_WRITE_TOKENS, 0)
    output = facts.get(semconv.OUTPUT_TOKENS, 0)
    hour = min(facts.get(semconv.CACHE_WRITE_1H_TOKENS, 0), written)
    thinking = min(facts.get(semconv.REASONING_TOKENS, 0), output)
    total = facts.get(semconv.INPUT_TOKENS)
    plain = 0 if total is None else total - read - written
    return (plain, read, written - hour, hour, output - thinking, thinking)
