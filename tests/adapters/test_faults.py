"""The table of faults: it has every place where msgtap might fail before the program's eyes, and each fault is felt."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import msgtap
from msgtap.testing import replies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.adapters.conftest import Fault, Row, Session, Transparency

SOURCE = Path(msgtap.__file__).parent
# What the program's calls run through. What `configure` and `flush` shield is called by nobody else.
WATCHED = ["tap.py", "correlation.py", "exchange.py", "adapters/*.py", "wire/*.py", "telemetry/*.py"]
# Runs at exit, when there is no program left to see anything; `test_httpx_processes` looks at what it prints.
AT_EXIT = {"tap.close_all"}
ATTEMPTED = {
    "observer.begin": "Observer.begin",
    "observation.sending": "Observer.sending",
    "observation.sent": "Observer.sent",
    "observation.progress": "Observer.progress",
    "observation.finish": "Observer.finish",
    "self._exchange.close": "Exchange.close",
    "processor": "Watcher.processors",
    "identifiers": "Watcher.identifiers",
    "open_span": "_Own.__init__",
    "self._span.finish": "_Own.finish",
    "owner.metrics.begin": "CallMetrics.begin",
    "self._owner.metrics.finish": "CallMetrics.finish",
    "self._owner.log.emit": "CallLog.emit",
}


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for pattern in WATCHED:
        for path in SOURCE.glob(pattern):
            module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
            yield module, ast.parse(path.read_text(encoding="utf-8"))


def _functions(owner: ast.Module | ast.ClassDef, name: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in owner.body:
        if isinstance(node, ast.ClassDef):
            yield from _functions(node, node.name)
        elif isinstance(node, ast.FunctionDef):
            yield f"{name}.{node.name}", node


def _names_of_attempt(tree: ast.Module) -> set[str]:
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported = {(node.module, name.name) for node in imports for name in node.names}
    return {"shield.attempt"} | ({"attempt"} if ("msgtap.shield", "attempt") in imported else set())


def test_the_table_of_faults_is_complete(faults: list[Fault]) -> None:
    """Every function behind the shield, and everything that is attempted, is made to fail."""
    shielded = {
        name
        for module, tree in _trees()
        for name, function in _functions(tree, module)
        if any(ast.unparse(decorator) == "shielded" for decorator in function.decorator_list)
    }
    attempted = {
        ast.unparse(node.args[0])
        for _, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in _names_of_attempt(tree)
    }
    names = {fault.name for fault in faults}
    assert set() == shielded - AT_EXIT - names
    assert ATTEMPTED.keys() == attempted
    assert set() == set(ATTEMPTED.values()) - names


async def _everything(session: Session) -> None:
    """Calls that between them pass through all of msgtap."""
    for ends in (True, True, True, False):
        await session.whole(user="u-1")
        stream = await session.stream()
        while await stream.chunk() is not None and ends:
            pass
        await stream.close()
    try:
        await session.whole()
    except Exception:  # noqa: BLE001  # the endpoint has hung up
        return
    raise AssertionError


ANSWERS = [
    replies.message(),
    replies.encoded(replies.stream(), "gzip"),
    replies.error(401),
    replies.stream_error_after(3),
    replies.overloaded(),
    replies.truncated_stream(),
    replies.encoded(replies.message(), "gzip"),
    replies.stream(),
    replies.silent(replies.CUT),
]


@pytest.mark.rows(client=["httpx2"], concurrency=["sync", "asyncio"])
def test_each_fault_is_felt(transparent: Transparency, row: Row, faults: list[Fault]) -> None:
    """Each fault of the table is counted when it strikes; one that never struck would show nothing."""
    felt = {fault.name: transparent.failures(fault, _everything, ANSWERS) for fault in faults}
    other = {"sync": "_AsyncStream", "asyncio": "_Stream"}[row.concurrency]
    # Nor is `_content` asked for where a response comes over the wire and no hook reads it.
    assert {f"adapters.httpx.{other}", "adapters.httpx._content"} == {
        name for name, number in felt.items() if not number
    }
