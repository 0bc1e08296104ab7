"""Calls added up by the hour, kept in the transaction that brings the calls."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from msgtap_sqlite import latency
from msgtap_sqlite.calls import TOKEN_CLASSES, Call
from msgtap_sqlite.texts import Texts

MS_PER_HOUR = 3_600_000

NAMES = ("service", "model", "provider", "client", "error")
"""What an hour's calls are told apart by."""

_SUMS = ("calls", *TOKEN_CLASSES, "cost", "priced_calls")
_COLUMNS = ("hour", *NAMES, *_SUMS, "durations", "first_tokens")
_UPSERT = f"""
INSERT INTO rollups ({", ".join(_COLUMNS)}) VALUES ({", ".join("?" * len(_COLUMNS))})
ON CONFLICT (hour, {", ".join(NAMES)}) DO UPDATE SET
{", ".join(f"{name} = {name} + excluded.{name}" for name in _SUMS)},
durations = merged(durations, excluded.durations), first_tokens = merged(first_tokens, excluded.first_tokens)
"""


@dataclass(slots=True)
class _Sums:
    calls: int = 0
    tokens: list[int] = field(default_factory=lambda: [0] * len(TOKEN_CLASSES))
    cost: float = 0.0
    priced_calls: int = 0
    durations: Counter[int] = field(default_factory=Counter)
    first_tokens: Counter[int] = field(default_factory=Counter)

    def counts(self) -> tuple[float, ...]:
        """As `_SUMS` has them."""
        return (self.calls, *self.tokens, self.cost, self.priced_calls)

    def add(self, call: Call) -> None:
        self.calls += 1
        self.tokens = [one + other for one, other in zip(self.tokens, call.tokens, strict=True)]
        if call.cost is not None:
            self.cost += call.cost
            self.priced_calls += 1
        self.durations[latency.bucket(call.duration)] += 1
        if call.first_token is not None:
            self.first_tokens[latency.bucket(call.first_token)] += 1


def add(connection: sqlite3.Connection, texts: Texts, calls: Iterable[tuple[str | None, Call]]) -> None:
    """Add calls, each with its service, to their hours."""
    sums: dict[tuple[int | None, ...], _Sums] = {}
    known = texts.known
    for service, call in calls:
        names = (service, call.model, call.provider, call.client, call.error)
        key = (call.ended_at // MS_PER_HOUR, *[known(name) or 0 for name in names])
        found = sums.get(key)
        if found is None:
            found = sums[key] = _Sums()
        found.add(call)
    connection.executemany(
        _UPSERT,
        [
            (*key, *of.counts(), latency.written(of.durations), latency.written(of.first_tokens))
            for key, of in sums.items()
        ],
    )
