"""What a newcomer runs first: the demo, the example and the blocks of the README."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def run(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command in a child process, its output as text."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "MSGTAP_"))}
    environment = {**inherited, "COLUMNS": "80", "NO_COLOR": "1", **environ}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


def msgtap(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command line, as its console script calls it."""
    return run("-c", "from msgtap.cli import main; main()", *arguments, **environ)


def test_demo_shows_every_attempt() -> None:
    """The demo ends well and shows sixteen attempts, with tokens, errors, session, user and cost; no line is longer."""
    shown = msgtap("demo")
    assert (0, "") == (shown.returncode, shown.stderr)
    assert "14 calls, 16 attempts, 6 of them failed" in shown.stdout
    table = shown.stdout.partition("14 calls")[0]
    for fact in (
        "6,812",
        "284",
        "rate_limit_error",
        "overloaded_error",
        "stream_truncated",
        "502",
        "claim-44",
        "eve",
        "$0.0055",
    ):
        assert fact in table
    assert 80 >= max(map(len, table.splitlines()))


@pytest.mark.parametrize("environ", [{"MSGTAP_DISABLED": "1"}, {"OTEL_TRACES_SAMPLER": "always_off"}])
def test_demo_without_spans(environ: dict[str, str]) -> None:
    """Where the environment switches telemetry off, the demo says so and ends well."""
    shown = msgtap("demo", **environ)
    assert (0, "") == (shown.returncode, shown.stderr)
    assert "No spans were made" in shown.stdout


def test_an_unknown_exporter_is_a_line() -> None:
    """A user's mistake is answered with what would have worked, and without a traceback."""
    shown = msgtap("demo", "--exporter", "nowhere")
    assert 1 == shown.returncode
    assert "no exporter named 'nowhere'; installed: " in shown.stderr
    assert "Traceback" not in shown.stderr


def test_help_teaches_by_example() -> None:
    """Each help has examples, a line each."""
    assert "\n    msgtap demo  " in msgtap("--help").stdout
    assert "\n    msgtap demo --exporter otlp " in msgtap("demo", "--help").stdout


def test_the_readme_shows_what_the_example_prints() -> None:
    """Every attribute and metric of the README's first screen is in the output of the example it names."""
    example = run(str(ROOT / "examples" / "01_quickstart.py"))
    assert (0, 1) == (example.returncode, example.stdout.count("\n"))
    blocks = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    names = re.findall(r"^ +([a-z_.]+) = |^(?:metric|log) +([a-z_.]+)", "".join(blocks), re.MULTILINE)
    assert names
    for name in {name for pair in names for name in pair if name}:
        assert name in example.stderr
