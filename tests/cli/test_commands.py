"""What may be typed, and what is said to those who mistype."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PAGES = ("", "run", "report", "tail", "erase", "demo", "completion")


def msgtap(tmp_path: Path, *arguments: str, text: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """The command, with a store of its own."""
    environment = {**os.environ, "MSGTAP_STORE": str(tmp_path / "calls.db"), "COLUMNS": "80", **environ}
    command = [sys.executable, "-m", "msgtap.cli", *arguments]
    return subprocess.run(command, env=environment, input=text, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("page", PAGES)
def test_help(tmp_path: Path, page: str) -> None:
    """Each page teaches by example, and fits a terminal of 80 columns."""
    shown = msgtap(tmp_path, *page.split(), "--help").stdout
    assert 80 >= max(map(len, shown.splitlines()))
    assert f"msgtap {page}".strip() in shown.partition("\n")[2]
    assert "\b" not in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(tmp_path: Path, shell: str) -> None:
    """Each shell gets a script that asks msgtap back."""
    assert "_MSGTAP_COMPLETE" in msgtap(tmp_path, "completion", shell).stdout


def test_completes_options(tmp_path: Path) -> None:
    """The script's question is answered, even where there is no store."""
    asked = {"_MSGTAP_COMPLETE": "bash_complete", "COMP_WORDS": "msgtap report --b", "COMP_CWORD": "2"}
    assert "plain,--by" in msgtap(tmp_path, **asked).stdout
    asked = {"_MSGTAP_COMPLETE": "bash_complete", "COMP_WORDS": "msgtap report --model ", "COMP_CWORD": "3"}
    assert ("\n", "") == ((done := msgtap(tmp_path, **asked)).stdout, done.stderr)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "--since", "soon"], "'soon' is no time; try 90m, 24h, 7d, today"),
        (["report", "--by", "colour"], "'colour' is not one of 'model', 'service', 'session'"),
        (["report"], "msgtap run"),
        (["report", "--run", "last"], "msgtap run"),
        (["tail", "--no-follow"], "msgtap run"),
        (["erase"], "name one of them: --user ID or --session ID"),
        (["erase", "--user", "a", "--session", "b"], "name one of them: --user ID or --session ID"),
        (["run"], "Missing argument 'COMMAND...'"),
        (["completion", "tcsh"], "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: list[str], said: str) -> None:
    """A mistake is answered with what to do, in words and not in a traceback."""
    done = msgtap(tmp_path, *arguments)
    assert (True, True, "") == (done.returncode > 0, said in done.stderr, done.stdout)
    assert "Traceback" not in done.stderr


def test_foreign_file(tmp_path: Path) -> None:
    """A file that is no store is named, and not touched."""
    (tmp_path / "calls.db").write_bytes(b"letters to grandmother " * 100)
    done = msgtap(tmp_path, "report")
    assert (1, 1, b"letters to grandmother " * 100) == (
        done.returncode,
        len(done.stderr.splitlines()),
        (tmp_path / "calls.db").read_bytes(),
    )
