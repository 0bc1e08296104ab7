"""Numbers, times and texts as a terminal shows them: short, aligned by who uses them, and harmless. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from msgtap_sqlite.reader import Tokens

UNKNOWN = "–"
_KEPT_WHOLE = 10_000
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_LEAST = 0.0001
_MINUTE, _HOUR = 60, 3600
_THOUSAND = 999.5  # what rounds to it


def count(number: int) -> str:
    """A number of tokens, in five characters: ``6,812``, ``81.2k``, ``5.12M``."""
    if number < _KEPT_WHOLE:
        return f"{number:,}"
    size, unit = next((size, unit) for size, unit in _UNITS if number >= size * _THOUSAND / 1000)
    return f"{_digits(number / size)}{unit}"


def tokens_in(tokens: Tokens) -> int:
    """All tokens that the models read, from the cache or not."""
    return tokens.input + tokens.cache_read + tokens.cache_write_5m + tokens.cache_write_1h


def tokens_out(tokens: Tokens) -> int:
    """All tokens that the models wrote, thinking or answering."""
    return tokens.output + tokens.thinking


def duration(seconds: float | None) -> str:
    """A duration: ``0.42ms``, ``420ms``, ``1.23s``, ``4m05s``, ``2h07m``."""
    if seconds is None:
        return UNKNOWN
    milliseconds = seconds * 1000
    if milliseconds < _THOUSAND:
        return f"{f'{milliseconds:.2g}' if milliseconds < 1 else f'{milliseconds:.0f}'}ms"
    if seconds < _MINUTE - 0.05:
        return f"{_digits(seconds)}s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}s"
    return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"


def _digits(number: float) -> str:
    """Three digits that count: ``1.23``, ``12.3``, ``123``."""
    return f"{number:,.0f}" if number >= _THOUSAND else f"{number:#.3g}".rstrip(".")


def money(dollars: float | None, *, partly: bool = False) -> str:
    """An amount in USD; with ``partly`` it is the least that it can be."""
    if dollars is None:
        return UNKNOWN
    if 0 < dollars < _LEAST:
        return f"<${_LEAST}"
    places = 2 if dollars >= 1 or dollars == 0 else 3 if dollars >= 0.1 else 4  # noqa: PLR2004  # three digits
    return f"${dollars:,.{places}f}{'+' if partly else ''}"


def share(part: int, whole: int) -> str:
    """A part in per cent; what is not nothing is never ``0%``, and what is not all never ``100%``."""
    if not part or not whole:
        return "0%" if whole else UNKNOWN
    percent = 100 * part / whole
    if percent < 1:
        return "<1%"
    return f"{min(round(percent), 99) if part < whole else 100}%"


def clock(moment: datetime) -> str:
    """The time of day where the user is."""
    return f"{moment.astimezone():%H:%M:%S}"


def hour(key: str) -> str:
    """A report's hour, ``2026-11-24T13:00Z``, where the user is."""
    return f"{datetime.fromisoformat(key).astimezone():%a %d %b %H:%M}"


def printable(text: str) -> str:
    r"""``text`` with what a terminal would obey, or hide, as escapes such as ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text)


def fitted(text: str, width: int) -> str:
    """``text`` in exactly ``width`` columns of a terminal; one that is too long keeps its beginning and its end."""
    if cell_len(text) > width:
        tail = (width - 1) // 3
        end = text[len(text) - tail :] if cell_len(text) == len(text) else ""
        text = f"{set_cell_size(text, width - 1 - len(end))}…{end}"
    return text + " " * (width - cell_len(text))
