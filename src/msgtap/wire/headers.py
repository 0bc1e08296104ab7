"""Headers as an allow-list: what is not named here is never looked at, so no credential can be kept.

Sources: Anthropic's API reference (``request-id``, ``anthropic-ratelimit-*``, ``retry-after``), OpenRouter's
(``X-Generation-Id``, ``X-OpenRouter-Cache-Status``, ``X-RateLimit-*``), and the Anthropic SDK, which sends
``x-stainless-retry-count`` and reads ``retry-after-ms``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from msgtap.record import ResponseHeaders, Scalar
from msgtap.wire.decoding import identifier_list, sound, text

Pairs = Iterable[tuple[bytes, bytes]] | Iterable[tuple[str, str]]

_REQUEST = ("x-session-id", "anthropic-beta", "x-stainless-retry-count")
_RESPONSE = (
    "content-type",
    "content-encoding",
    "request-id",
    "x-generation-id",
    "anthropic-organization-id",
    "retry-after",
    "retry-after-ms",
    "x-openrouter-cache-status",
)
# Header name -> the fact's name: ``anthropic-priority-input-tokens-limit`` -> ``priority.input_tokens.limit``.
_RATE_LIMITS = {
    f"anthropic-{family}-{kind}-{fact}": f"{prefix}{kind.replace('-', '_')}.{fact}"
    for family, prefix in (("ratelimit", ""), ("priority", "priority."), ("fast", "fast."))
    for kind in ("requests", "tokens", "input-tokens", "output-tokens")
    for fact in ("limit", "remaining", "reset")
} | {f"x-ratelimit-{fact}": fact for fact in ("limit", "remaining", "reset")}

_LISTS = frozenset({"anthropic-beta", "content-encoding"})

Wanted = dict[str | bytes, str]


def _wanted(names: Iterable[str]) -> Wanted:
    """A look-up by lower-case name, whether the client keeps its headers as text or as bytes."""
    return {key: name for name in names for key in (name, name.encode())}


REQUEST: Wanted = _wanted(_REQUEST)
RESPONSE: Wanted = _wanted((*_RESPONSE, *_RATE_LIMITS))


def select(pairs: Pairs, wanted: Wanted) -> dict[str, str]:
    """The headers in ``wanted``, by lower-case name; of a repeated one the last, unless it is a list."""
    found: dict[str, str] = {}
    for name, value in pairs:
        key = wanted.get(name.lower())
        if key is not None:
            said = value.decode("latin-1") if isinstance(value, bytes) else sound(value)
            found[key] = f"{found[key]},{said}" if key in _LISTS and key in found else said
    return found


def read_response_headers(headers: Mapping[str, str]) -> ResponseHeaders:
    """The facts in selected response headers."""
    return ResponseHeaders(
        request_id=text(headers.get("request-id")),
        generation_id=text(headers.get("x-generation-id")),
        organization_id=text(headers.get("anthropic-organization-id")),
        retry_after=_retry_after(headers),
        cache_status=text(headers.get("x-openrouter-cache-status")),
        rate_limits=tuple((fact, _scalar(headers[name])) for name, fact in _RATE_LIMITS.items() if name in headers),
    )


def read_betas(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The beta features that the request names."""
    return identifier_list(headers.get("anthropic-beta"))


def read_attempt(headers: Mapping[str, str]) -> int | None:
    """Which attempt this is, from 0, where the client says so."""
    count = headers.get("x-stainless-retry-count", "")
    return int(count) if count.isascii() and count.isdigit() and len(count) < 10 else None  # noqa: PLR2004


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait; a date (RFC 9110 allows one) would need a clock and is left out."""
    milliseconds = _number(headers.get("retry-after-ms"))
    return _number(headers.get("retry-after")) if milliseconds is None else milliseconds / 1000


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _scalar(value: str) -> Scalar:
    if value.isascii() and value.isdigit() and len(value) < 19:  # noqa: PLR2004
        return int(value)
    return text(value) or ""
