"""What may be typed, and what is said to those who mistype."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from msgtap.cli.commands import msgtap

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

PAGES = ("", "run", "report", "tail", "erase", "demo", "completion")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    """The command, with a store of its own, that is not there yet."""
    environ = {"MSGTAP_STORE": str(tmp_path / "calls.db"), "COLUMNS": "80", "TERM": "dumb"}
    return lambda *arguments, **more: CliRunner().invoke(msgtap, arguments, env=environ | more, prog_name="msgtap")


@pytest.mark.parametrize("page", PAGES)
def test_help(run: Callable[..., Result], page: str) -> None:
    """Each page teaches by example, and fits a terminal of 80 columns."""
    shown = run(*page.split(), "--help").stdout
    assert 80 >= max(map(len, shown.splitlines()))
    assert f"msgtap {page}".strip() in shown.partition("\n")[2]
    assert "\b" not in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(run: Callable[..., Result], shell: str) -> None:
    """Each shell gets a script that asks msgtap back."""
    assert "_MSGTAP_COMPLETE" in run("completion", shell).stdout


def test_completes_options(run: Callable[..., Result]) -> None:
    """The script's question is answered, even where there is no store."""
    asked = {"_MSGTAP_COMPLETE": "bash_complete", "COMP_WORDS": "msgtap report --b", "COMP_CWORD": "2"}
    assert "plain,--by" in run(**asked).stdout
    asked = {"_MSGTAP_COMPLETE": "bash_complete", "COMP_WORDS": "msgtap report --model ", "COMP_CWORD": "3"}
    assert ("\n", "") == ((done := run(**asked)).stdout, done.stderr)


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
def test_mistakes(run: Callable[..., Result], arguments: list[str], said: str) -> None:
    """A mistake is answered with what to do, in words and not in a traceback."""
    done = run(*arguments)
    assert (True, True, "") == (done.exit_code > 0, said in done.stderr, done.stdout)


def test_foreign_file(run: Callable[..., Result], tmp_path: Path) -> None:
    """A file that is no store is named, and not touched."""
    (tmp_path / "calls.db").write_bytes(b"letters to grandmother " * 100)
    done = run("report")
    assert (1, 1, b"letters to grandmother " * 100) == (
        done.exit_code,
        len(done.stderr.splitlines()),
        (tmp_path / "calls.db").read_bytes(),
    )
