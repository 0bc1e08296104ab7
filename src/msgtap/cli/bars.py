"""Bars in a line of text, eighths of a character fine. Pure."""

from __future__ import annotations

_FULL = "█"
_PARTS = " ▏▎▍▌▋▊▉"
_ASCII = "#"


def bar(part: float, whole: float, width: int, *, ascii_only: bool = False) -> str:
    """A bar of ``part`` in ``whole``, which is ``width`` characters; what is not nothing can be seen."""
    if part <= 0 or whole <= 0:
        return ""
    length = min(part / whole, 1.0) * width
    if ascii_only:
        return _ASCII * max(1, round(length))
    eighths = max(1, round(length * 8))
    return _FULL * (eighths // 8) + _PARTS[eighths % 8].strip()
