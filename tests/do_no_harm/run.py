"""Run other projects' test suites with and without msgtap, and tell what came out differently, test by test.

    python tests/do_no_harm/run.py                      # every suite of suites.toml
    python tests/do_no_harm/run.py httpx-0.28 --mode every --python python3.11

Needs the package index, and nothing beside Python. Exit status 0: each suite that has tests ran, msgtap saw calls of
it, and no outcome changed and no failure of msgtap's own was counted but for the reasons that suites.toml gives.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODES = ("default", "nest", "ignore", "every", "failing", "unshielded")
PLAIN = "plain"
HOUR = 3600
# What of this shell could change a result.
HIDDEN = ("MSGTAP_", "OTEL_", "PYTEST_", "PYTHON", "ANTHROPIC_", "AWS_", "VIRTUAL_ENV", "DO_NO_HARM_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A row of suites.toml.

    Args:
        name: how it is chosen on the command line.
        project: the requirement whose sdist holds the tests.
        install: requirements beside msgtap; ``{source}`` is the unpacked sdist.
        version_of: the distribution whose version the table shows; default: the project's.
        files: what to keep of the sdist; default: all.
        pytest: further arguments.
        plugins: pytest plugins of the folder ``plugins``, loaded in every run.
        modes: as do_no_harm_msgtap.py describes them.
        server: a script of this folder that prints a URL and serves there until its standard input ends.
        environment: variables; ``{server}`` is that URL.
        ports: ports of 127.0.0.1 that the suite's own servers are fixed to.
        leave_out: tests that cannot run here, each pattern with its reason.
        expected: differences that are meant: patterns, reason, and perhaps the only modes.
        provoked: tests that break what msgtap stands on, each pattern with its reason; msgtap may count failures there.
    """

    name: str
    project: str
    install: Sequence[str]
    version_of: str | None = None
    files: Sequence[str] = ()
    pytest: Sequence[str] = ()
    plugins: Sequence[str] = ()
    modes: Sequence[str] = ("default",)
    server: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: Sequence[int] = ()
    leave_out: Sequence[Mapping[str, str]] = ()
    expected: Sequence[Mapping[str, Any]] = ()
    provoked: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a suite.

    Args:
        verdicts: what became of each test.
        left_out: tests that were not run, each with its reason.
        msgtap: what msgtap counted.
        failures: how often it failed in each test.
    """

    verdicts: Mapping[str, str]
    left_out: Mapping[str, str]
    msgtap: Mapping[str, int]
    failures: Mapping[str, int]


class CannotRunError(Exception):
    """Why a suite is not run."""


def suites(text: str) -> dict[str, Suite]:
    """The rows by name."""
    return {row["name"]: Suite(**row) for row in tomllib.loads(text)["suite"]}


# Preparing.


def command(
    *words: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, keeping what it prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=inherited | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=HOUR,
        check=False,
    )


def must(*words: str | Path) -> str:
    """The output of a program that must succeed, or the suite cannot run."""
    done = command(*words)
    if done.returncode:
        raise CannotRunError(f"{' '.join(map(str, words))}\n{done.stderr.strip()}")
    return done.stdout


def install(python: Path, *words: str | Path) -> None:
    """Pip, for the environment of ``python``."""
    must(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words)


def unpack(suite: Suite, python: Path, folder: Path) -> Path:
    """The project's sdist, fetched with pip, unpacked afresh: a suite that writes into itself does so once."""
    name = suite.project.partition("==")[0]
    sdists = folder / "sdist"
    if suite.project == name:  # the newest: not beside an older one
        shutil.rmtree(sdists, ignore_errors=True)
    must(python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name, "--dest", sdists, suite.project)
    (archive,) = sdists.glob("*.tar.gz")
    shutil.rmtree(folder / "source", ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "source", filter="data")
    source = folder / "source" / archive.name.removesuffix(".tar.gz")
    if suite.files:
        for path in source.iterdir():
            if path.name not in suite.files:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not (source / "tests").is_dir():
        raise CannotRunError(f"{archive.name} has no tests")
    return source


def prepare(suite: Suite, interpreter: str, folder: Path) -> tuple[Path, Path]:
    """The environment's Python and the unpacked project; made where it is not there yet or was made otherwise."""
    key = hashlib.sha256(repr((suite.project, suite.install)).encode()).hexdigest()
    venv, made = folder / "venv", folder / "venv-of"
    python = venv / "bin" / "python"
    fresh = not made.exists() or made.read_text() != key
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
        must(interpreter, "-m", "venv", venv)
    source = unpack(suite, python, folder)
    if fresh:
        wanted = [requirement.replace("{source}", str(source)) for requirement in suite.install]
        install(python, *wanted, ROOT)
        made.write_text(key)
    # Not editable: what others edit meanwhile must not change a run.
    install(python, "--no-deps", "--force-reinstall", ROOT)
    return python, source


def free(ports: Sequence[int]) -> None:
    """See to it that nobody holds a port that the suite is fixed to; its server would wait for ever."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise CannotRunError(f"its own server needs port {port} of 127.0.0.1: {error}") from error


@contextmanager
def serving(suite: Suite, python: Path) -> Iterator[str]:
    """The URL of the suite's server, while the block runs; empty where it has none."""
    if suite.server is None:
        yield ""
        return
    with subprocess.Popen(
        [python, HERE / suite.server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None and server.stdout is not None  # noqa: PT018  # both are pipes
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()


# Running.


def run(suite: Suite, python: Path, source: Path, mode: str, server: str) -> Run:
    """Run the suite once."""
    free(suite.ports)
    folder = source.parent.parent / f"run-{mode}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    plugins = ["do_no_harm_outcomes", *suite.plugins, *([] if mode == PLAIN else ["do_no_harm_msgtap"])]
    leave_out = {row["tests"]: row["reason"] for row in suite.leave_out}
    environment = {
        "DO_NO_HARM_FOLDER": str(folder),
        "DO_NO_HARM_LEAVE_OUT": json.dumps(leave_out),
        "DO_NO_HARM_MODE": mode,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(HERE / "plugins"),
        **{name: value.replace("{server}", server) for name, value in suite.environment.items()},
    }
    chosen = [word for plugin in plugins for word in ("-p", plugin)]
    done = command(
        python,
        *("-m", "pytest", "-p", "no:cacheprovider", *chosen, *suite.pytest),
        cwd=source,
        environment=environment,
    )
    (folder / "output.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode not in (0, 1):  # all passed, or some failed; all else is no run of the tests
        raise CannotRunError(f"pytest ended with status {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")
    return read(folder)


def read(folder: Path) -> Run:
    """What the plugins wrote, each process its own file."""
    verdicts: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for path in folder.glob("outcomes-*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        verdicts |= document["verdicts"]
        left_out |= document["left_out"]
    counted: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for path in folder.glob("msgtap-*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        counted.update(_numbers(document))
        failures.update(document["failures"])
    return Run(verdicts=verdicts, left_out=left_out, msgtap=dict(counted), failures=dict(failures))


def _numbers(document: Mapping[str, Any]) -> dict[str, int]:
    flat = {name: value for name, value in document.items() if isinstance(value, int)}
    flat["calls"] = sum(document["endings"].values())
    for group in ("endings", "shield"):
        flat |= {f"{group}.{name}": number for name, number in document[group].items()}
    return flat


# Comparing.


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A test whose outcome changed. ``reason`` is why that is meant; ``steady``: it changed so twice."""

    test: str
    without: str
    with_msgtap: str
    steady: bool
    reason: str | None


def flaky(first: Run, second: Run) -> set[str]:
    """The tests that do not agree with themselves without msgtap."""
    tests = first.verdicts.keys() | second.verdicts.keys()
    return {test for test in tests if first.verdicts.get(test) != second.verdicts.get(test)}


def changed(plain: Run, other: Run) -> dict[str, tuple[str, str]]:
    """The tests whose verdict differs: without and with."""
    tests = sorted(plain.verdicts.keys() | other.verdicts.keys())
    pairs = {test: (plain.verdicts.get(test, "not run"), other.verdicts.get(test, "not run")) for test in tests}
    return {test: pair for test, pair in pairs.items() if pair[0] != pair[1]}


def explained(suite: Suite, mode: str, test: str) -> str | None:
    """Why a difference is meant, if it is."""
    rows = [row for row in suite.expected if mode in row.get("modes", MODES)]
    return next((row["reason"] for row in rows if any(fnmatch(test, pattern) for pattern in row["tests"])), None)


def unprovoked(suite: Suite, failures: Mapping[str, int]) -> dict[str, int]:
    """The tests in which msgtap failed by its own fault, and how often."""
    patterns = [row["tests"] for row in suite.provoked]
    return {test: count for test, count in failures.items() if not any(fnmatch(test, name) for name in patterns)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A line of the table, and the lists below it."""

    suite: str
    version: str
    python: str
    mode: str
    plain: Run
    run: Run
    differences: Sequence[Difference]
    flaky: Sequence[str]
    failures: Mapping[str, int]

    @property
    def good(self) -> bool:
        """No harm was done. What did not differ a second time is told, and is the suite's own doing."""
        meant = all(difference.reason is not None or not difference.steady for difference in self.differences)
        return meant and not self.failures


def compare(suite: Suite, interpreter: str, cache: Path, modes: Sequence[str]) -> Iterator[Result]:
    """Run the suite twice without msgtap and once in each mode; again where something unexplained differs."""
    folder = cache / f"{suite.name}-{_version(interpreter)}"
    python, source = prepare(suite, interpreter, folder)
    distribution = suite.version_of or suite.project.partition("==")[0]
    version = must(python, "-c", f"from importlib.metadata import version; print(version({distribution!r}))").strip()
    with serving(suite, python) as server:
        first = run(suite, python, source, PLAIN, server)
        unsteady = flaky(first, run(suite, python, source, PLAIN, server))
        for mode in modes:
            once = run(suite, python, source, mode, server)
            found = {test: pair for test, pair in changed(first, once).items() if test not in unsteady}
            again = found
            if any(explained(suite, mode, test) is None for test in found):
                again = changed(first, run(suite, python, source, mode, server))
            result = Result(
                suite=suite.name,
                version=f"{distribution} {version}",
                python=_version(interpreter),
                mode=mode,
                plain=first,
                run=once,
                differences=[
                    Difference(
                        test=test,
                        without=without,
                        with_msgtap=with_msgtap,
                        steady=again.get(test) == (without, with_msgtap),
                        reason=explained(suite, mode, test),
                    )
                    for test, (without, with_msgtap) in found.items()
                ],
                flaky=sorted(unsteady),
                failures={} if mode in ("failing", "unshielded") else unprovoked(suite, once.failures),
            )
            (folder / f"result-{mode}.json").write_text(json.dumps(dataclasses.asdict(result), indent=1))
            yield result


def _version(interpreter: str) -> str:
    return must(interpreter, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()


# Telling.


COLUMNS = (
    "suite",
    "version",
    "Python",
    "mode",
    "tests",
    "passed",
    "failed",
    "skipped",
    "differences",
    "of these meant",
    "flaky without",
    "left out",
    "calls",
    "spans",
    "durations",
    "log records",
    "still open",
    "internal errors",
)


def line(result: Result) -> list[object]:
    """The result's line of the table."""
    verdicts, counted = result.run.verdicts.values(), result.run.msgtap
    skipped = sum(verdict.startswith(("skipped", "xfailed")) for verdict in verdicts)
    passed = sum(verdict in ("passed", "xpassed") for verdict in verdicts)
    return [
        result.suite,
        result.version,
        result.python,
        result.mode,
        len(verdicts),
        passed,
        len(verdicts) - passed - skipped,
        skipped,
        len(result.differences),
        sum(difference.reason is not None for difference in result.differences),
        len(result.flaky),
        len(result.run.left_out),
        *(counted.get(name, 0) for name in ("calls", "spans", "durations", "logs", "open", "shield.internal_error")),
    ]


def table(rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in lines)


def details(result: Result) -> Iterator[str]:
    """What the numbers of the line stand for."""
    for difference in result.differences:
        kind = f"meant: {difference.reason}" if difference.reason else ("steady" if difference.steady else "once")
        yield f"differs ({kind}): {difference.test}: {difference.without} -> {difference.with_msgtap}"
    for test in result.flaky:
        yield f"flaky without msgtap: {test}"
    for test, number in result.failures.items():
        yield f"msgtap failed: {number} times: {test}"
    for name, number in Counter(_failed_both_ways(result)).items():
        yield f"failed both ways: {number} tests: {name}"
    for reason, number in Counter(result.run.left_out.values()).items():
        yield f"left out: {number} tests: {reason}"
    for name, number in sorted(result.run.msgtap.items()):
        if name.startswith(("endings.", "shield.")):
            yield f"counted: {name} {number}"


def _failed_both_ways(result: Result) -> Iterator[str]:
    for test, verdict in result.run.verdicts.items():
        if "failed" in verdict and result.plain.verdicts.get(test) == verdict:
            yield test.partition("[")[0]


def main() -> int:
    """The command."""
    rows = suites((HERE / "suites.toml").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", nargs="*", default=list(rows), help=f"any of {', '.join(rows)}; default: all")
    parser.add_argument("--mode", action="append", choices=MODES, help="default: those of the suite")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to test with; default: this one")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "do_no_harm", help="default: %(default)s")
    options = parser.parse_args()
    if unknown := [name for name in options.suite if name not in rows]:
        parser.error(f"no suite named {', '.join(unknown)}; there are: {', '.join(rows)}")
    cache = options.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    (cache / ".gitignore").write_text("*\n")
    results: list[Result] = []
    stopped: dict[str, str] = {}
    for name in options.suite:
        sys.stderr.write(f"{name} ...\n")
        try:
            # One at a time: what was found before a run that failed is told too.
            for result in compare(rows[name], options.python, cache, options.mode or rows[name].modes):
                results.append(result)  # noqa: PERF402  # see above
        except CannotRunError as error:
            stopped[name] = str(error)
    sys.stdout.write(table([line(result) for result in results]))
    for result in results:
        sys.stdout.write(f"\n{result.suite}, Python {result.python}, {result.mode}:\n")
        sys.stdout.writelines(f"  {text}\n" for text in details(result))
    for name, reason in stopped.items():
        sys.stdout.write(f"\n{name}: not run: {reason}\n")
    ran = {result.suite for result in results}
    seen = {result.suite for result in results if result.run.msgtap["calls"]}
    without_tests = all(reason.endswith("has no tests") for reason in stopped.values())
    return 0 if without_tests and ran == seen and all(result.good for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
