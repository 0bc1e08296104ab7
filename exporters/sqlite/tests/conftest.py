"""A store in a directory of its own, entries to fill it with, and a watch over our own failures."""

from __future__ import annotations

import itertools
import os
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from msgtap import semconv as names
from msgtap import shield
from msgtap_sqlite.entries import Entry, Log, Span, encode
from msgtap_sqlite.ingest import Ingester
from msgtap_sqlite.journal import Journal
from msgtap_sqlite.place import Place, prepare
from msgtap_sqlite.reader import Store, open_reader
from msgtap_sqlite.retention import Limits
from msgtap_sqlite.writer import Writer

START = 1_764_000_000_000
"""2025-11-24T16:00:00Z in milliseconds: a whole hour."""


@pytest.fixture(autouse=True)
def _nothing_failed() -> Iterator[None]:
    before = shield.counts().get("internal_error", 0)
    yield
    assert before == shield.counts().get("internal_error", 0)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A store that is not there yet."""
    found = Place(tmp_path / "state" / "calls.db")
    prepare(found)
    return found


Make = Callable[..., list[Entry]]


@pytest.fixture(scope="session")
def new_make() -> Callable[[], Make]:
    """Makes a `make`, for fixtures of a longer life than a test's."""
    return maker


@pytest.fixture
def make() -> Make:
    """Makes the span and the log record of a call, as msgtap's exporters get them."""
    return maker()


def maker() -> Make:
    """What `make` is; it numbers its calls."""
    numbers = itertools.count(1)

    def call(
        *, at: int = 0, service: str | None = "app", run: str | None = None, scope: str = names.SCOPE, **facts: Any
    ) -> list[Entry]:
        number = next(numbers)
        said = {"telemetry.sdk.language": "python", "service.name": service, "msgtap.run.id": run}
        resource = Raw(msgspec.json.encode({name: value for name, value in said.items() if value}))
        told = {facts_name(name): value for name, value in facts.items()}
        attributes = {
            names.OPERATION_NAME: "chat",
            names.PROVIDER_NAME: "anthropic",
            names.REQUEST_MODEL: "claude-sonnet-5",
            names.CLIENT: "httpx2",
            names.RESPONSE_ID: f"msg-{number}",
            names.DURATION: 1.0,
            **told,
        }
        time = (START + at) * 1_000_000
        trace_id, span_id = f"{number:032x}", f"{number:016x}"
        return [
            Span(resource, scope, trace_id, span_id, None, "chat", 3, time - 10**9, time, 0, attributes),
            Log(resource, names.SCOPE, time, trace_id, span_id, 9, names.EVENT_CALL, names.EVENT_CALL, attributes),
        ]

    return call


def facts_name(name: str) -> str:
    """``user_id`` for ``user.id``, and so on: the constants of `msgtap.semconv` in lower case."""
    return str(getattr(names, name.upper()))


@pytest.fixture(scope="session")
def take_in() -> Callable[[Place, Iterable[Entry]], None]:
    """Takes entries into a store, as a process does."""
    return taken_in


@pytest.fixture
def fill(place: Place) -> Callable[[Iterable[Entry]], None]:
    """Takes entries into the store."""
    return lambda entries: taken_in(place, entries)


def taken_in(place: Place, entries: Iterable[Entry]) -> None:
    """What `fill` does."""
    journal, ingester = Journal(place.journals), Ingester(place)
    for entry in entries:
        journal.append(encode(entry))
    journal.close()
    for segment, _ in journal.segments():
        while ingester.take(segment):
            pass
        journal.finish(segment)
        ingester.forget(segment)
    ingester.close()


@pytest.fixture
def read(place: Place) -> Iterator[Callable[[], Store]]:
    """Opens the store for reading."""
    opened: list[Store] = []

    def reader() -> Store:
        opened.append(open_reader(place.database))
        return opened[-1]

    yield reader
    for store in opened:
        store.close()


@pytest.fixture
def stop() -> Callable[[Writer], None]:
    """Ends a writer, which otherwise goes on as long as the process."""

    def end(writer: Writer) -> None:
        writer.rest()
        writer.off = "the test is over"
        writer._wake.set()
        if writer._thread is not None:
            writer._thread.join()
        writer._ingester.close()

    return end


@pytest.fixture
def writer(place: Place, stop: Callable[[Writer], None]) -> Iterator[Writer]:
    """A writer of this process; the calls that `make` makes are of 2025."""
    made = Writer(place, Limits(days=100_000))
    yield made
    stop(made)


@pytest.fixture
def with_umask() -> Iterator[Callable[[int], None]]:
    """Sets the umask, until the test is over."""
    before = os.umask(0)
    os.umask(before)
    yield lambda umask: (os.umask(umask), None)[1]
    os.umask(before)


@pytest.fixture
def in_child() -> Callable[[Callable[[], None]], None]:
    """Runs a function in a forked child, whose limits and whose end are its own."""

    def run(program: Callable[[], None]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left threads
            child = os.fork()
        if child == 0:
            status = 1
            try:
                program()
                status = 0
            except BaseException:  # noqa: BLE001  # whatever it is, the parent fails
                traceback.print_exc()
            finally:
                os._exit(status)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return run
