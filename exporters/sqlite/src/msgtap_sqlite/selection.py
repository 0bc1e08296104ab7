"""Which calls a question is about, as conditions in SQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from msgtap_sqlite.place import StoreError
from msgtap_sqlite.rollups import MS_PER_HOUR, NAMES

FILTERS: Final = ("model", "service", "session", "user", "provider", "client", "error", "run")
"""What calls may be narrowed by; each is a column. A ``*`` in a value stands for anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Calls that ended from ``since`` on and before ``until`` (ms since the epoch), and are as ``where`` says."""

    since: int | None = None
    until: int | None = None
    where: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def condition(self) -> tuple[str, list[Any]]:
        """The condition on ``calls``, and its parameters."""
        parts, parameters = self._named()
        for limit, comparison in ((self.since, ">="), (self.until, "<")):
            if limit is not None:
                parts.append(f"ended_at {comparison} ?")
                parameters.append(limit)
        return " AND ".join(parts) or "1", parameters

    def hours(self) -> tuple[str, list[Any]]:
        """The condition on ``rollups``: the hours that are wholly within."""
        parts, parameters = self._named()
        first, last = self._whole_hours()
        return " AND ".join([*parts, "hour >= ?", "hour < ?"]), [*parameters, first, last]

    def edges(self) -> Iterator[Selection]:
        """What `hours` leaves out: the calls of the hours that are only partly within."""
        first, last = (hour * MS_PER_HOUR for hour in self._whole_hours())
        if first >= last:
            yield self
            return
        if self.since is not None and self.since < first:
            yield replace(self, until=first)
        if self.until is not None and last < self.until:
            yield replace(self, since=last)

    def by_hours(self) -> bool:
        """Whether `hours` can tell these calls from others."""
        return self.where.keys() <= set(NAMES)

    def _whole_hours(self) -> tuple[int, int]:
        first = 0 if self.since is None else -(-self.since // MS_PER_HOUR)
        last = 2**40 if self.until is None else self.until // MS_PER_HOUR
        return first, last

    def _named(self) -> tuple[list[str], list[Any]]:
        parts, parameters = [], []
        for column, value in self.where.items():
            pattern = "*" in value
            operator = "GLOB" if pattern else "="
            parts.append(f"{column} IN (SELECT id FROM text WHERE value {operator} ?)")
            parameters.append(value.replace("[", "[[]").replace("?", "[?]") if pattern else value)
        return parts, parameters


def select(
    *, since: datetime | None = None, until: datetime | None = None, where: Mapping[str, str] | None = None
) -> Selection:
    """What a user asks for.

    Raises:
        StoreError: a key of ``where`` is none of `FILTERS`.
    """
    for name in where or {}:
        if name not in FILTERS:
            raise StoreError(f"calls cannot be narrowed by {name!r}; what they can be by: {', '.join(FILTERS)}")
    return Selection(since=_milliseconds(since), until=_milliseconds(until), where=where or {})


def _milliseconds(time: datetime | None) -> int | None:
    return None if time is None else int(time.timestamp() * 1000)
