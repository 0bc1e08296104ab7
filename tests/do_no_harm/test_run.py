"""The comparison of two runs of a suite. The suites themselves take minutes and the package index: see README.md."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

HERE = Path(__file__).parent
run = SimpleNamespace(**runpy.run_path(str(HERE / "run.py")))
SUITES: dict[str, Any] = run.suites((HERE / "suites.toml").read_text(encoding="utf-8"))


def made(**verdicts: str) -> Any:
    """A run with these verdicts."""
    return run.Run(verdicts=verdicts, left_out={}, msgtap={}, failures={})


@pytest.mark.parametrize(
    ("expected", "plain", "other"),
    [
        ({}, {"a": "passed"}, {"a": "passed"}),
        ({"a": ("passed", "failed ValueError")}, {"a": "passed"}, {"a": "failed ValueError"}),
        ({"a": ("failed KeyError", "failed ValueError")}, {"a": "failed KeyError"}, {"a": "failed ValueError"}),
        ({"a": ("passed", "skipped")}, {"a": "passed", "b": "skipped"}, {"a": "skipped", "b": "skipped"}),
        ({"a": ("passed", "not run")}, {"a": "passed"}, {}),
        ({"a": ("not run", "passed")}, {}, {"a": "passed"}),
    ],
)
def test_any_other_outcome_is_a_change(expected: object, plain: dict[str, str], other: dict[str, str]) -> None:
    """An outcome, an exception's name, or a test's absence that differs is found; what agrees is not."""
    assert expected == run.changed(made(**plain), made(**other))


def test_a_test_that_disagrees_with_itself_is_flaky() -> None:
    """Flaky are the tests whose outcomes differ without msgtap."""
    first, second = made(a="passed", b="passed"), made(a="passed", b="failed OSError", c="passed")
    assert {"b", "c"} == run.flaky(first, second)


def test_a_reason_holds_for_its_modes_only() -> None:
    """A difference is meant where the pattern fits and the mode is named, or none is."""
    suite = run.Suite(
        name="s",
        project="p",
        install=[],
        expected=[
            {"reason": "enriched", "tests": ["t.py::enriched*"], "modes": ["default"]},
            {"reason": "always", "tests": ["t.py::always"]},
        ],
    )
    cases = [("default", "t.py::enriched[x]"), ("nest", "t.py::enriched[x]"), ("nest", "t.py::always"), ("nest", "t")]
    assert ["enriched", None, "always", None] == [run.explained(suite, *case) for case in cases]


def test_failures_of_msgtap_count_unless_provoked() -> None:
    """A failure of msgtap's own is forgiven only in tests that provoke it."""
    suite = run.Suite(name="s", project="p", install=[], provoked=[{"tests": "t.py::breaks*", "reason": "…"}])
    assert {"t.py::other": 2} == run.unprovoked(suite, {"t.py::breaks[1]": 9, "t.py::other": 2})


def test_processes_add_up(tmp_path: Path) -> None:
    """Each process of a run writes its own files; verdicts join, counts add up."""
    counts = {"endings": {"complete": 2, "closed": 1}, "spans": 3, "shield": {"wrong_type": 1}, "failures": {"a": 1}}
    for process, verdicts in enumerate([{"a": "passed"}, {"b": "skipped"}]):
        document = {"verdicts": verdicts, "left_out": {}}
        (tmp_path / f"outcomes-{process}.json").write_text(json.dumps(document))
        (tmp_path / f"msgtap-{process}.json").write_text(json.dumps(counts))
    result = run.read(tmp_path)
    assert {"a": "passed", "b": "skipped"} == result.verdicts
    assert {"a": 2} == result.failures
    assert {
        "calls": 6,
        "spans": 6,
        "endings.complete": 4,
        "endings.closed": 2,
        "shield.wrong_type": 2,
    } == result.msgtap


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_every_row_can_be_run(suite: Any) -> None:
    """A row names modes, scripts and plugins that exist, and a reason for all that it forgives."""
    assert set(suite.modes) <= set(run.MODES)
    assert all((HERE / "plugins" / f"{name}.py").exists() for name in suite.plugins)
    assert suite.server is None or (HERE / suite.server).exists()
    assert all(row["reason"] and row["tests"] for row in (*suite.leave_out, *suite.expected, *suite.provoked))
