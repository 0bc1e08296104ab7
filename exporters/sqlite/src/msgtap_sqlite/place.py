"""Where the store is."""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot be used; the text is a line for the user."""
