"""Calls and rows made by hand, and the store of a test."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from msgtap_sqlite.reader import Call, Row, Tokens

TOKENS = Tokens(input=412, cache_read=4900, cache_write_5m=1500, output=150, thinking=38)


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """A row of a report, of as many calls as it takes."""

    def make(key: str | None = "claude-sonnet-5-20260901", calls: int = 1, **more: Any) -> Row:
        names = ("input", "cache_read", "cache_write_5m", "output", "thinking")
        facts: dict[str, Any] = {
            "errors": 0,
            "tokens": Tokens(**{name: getattr(TOKENS, name) * calls for name in names}),
            "cost": None,
            "priced_calls": 0,
            "p50": 1.234,
            "p95": 8.91,
            "first_token_p50": 0.42,
            "first_token_p95": 2.3,
        }
        return Row(key=key, calls=calls, **(facts | more))

    return make


@pytest.fixture
def make_call() -> Callable[..., Call]:
    """A call."""

    def make(**more: Any) -> Call:
        facts: dict[str, Any] = {
            "id": 1,
            "ended_at": datetime(2026, 11, 24, 13, 3, 21, 250_000, tzinfo=UTC),
            "duration": 1.234,
            "first_token": 0.42,
            "service": "app",
            "run": "3f2a91c04d7e",
            "model": "claude-sonnet-5-20260901",
            "provider": "anthropic",
            "client": "httpx",
            "session": "claim-44",
            "user": "ana",
            "status": 200,
            "error": None,
            "ending": None,
            "stop_reason": "end_turn",
            "tokens": TOKENS,
            "cost": None,
            "attempt": 0,
            "trace_id": "a" * 32,
            "span_id": "b" * 16,
        }
        return Call(**(facts | more))

    return make
