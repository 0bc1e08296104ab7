"""``msgtap erase``: one user's or one session's calls leave the store, and the disk."""

from __future__ import annotations


def erase(user: str | None, session: str | None, *, sure: bool) -> None:
    """Erase what is stored of ``user`` or of ``session``; ask first, unless the user is ``sure``."""
