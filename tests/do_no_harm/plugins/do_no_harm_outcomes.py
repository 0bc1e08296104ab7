"""A pytest plugin that writes down what became of each test. It knows nothing of msgtap."""

from __future__ import annotations

import json
import os
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = "DO_NO_HARM_FOLDER"
LEAVE_OUT = "DO_NO_HARM_LEAVE_OUT"


class Outcomes:
    """Verdicts by test, and the tests that were left out by pattern."""

    def __init__(self, folder: Path, leave_out: Mapping[str, str]) -> None:
        self._folder = folder
        self._leave_out = leave_out
        self._verdicts: dict[str, str] = {}
        self._left_out: dict[str, str] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Take out what a pattern names, before the suite's own hooks see it."""
        out = [item for item in items if self._reason(item.nodeid) is not None]
        if out:
            self._left_out.update({item.nodeid: self._reason(item.nodeid) or "" for item in out})
            items[:] = [item for item in items if item.nodeid not in self._left_out]
            config.hook.pytest_deselected(items=out)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be collected is an outcome too."""
        if report.failed:
            self._verdicts[f"{report.nodeid} (collection)"] = f"failed {_crash(report)}".rstrip()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Each of a test's phases adds to its verdict, unless it passed and says nothing new."""
        verdict = _verdict(report)
        if verdict is not None:
            before = self._verdicts.get(report.nodeid)
            self._verdicts[report.nodeid] = verdict if before is None else f"{before}, {verdict}"

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write a file of this process's own: under pytest-xdist there are several."""
        del session
        document = {"verdicts": self._verdicts, "left_out": self._left_out}
        (self._folder / f"outcomes-{os.getpid()}.json").write_text(json.dumps(document), encoding="utf-8")

    def _reason(self, nodeid: str) -> str | None:
        return next((reason for pattern, reason in self._leave_out.items() if fnmatch(nodeid, pattern)), None)


def _verdict(report: pytest.TestReport) -> str | None:
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    if report.when == "call" or report.skipped:
        return f"{report.outcome} {_crash(report)}".rstrip()
    return f"{report.when} {report.outcome} {_crash(report)}".rstrip() if report.failed else None


def _crash(report: pytest.CollectReport | pytest.TestReport) -> str:
    """The name of the exception; its text may hold addresses and times. An assert that pytest rewrote has none."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if not report.failed or crash is None:
        return ""
    name = str(crash.message).split("\n", 1)[0].split(":", 1)[0]
    return "AssertionError" if name.startswith("assert ") else name


def pytest_configure(config: pytest.Config) -> None:
    """Start writing down."""
    leave_out: dict[str, str] = json.loads(os.environ[LEAVE_OUT])
    outcomes = Outcomes(Path(os.environ[FOLDER]), leave_out)
    if hasattr(config, "workerinput"):
        # A worker of pytest-xdist sends its reports to the controller, which writes them down.
        vars(outcomes)["pytest_runtest_logreport"] = _ignore
    config.pluginmanager.register(outcomes)


def _ignore(report: pytest.TestReport) -> None: ...
