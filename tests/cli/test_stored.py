"""The commands that read the store, on calls that were made."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from click.testing import CliRunner
from opentelemetry.sdk.metrics import MeterProvider

import msgtap
from msgtap.cli.commands import msgtap as command
from msgtap.exporting import build
from msgtap.testing import replies
from msgtap.testing.endpoint import Endpoint
from msgtap.testing.replies import Answer, OpenRouterAnswer
from msgtap_sqlite.writer import writer

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

MSGTAP = [sys.executable, "-m", "msgtap.cli"]
TIMEOUT = 60
EVIL = "a\x1b[31mred\u202eb"

CALLS = [
    ({"session_id": "claim-44", "user": "ana"}, replies.message(Answer(model="claude-sonnet-5-20260901"))),
    ({"session_id": "claim-44", "user": "ana"}, replies.overloaded()),
    ({"session_id": "claim-44", "user": "ben"}, replies.stream(Answer(model="claude-opus-4-1-20250805"))),
    ({"session_id": EVIL}, replies.openrouter_message(OpenRouterAnswer(model="anthropic/claude-sonnet-5"))),
    ({}, replies.html_error(502)),
]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with those calls in it."""
    for name in list(os.environ):
        if name.startswith(("OTEL_", "MSGTAP_", "NO_COLOR", "FORCE_COLOR")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MSGTAP_STORE", str(tmp_path / "calls.db"))
    call_all()
    return tmp_path / "calls.db"


def call_all() -> None:
    """Make the calls, from this process."""
    pipelines = build({"traces": ["sqlite"], "metrics": [], "logs": ["sqlite"]}, "claims", os.environ)
    providers = (pipelines.tracer_provider, pipelines.logger_provider)
    msgtap.instrument(tracer_provider=providers[0], meter_provider=MeterProvider(), logger_provider=providers[1])
    try:
        with Endpoint(replies=[reply for _, reply in CALLS]) as endpoint:
            for ids, _ in CALLS:
                body = {"model": "claude-sonnet-5", "max_tokens": 64, "messages": [], "stream": "stream" in ids, **ids}
                httpx.post(f"{endpoint.url}/v1/messages", json=body)
    finally:
        msgtap.uninstrument()
        for provider in providers:
            provider.shutdown()
        assert writer(os.environ).flush(TIMEOUT)


def run(*arguments: str, text: str = "", **environ: str) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(command, arguments, input=text, env={"COLUMNS": "80", **environ}, prog_name="msgtap")


def report(*arguments: str) -> dict[str, Any]:
    """A report, as JSON."""
    found: dict[str, Any] = json.loads(run("report", "--json", *arguments).stdout)
    return found


@pytest.mark.usefixtures("store")
def test_dimensions() -> None:
    """Calls can be added up by each of the dimensions, in all of which they are as many."""
    found = {by: report("--by", by) for by in ("model", "service", "session", "user", "provider", "client", "error")}
    assert {5} == {one["total"]["calls"] for one in found.values()}
    keys = {by: [row["key"] for row in one["rows"]] for by, one in found.items()}
    assert {"claim-44", EVIL, None} == set(keys["session"])
    assert {"overloaded_error", "502", None} == set(keys["error"])
    assert (["claims"], ["httpx"]) == (keys["service"], keys["client"])


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("calls", "arguments"),
    [
        (3, ["--session", "claim-44"]),
        (1, ["--session", "claim-44", "--user", "ben"]),
        (2, ["--error"]),
        (1, ["--error", "overloaded_error"]),
        (1, ["--model", "claude-opus-*"]),
        (5, ["--since", "1h"]),
        (0, ["--until", "1h"]),
        (0, ["--session", "nobody"]),
        (5, ["--limit", "1"]),
    ],
)
def test_filters(calls: int, arguments: list[str]) -> None:
    """Each filter narrows the report, and they add up; a limit is of rows, not of calls."""
    assert calls == report(*arguments)["total"]["calls"]


def test_table(store: Path) -> None:
    """The table goes to standard output; where the calls are kept is said on standard error."""
    found = run("report", "--by", "session")
    assert (0, f"store  {store}\n") == (found.exit_code, found.stderr)
    lines = found.stdout.splitlines()
    assert ("Calls by session", True) == (lines[0], r"a\x1b[31mred\u202eb" in found.stdout)
    assert 80 >= max(map(len, lines))
    assert "+ the cost of 4 more calls is unknown: their answers did not tell it." == lines[-1]


@pytest.mark.usefixtures("store")
def test_colours() -> None:
    """Colours are for terminals, or for who asks for them; NO_COLOR is obeyed."""
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    found = [run("report", **environ).stdout for environ in ({}, terminal, {**terminal, "NO_COLOR": "1"})]
    escapes = [text.count("\x1b[3") for text in found]
    assert (0, True, 0) == (escapes[0], escapes[1] > 0, escapes[2])


@pytest.mark.usefixtures("store")
def test_ascii_terminal() -> None:
    """A terminal that knows no more than ASCII gets no more."""
    found = [CliRunner(charset="ascii").invoke(command, words) for words in (["report"], ["tail", "--no-follow"])]
    assert [(0, True)] * 2 == [(one.exit_code, one.stdout.isascii()) for one in found]
    assert "####" in found[0].stdout


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "--session", "nobody"], "no calls --session nobody; what there is: msgtap report --by session"),
        (["report", "--until", "1h"], "no calls in that time"),
        (["report", "--run", "last"], "no run has made a call yet; begin with: msgtap run -- python your_app.py"),
        (["report", "--run", "0123"], "no calls --run '0123*'"),
    ],
)
def test_nothing_found(arguments: list[str], said: str) -> None:
    """Where nothing matches, a line says what would."""
    found = run(*arguments)
    assert (1, "", f"Error: {said}\n") == (found.exit_code, found.stdout, found.stderr)


@pytest.mark.usefixtures("store")
def test_tail() -> None:
    """The last calls, a line each and none of them cut, since this is no terminal."""
    lines = run("tail", "--no-follow", "-n", "3").stdout.splitlines()
    assert ["claude-opus-4-1", "anthropic/claude-sonnet-5", "claude-sonnet-5"] == [line.split()[1] for line in lines]
    assert lines[1].endswith(r"a\x1b[31mred\u202eb")
    errors = run("tail", "--no-follow", "--error", "--json").stdout.splitlines()
    assert ["overloaded_error", "502"] == [json.loads(line)["error"] for line in errors]


def test_tail_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for a store, then for calls, and ends by Ctrl-C without a word."""
    monkeypatch.setenv("MSGTAP_STORE", str(tmp_path / "calls.db"))
    pipe = subprocess.PIPE
    with subprocess.Popen([*MSGTAP, "tail", "--json"], stdout=pipe, stderr=pipe, text=True) as process:
        watchdog = threading.Timer(TIMEOUT, process.kill)
        watchdog.start()
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline().startswith("waiting for the first call; there is no ")
        call_all()
        found = [json.loads(process.stdout.readline())["session"] for _ in CALLS]
        call_all()
        found += [json.loads(process.stdout.readline())["session"] for _ in CALLS]
        process.send_signal(signal.SIGINT)
        assert (-signal.SIGINT, "", "") == (process.wait(TIMEOUT), process.stdout.read(), process.stderr.read())
        watchdog.cancel()
    assert 2 * [ids.get("session_id") for ids, _ in CALLS] == found


@pytest.mark.parametrize(
    ("arguments", "answer", "left"),
    [
        (["--user", "ana", "--yes"], "", 3),
        (["--session", "claim-44"], "y\n", 2),
        (["--session", "claim-44"], "n\n", 5),
        (["--session", "claim-44"], "", 5),
        (["--user", "nobody", "--yes"], "", 5),
    ],
)
def test_erase(store: Path, arguments: list[str], answer: str, left: int) -> None:
    """What was named is gone from the disk, once the user has said yes; nothing else is."""
    assert "" == run("erase", *arguments, text=answer).stdout
    assert left == report("--by", "session")["total"]["calls"]
    files = b"".join(path.read_bytes() for path in store.parent.rglob("*") if path.is_file())
    assert (left == 5) == (arguments[1].encode() in files or arguments[1] == "nobody")


@pytest.mark.usefixtures("store")
def test_erase_asks() -> None:
    """The question says how much would be erased, and the answer how much was."""
    found = run("erase", "--user", "ana", text="y\n")
    assert found.stderr.startswith("Erase 2 calls of user ana from ")
    assert found.stderr.endswith("Erased 2 calls, 2 spans and 0 log records of user ana.\n")


@pytest.mark.usefixtures("store")
def test_completes_names() -> None:
    """A shell completes the names that are in the store."""
    asked = {"_MSGTAP_COMPLETE": "bash_complete", "COMP_WORDS": "msgtap report --session cl", "COMP_CWORD": "3"}
    assert "plain,claim-44\n" == run(**asked).stdout
