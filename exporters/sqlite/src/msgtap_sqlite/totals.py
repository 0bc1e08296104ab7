"""Calls added up, by what they have in common: from hours that are added up already, and from calls themselves."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from msgtap_sqlite import latency
from msgtap_sqlite.calls import TOKEN_CLASSES
from msgtap_sqlite.facts import Row, Tokens
from msgtap_sqlite.rollups import MS_PER_HOUR
from msgtap_sqlite.selection import Selection

Key: TypeAlias = int | None
"""The id of a text, an hour since the epoch, or 0 for all; `None` for calls that have no such thing."""

_TOKENS = ", ".join(f"sum({name})" for name in TOKEN_CLASSES)


@dataclass(slots=True)
class Sums:
    """Calls added up."""

    calls: int = 0
    errors: int = 0
    tokens: list[int] = field(default_factory=lambda: [0] * len(TOKEN_CLASSES))
    cost: float = 0.0
    priced_calls: int = 0
    durations: Counter[int] = field(default_factory=Counter)
    first_tokens: Counter[int] = field(default_factory=Counter)

    def add(self, calls: int, errors: int, cost: float, priced_calls: int, tokens: Iterable[int]) -> None:
        """Add what is counted."""
        self.calls += calls
        self.errors += errors
        self.cost += cost
        self.priced_calls += priced_calls
        self.tokens = [one + other for one, other in zip(self.tokens, tokens, strict=True)]

    def add_all(self, other: Sums) -> None:
        """Add what others have added up."""
        self.add(other.calls, other.errors, other.cost, other.priced_calls, other.tokens)
        self.durations.update(other.durations)
        self.first_tokens.update(other.first_tokens)

    def row(self, key: str | None) -> Row:
        """As a line of a report."""
        p50, p95 = latency.quantiles(self.durations, (0.5, 0.95))
        first_token_p50, first_token_p95 = latency.quantiles(self.first_tokens, (0.5, 0.95))
        return Row(
            key=key,
            calls=self.calls,
            errors=self.errors,
            tokens=Tokens(**dict(zip(TOKEN_CLASSES, self.tokens, strict=True))),
            cost=self.cost if self.priced_calls else None,
            priced_calls=self.priced_calls,
            p50=p50,
            p95=p95,
            first_token_p50=first_token_p50,
            first_token_p95=first_token_p95,
        )


def combined(sums: Iterable[Sums]) -> Sums:
    """All of them in one."""
    total = Sums()
    for one in sums:
        total.add_all(one)
    return total


class Totals:
    """Sums by key, over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.sums: defaultdict[Key, Sums] = defaultdict(Sums)

    def add_hours(self, by: str, selection: Selection) -> None:
        """Add the whole hours of a selection, by a column of ``rollups``, by ``hour`` or by ``0``."""
        condition, parameters = selection.hours()
        names = ", ".join(TOKEN_CLASSES)
        query = (
            f"SELECT {by}, error, calls, cost, priced_calls, durations, first_tokens, {names} FROM rollups"
            f" WHERE {condition}"
        )
        texts: defaultdict[Key, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for key, error, calls, cost, priced, durations, first_tokens, *tokens in self._rows(query, parameters):
            found: Key = key or (None if by not in ("0", "hour") else key)
            self.sums[found].add(calls, calls if error else 0, cost, priced, tokens)
            texts[found][0].append(durations)
            texts[found][1].append(first_tokens)
        for key, (durations, first_tokens) in texts.items():
            self.sums[key].durations.update(latency.added(durations))
            self.sums[key].first_tokens.update(latency.added(first_tokens))

    def add_calls(self, by: str, selection: Selection, only: Collection[Key] | None = None) -> None:
        """Add the calls of a selection, by a column of ``calls``, by ``hour`` or by ``0``."""
        key = _key(by)
        condition, parameters = selection.condition()
        if only is not None:
            condition += f" AND ({_among(key, only)})"
        query = (
            f"SELECT {key}, duration_bucket, count(*), count(error), total(cost), count(cost), {_TOKENS} FROM calls"
            f" WHERE {condition} GROUP BY 1, 2"
        )
        for found, bucket, calls, errors, cost, priced, *tokens in self._rows(query, parameters):
            self.sums[found].add(calls, errors, cost, priced, tokens)
            self.sums[found].durations[bucket] += calls
        query = (
            f"SELECT {key}, first_token_bucket, count(*) FROM calls"
            f" WHERE {condition} AND first_token_bucket IS NOT NULL GROUP BY 1, 2"
        )
        for found, bucket, calls in self._rows(query, parameters):
            self.sums[found].first_tokens[bucket] += calls

    def _rows(self, query: str, parameters: Sequence[Any]) -> Iterable[Any]:
        return self._connection.execute(query, parameters)


def most_called(connection: sqlite3.Connection, by: str, selection: Selection, limit: int) -> list[Key]:
    """The keys with most calls; of hours the latest."""
    condition, parameters = selection.condition()
    order = "1 DESC" if by == "hour" else "count(*) DESC"
    query = f"SELECT {_key(by)} FROM calls WHERE {condition} GROUP BY 1 ORDER BY {order} LIMIT ?"
    return [key for (key,) in connection.execute(query, [*parameters, limit])]


def _key(by: str) -> str:
    return f"ended_at / {MS_PER_HOUR}" if by == "hour" else by


def _among(key: str, only: Collection[Key]) -> str:
    numbers = ", ".join(str(number) for number in only if number is not None)
    return f"{key} IN ({numbers})" + (f" OR {key} IS NULL" if None in only else "")
