"""Calls as a busy month of three services would make them, as lines of a journal: each one a span and a log record."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from msgspec import Raw

from msgtap import semconv as names
from msgtap_sqlite.entries import Log, Span, encode

SERVICES = ("claims", "chat", "nightly")
MODELS = ("claude-sonnet-5-20260901", "claude-opus-5-20260901", "claude-haiku-5-20260901", "anthropic/claude-sonnet-5")
ERRORS = ("overloaded_error", "rate_limit_error", "api_error")
MONTH = 30 * 86_400 * 10**9
_RESOURCES = [
    Raw(b'{"telemetry.sdk.language":"python","telemetry.sdk.name":"opentelemetry","service.name":"%s"}' % name.encode())
    for name in SERVICES
]


@dataclass(frozen=True, slots=True)
class Made:
    """A call: its two lines, and what the percentiles are checked with."""

    lines: tuple[bytes, bytes]
    duration: float
    first_token: float


def calls(number: int, users: int, *, end: int, seed: int = 1) -> Iterator[Made]:
    """So many calls of so many users, twenty to a session, over the month before ``end`` (ns since the epoch)."""
    rolled = random.Random(seed)
    for index in range(number):
        yield _call(rolled, index, users, end - MONTH + index * MONTH // number)


def _call(rolled: random.Random, index: int, users: int, time: int) -> Made:
    duration = rolled.lognormvariate(0.7, 0.8)
    attributes = _attributes(rolled, index, users, duration)
    trace_id, span_id = f"{rolled.getrandbits(128):032x}", f"{rolled.getrandbits(64):016x}"
    resource = rolled.choice(_RESOURCES)
    name = f"chat {attributes[names.REQUEST_MODEL]}"
    begun = time - int(duration * 1e9)
    span = Span(resource, names.SCOPE, trace_id, span_id, None, name, 3, begun, time, 0, attributes)
    log = Log(resource, names.SCOPE, time, trace_id, span_id, 9, names.EVENT_CALL, names.EVENT_CALL, attributes)
    return Made((encode(span), encode(log)), duration, attributes[names.TIME_TO_FIRST_THINKING])


def _attributes(rolled: random.Random, index: int, users: int, duration: float) -> dict[str, Any]:
    """36 attributes: a streamed call with thinking, tools, a session and a user."""
    model = rolled.choice(MODELS)
    session = f"session-{index // 20:06d}-{index // 20 * 7919 % 1000003:06x}"
    facts: dict[str, Any] = {
        names.OPERATION_NAME: "chat",
        names.PROVIDER_NAME: "openrouter" if "/" in model else "anthropic",
        names.REQUEST_MODEL: model.removesuffix("-20260901"),
        names.SERVER_ADDRESS: "api.anthropic.com",
        names.SERVER_PORT: 443,
        names.CLIENT: "httpx2",
        names.BETA: ["context-management-2026", "interleaved-thinking"],
        names.SESSION_ID: session,
        names.CONVERSATION_ID: session,
        names.USER_ID: f"user-{rolled.randrange(users)}@example.com",
        names.REQUEST_STREAM: True,
        names.REQUEST_MAX_TOKENS: 2048,
        names.REQUEST_MESSAGES: rolled.randrange(1, 30),
        names.REQUEST_SYSTEM: 1,
        names.REQUEST_TOOLS: 5,
        names.THINKING_TYPE: "enabled",
        names.RESPONSE_ID: f"msg_{rolled.getrandbits(96):024x}",
        names.RESPONSE_MODEL: model,
        names.FINISH_REASONS: ["stop"],
        names.STOP_REASON: "end_turn",
        names.RESPONSE_CONTENT_TYPES: ["thinking", "text"],
        names.INPUT_TOKENS: rolled.randrange(10_000, 20_000),
        names.OUTPUT_TOKENS: rolled.randrange(1, 3000),
        names.CACHE_READ_TOKENS: rolled.randrange(1, 9000),
        names.CACHE_WRITE_TOKENS: 700,
        names.CACHE_WRITE_5M_TOKENS: 700,
        names.RESPONSE_SERVICE_TIER: "standard",
        names.HTTP_STATUS: 200,
        names.ORGANIZATION_ID: "6b1a7f0e-52c4-4c0e-9d3a-0d5f6c1e2b7a",
        names.REQUEST_ID: f"req_{rolled.getrandbits(96):024x}",
        names.DURATION: duration,
        names.TIME_TO_HEADERS: duration * 0.2,
        names.TIME_TO_FIRST_CHUNK: duration * 0.21,
        names.TIME_TO_FIRST_THINKING: duration * 0.25,
        names.TIME_TO_FIRST_ANSWER: duration * 0.5,
        names.LONGEST_STALL: duration * 0.1,
    }
    if rolled.random() < 0.5:
        facts[names.COST] = rolled.random() / 10
    if rolled.random() < 0.03:
        facts[names.ERROR_TYPE] = rolled.choice(ERRORS)
    return facts
