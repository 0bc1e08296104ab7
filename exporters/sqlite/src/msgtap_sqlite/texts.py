"""The dictionary: each repeated string is a row of ``text``, and everywhere else its number."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

_REMEMBERED = 50_000
"""Most ids kept in memory; sessions are without end."""

_encoder = msgspec.json.Encoder(enc_hook=str)


class Texts:
    """Codes strings, inside a transaction that writes; what it has seen it remembers until the epoch changes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._ids: dict[str, int] = {}
        self._keys: dict[tuple[str, ...], int] = {}
        self._epoch = -1

    def begin(self) -> None:
        """A transaction has begun."""
        (epoch,) = self._connection.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()
        if epoch != self._epoch or len(self._ids) > _REMEMBERED:
            self.forget()
            self._epoch = epoch

    def forget(self) -> None:
        """A transaction was rolled back, and its new ids with it."""
        self._ids.clear()
        self._keys.clear()

    def known(self, value: str | None) -> int | None:
        """The id of a text that may be absent."""
        return None if value is None else self.code(value)

    def code(self, value: str) -> int:
        """The id of a text, which is made if need be."""
        found = self._ids.get(value)
        if found is None:
            found = self._ids[value] = self._look_up(value)
        return found

    def _look_up(self, value: str) -> int:
        row = self._connection.execute("SELECT id FROM text WHERE value = ?", (value,)).fetchone()
        if row is not None:
            return int(row[0])
        made = self._connection.execute("INSERT INTO text (value) VALUES (?)", (value,)).lastrowid
        assert made is not None  # noqa: S101  # an INSERT has one
        return made

    def split(self, attributes: dict[str, Any]) -> tuple[int, str]:
        """Attributes as the id of their names and the JSON of their values: names are most of the bytes."""
        names = tuple(attributes)
        keys = self._keys.get(names)
        if keys is None:
            keys = self._keys[names] = self.code(_encoder.encode(names).decode())
        return keys, _encoder.encode(list(attributes.values())).decode()


def joined(keys: str, values: str) -> dict[str, Any]:
    """What `Texts.split` took apart."""
    return dict(zip(msgspec.json.decode(keys), msgspec.json.decode(values), strict=True))
