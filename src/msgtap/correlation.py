"""Who calls, in which session: the body says it first, then a header, then the environment. As at OpenRouter."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from msgtap import shield
from msgtap.record import Correlation
from msgtap.wire.decoding import sound
from msgtap.wire.request import Claims

IDENTIFIER_LIMIT = 256
"""Longest session or user id in code points, as OpenRouter's schema has it."""
_KEPT = 239
_DIGEST = 16

Identifiers = Callable[[str], str]


class Defaults(Struct, frozen=True, kw_only=True):
    """The ids of calls that bring none of their own, from the environment."""

    session_id: str | None = None
    user_id: str | None = None


def correlate(claims: Claims, headers: Mapping[str, str], defaults: Defaults, identifiers: Identifiers) -> Correlation:
    """The ids that hold for a call; each is bounded, and then passed through ``identifiers`` (to hash it, say)."""
    session_id, session_source = _resolved(
        identifiers,
        ("body", claims.session_id),
        ("header", headers.get("x-session-id")),
        ("environment", defaults.session_id),
    )
    user_id, user_source = _resolved(
        identifiers, ("body", claims.user), ("metadata", claims.metadata_user_id), ("environment", defaults.user_id)
    )
    return Correlation(
        session_id=session_id,
        session_source=session_source,
        user_id=user_id,
        user_source=user_source,
        trace=claims.trace,
    )


def _resolved(identifiers: Identifiers, *sources: tuple[str, str | None]) -> tuple[str | None, str | None]:
    """The first id that says anything, and where it was; none if ``identifiers`` fails: a plain one was not wanted."""
    source, found = next(((source, value) for source, value in sources if value), (None, None))
    # What a function of the user's returns may be anything.
    written: Any = shield.attempt(identifiers, bounded(found)) if found else None
    return (bounded(written), source) if written and isinstance(written, str) else (None, None)


def bounded(identifier: str) -> str:
    """``identifier`` within `IDENTIFIER_LIMIT`: a longer one ends in a digest of all of it, so that two stay two."""
    identifier = sound(identifier)
    if len(identifier) <= IDENTIFIER_LIMIT:
        return identifier
    shield.count("cut_identifier")
    return f"{identifier[:_KEPT]}~{hashlib.sha256(identifier.encode()).hexdigest()[:_DIGEST]}"


def plain(identifier: str) -> str:
    """An id as it came."""
    return identifier


def hashed(identifier: str) -> str:
    """An id as the first 32 hexadecimal digits of its SHA-256: the same for the same id, and not readable."""
    return hashlib.sha256(identifier.encode()).hexdigest()[:32]
