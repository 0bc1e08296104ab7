"""Where the store is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from msgtap_sqlite.place import Place, StoreError, locate, prepare

HOME = Path.home()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"MSGTAP_STORE": "/data/x.db", "XDG_STATE_HOME": "/state"}, Path("/data/x.db")),
        ({"MSGTAP_STORE": "~/x.db"}, HOME / "x.db"),
        ({"MSGTAP_STORE": "x.db"}, Path.cwd() / "x.db"),
        ({"MSGTAP_STORE": "", "XDG_STATE_HOME": "/state"}, Path("/state/msgtap/calls.db")),
        ({"XDG_STATE_HOME": "state"}, HOME / ".local/state/msgtap/calls.db"),
        ({}, HOME / ".local/state/msgtap/calls.db"),
    ],
)
def test_locate(environ: dict[str, str], expected: Path) -> None:
    """The variable, else the state directory of the XDG specification."""
    assert expected == locate(environ).database


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home directory is told what to set."""

    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(StoreError, match="no home directory: set MSGTAP_STORE"):
        locate({})


@pytest.mark.parametrize("umask", [0, 0o777])
def test_prepare(tmp_path: Path, umask: int, with_umask: Callable[[int], None]) -> None:
    """The store's directories are this user's alone, whatever the umask; those above are as usual."""
    place = Place(tmp_path / "msgtap" / "calls.db")
    with_umask(umask)
    prepare(place)
    prepare(place)
    assert [0o700, 0o700] == [path.stat().st_mode & 0o777 for path in (place.database.parent, place.journals)]


def test_existing_directory_is_left_alone(tmp_path: Path) -> None:
    """A directory that is there already keeps its mode."""
    tmp_path.chmod(0o755)
    prepare(Place(tmp_path / "calls.db"))
    assert 0o755 == tmp_path.stat().st_mode & 0o777


@pytest.mark.parametrize("path", ["/proc/none/calls.db", "/dev/null/msgtap/calls.db"])
def test_unwritable(path: str) -> None:
    """Where nothing can be written, the user is told so, and what to set."""
    with pytest.raises(StoreError, match=r"cannot write to .*; set MSGTAP_STORE"):
        prepare(Place(Path(path)))


def test_file_in_the_way(tmp_path: Path) -> None:
    """A file where the directory should be is an error that names it."""
    (tmp_path / "calls.db.journal").touch()
    with pytest.raises(StoreError, match="File exists"):
        prepare(Place(tmp_path / "calls.db"))
