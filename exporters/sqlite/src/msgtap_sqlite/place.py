"""Where the store is: one database, and beside it a directory with the journal of each process that is writing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600


class StoreError(Exception):
    """The store cannot be used; the text is a line for the user."""


@dataclass(frozen=True, slots=True)
class Place:
    """A store's files; ``-wal`` and ``-shm`` beside the database are SQLite's own."""

    database: Path

    @property
    def journals(self) -> Path:
        """The directory of the journals."""
        return self.database.with_name(f"{self.database.name}.journal")


def locate(environ: Mapping[str, str]) -> Place:
    """Where the store is: ``MSGTAP_STORE``, else ``msgtap/calls.db`` in the user's state directory.

    Raises:
        StoreError: there is no home directory to look in.
    """
    if chosen := environ.get("MSGTAP_STORE"):
        return Place(Path(chosen).expanduser().absolute())
    state = Path(environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # the specification: a relative path counts as none
        try:
            state = Path.home() / ".local" / "state"
        except RuntimeError as error:
            raise StoreError("this user has no home directory: set MSGTAP_STORE to a file") from error
    return Place(state / "msgtap" / "calls.db")


def prepare(place: Place) -> None:
    """Make the directories.

    Raises:
        StoreError: they cannot be made, or not be written to.
    """
    try:
        for directory in (place.database.parent, place.journals):
            make_directory(directory)
    except OSError as error:
        raise StoreError(f"cannot write to {place.database.parent}: {error.strerror}; set MSGTAP_STORE") from error
    for directory in (place.database.parent, place.journals):
        if not os.access(directory, os.W_OK | os.X_OK):
            raise StoreError(f"cannot write to {directory}: permission denied; set MSGTAP_STORE")


def make_directory(directory: Path) -> None:
    """Make a directory that is this user's alone, whatever the umask, unless it is there."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        directory.mkdir(mode=DIRECTORY_MODE)
    except FileExistsError:
        if not directory.is_dir():
            raise
    else:
        directory.chmod(DIRECTORY_MODE)


def create(path: Path, flags: int) -> int:
    """Create a file that is this user's alone, whatever the umask; its descriptor.

    Raises:
        FileExistsError: it is there.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, FILE_MODE)
    os.fchmod(descriptor, FILE_MODE)
    return descriptor
