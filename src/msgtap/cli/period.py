"""Points in time as one types them: ``90m`` ago, ``today``, a date. Now is an argument."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"(\d{1,6})\s*([smhdw])")
EXAMPLES = "90m, 24h, 7d, today, yesterday, 2026-11-24 or 2026-11-24T13:00"


def moment(text: str, now: datetime) -> datetime:
    """The point in time that ``text`` means at ``now``; where it names no time zone, that of the machine.

    Raises:
        ValueError: it means none; the text says what would.
    """
    word = text.strip().lower()
    today = now.astimezone().replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    try:
        if ago := _AGO.fullmatch(word):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        days = {"today": today, "yesterday": today - timedelta(days=1)}
        return _aware(days.get(word) or datetime.fromisoformat(text.strip()))
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time; try {EXAMPLES}") from None


def _aware(found: datetime) -> datetime:
    return found if found.tzinfo else found.astimezone()  # which knows summer from winter
