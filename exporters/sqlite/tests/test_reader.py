"""What the store answers."""

from __future__ import annotations

import itertools
import math
import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from msgspec import Raw

from msgtap_sqlite.calls import read_call
from msgtap_sqlite.entries import Entry, Log, encode
from msgtap_sqlite.journal import Journal
from msgtap_sqlite.place import Place, StoreError, prepare
from msgtap_sqlite.reader import FILTERS, Dimension, Report, Store, Tokens

Make = Callable[..., list[Entry]]
Fill = Callable[[Iterable[Entry]], None]
Read = Callable[[], Store]

START = datetime(2025, 11, 24, 16, tzinfo=UTC)
NUMBER = 400


@pytest.fixture(scope="module")
def entries(new_make: Callable[[], Make]) -> list[Entry]:
    """Calls of every kind over ten hours."""
    make = new_make()
    rolled = random.Random(7)
    made: list[Entry] = []
    for _ in range(NUMBER):
        facts: dict[str, Any] = {
            "at": rolled.randrange(36_000_000),
            "service": rolled.choice(["app", "batch", None]),
            "run": rolled.choice(["r-1", "r-2", None]),
            "response_model": rolled.choice(["claude-opus-5", "claude-sonnet-5", "other"]),
            "provider_name": rolled.choice(["anthropic", "openrouter"]),
            "client": rolled.choice(["httpx", "httpx2"]),
            "duration": rolled.lognormvariate(0, 1),
            "input_tokens": rolled.randrange(1000),
            "output_tokens": rolled.randrange(1000),
        }
        some = [
            ("session_id", f"s-{rolled.randrange(50)}", 0.9),
            ("user_id", rolled.choice("abc"), 0.7),
            ("error_type", rolled.choice(["overloaded_error", "429"]), 0.1),
            ("cost", rolled.random(), 0.5),
            ("time_to_first_answer", rolled.random(), 0.5),
        ]
        made += make(**facts, **{name: value for name, value, part in some if rolled.random() < part})
    return made


@pytest.fixture(scope="module")
def filled(
    entries: list[Entry], take_in: Callable[[Place, list[Entry]], None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A database with these calls."""
    place = Place(tmp_path_factory.mktemp("filled") / "calls.db")
    prepare(place)
    take_in(place, entries)
    return place.database


@pytest.fixture
def store(filled: Path, place: Place, read: Read) -> Store:
    """The store with these calls, for this test alone."""
    shutil.copy(filled, place.database)
    return read()


def expected_report(
    entries: list[Entry], by: str, since: datetime, until: datetime, where: dict[str, str]
) -> dict[str | None, list[Any]]:
    """The same from the entries, without ado: for each key calls, errors, tokens, cost, priced calls, percentiles."""
    found: dict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        if not isinstance(entry, Log):
            continue
        call = read_call(entry)
        ended_at = datetime.fromtimestamp(call.ended_at / 1000, UTC)
        told = {
            **{name: getattr(call, name) for name in ("model", "provider", "client", "session", "user", "error")},
            "service": _service(entry, "service.name"),
            "run": _service(entry, "msgtap.run.id"),
            "hour": f"{ended_at:%Y-%m-%dT%H:00Z}",
        }
        if since <= ended_at < until and all(told[name] == value for name, value in where.items()):
            found[told[by]].append({"call": call})
    return {key: _row([one["call"] for one in calls]) for key, calls in found.items()}


def _service(entry: Log, name: str) -> str | None:
    value: str | None = msgspec.json.decode(entry.resource).get(name)
    return value


def _row(calls: list[Any]) -> list[Any]:
    costs = [call.cost for call in calls if call.cost is not None]
    return [
        len(calls),
        sum(call.error is not None for call in calls),
        tuple(sum(of) for of in zip(*[call.tokens for call in calls], strict=True)),
        pytest.approx(sum(costs)) if costs else None,
        len(costs),
        *_percentiles([call.duration for call in calls]),
        *_percentiles([call.first_token for call in calls if call.first_token is not None]),
    ]


def _percentiles(values: list[int]) -> list[Any]:
    if not values:
        return [None, None]
    ranks = [math.ceil(part * len(values)) - 1 for part in (0.5, 0.95)]
    return [pytest.approx(sorted(values)[rank] / 1e6, rel=0.022) for rank in ranks]


def shown(report: Report) -> dict[str | None, list[Any]]:
    """A report as `expected_report` has it."""
    return {
        row.key: [
            row.calls,
            row.errors,
            tuple(getattr(row.tokens, name) for name in Tokens.__dataclass_fields__),
            row.cost,
            row.priced_calls,
            row.p50,
            row.p95,
            row.first_token_p50,
            row.first_token_p95,
        ]
        for row in report.rows
    }


WINDOWS = [(None, None), (0, 10), (1.5, 7.25), (3.2, 3.9), (3, 4), (4.99, 5.01), (2.5, None), (None, 2.5), (20, 30)]
WHERES: list[dict[str, str]] = [{}, {"model": "claude-opus-5"}, {"user": "a", "provider": "openrouter"}]


@pytest.mark.parametrize("by", get_args(Dimension))
def test_report(store: Store, entries: list[Entry], by: Dimension) -> None:
    """A report says what a plain count of the calls says, of whole hours and of parts of them."""
    for (first, last), where in itertools.product(WINDOWS, WHERES):
        since, until = (None if hours is None else START + timedelta(hours=hours) for hours in (first, last))
        report = store.report(by, where=where, since=since, until=until)
        expected = expected_report(entries, by, since or START, until or START + timedelta(days=1), where)
        assert expected == shown(report)
        assert sum(row[0] for row in expected.values()) == report.total.calls
        assert sum(row[1] for row in expected.values()) == report.total.errors


@pytest.mark.parametrize("by", get_args(Dimension))
def test_limit(store: Store, by: Dimension) -> None:
    """With a limit, the first rows are the same, and so is the total."""
    everything, some = store.report(by), store.report(by, limit=2)
    assert everything.rows[:2] == some.rows
    assert (everything.total.calls, everything.total.tokens) == (some.total.calls, some.total.tokens)
    assert pytest.approx(everything.total.cost) == some.total.cost


@pytest.mark.parametrize("by", get_args(Dimension))
def test_order(store: Store, by: Dimension) -> None:
    """Most calls first; of hours the latest."""
    rows = store.report(by, where={"model": "claude-*"}).rows
    order = [str(row.key) for row in rows] if by == "hour" else [row.calls for row in rows]
    assert sorted(order, reverse=True) == order


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("claude-*", {"claude-opus-5", "claude-sonnet-5"}),
        ("*opus*", {"claude-opus-5"}),
        ("*", {"claude-opus-5", "claude-sonnet-5", "other"}),
        ("claude-[os]*", set()),
        ("claude-opus-?*", set()),
        ("claude-opus-?", set()),
        ("claude", set()),
    ],
)
def test_patterns(store: Store, pattern: str, expected: set[str]) -> None:
    """In a filter a star stands for anything, and nothing else for anything but itself."""
    assert expected == {row.key for row in store.report("model", where={"model": pattern}).rows}


@pytest.mark.parametrize("name", FILTERS)
def test_filters(store: Store, name: str) -> None:
    """Calls can be narrowed by each of the filters."""
    assert 0 < store.report("hour", where={name: "*"}).total.calls <= NUMBER
    assert 0 == store.report("hour", where={name: "no such thing"}).total.calls


def test_unknown_filter(store: Store) -> None:
    """What is no filter is an error that names those that are."""
    with pytest.raises(StoreError, match="narrowed by 'colour'; what they can be by: model, service"):
        store.report("model", where={"colour": "red"})


def test_empty(fill: Fill, read: Read) -> None:
    """An empty store has empty answers."""
    fill([Log(Raw(b"{}"), "app", 1, None, None, 9, None, None, {})])
    store = read()
    report = store.report("model")
    assert ((), 0, None, None) == (report.rows, report.total.calls, report.total.cost, report.total.p50)
    assert ([], [], 0) == (store.last_calls(), store.slowest(), store.last_id())
    assert {} == store.attributes(1)


def test_call(make: Make, fill: Fill, read: Read) -> None:
    """A call is told in full."""
    fill(
        make(
            at=1500,
            run="r-1",
            session_id="s",
            user_id="u",
            http_status=529,
            error_type="overloaded_error",
            http_resend_count=1,
            duration=2.5,
            time_to_first_answer=0.5,
            input_tokens=10,
            cost=0.25,
            ended="closed",
            stop_reason="end_turn",
            request_messages=3,
        )
    )
    store = read()
    (call,) = store.last_calls()
    expected = {
        "id": 1,
        "ended_at": START + timedelta(milliseconds=1500),
        "duration": 2.5,
        "first_token": 0.5,
        "service": "app",
        "run": "r-1",
        "model": "claude-sonnet-5",
        "provider": "anthropic",
        "client": "httpx2",
        "session": "s",
        "user": "u",
        "status": 529,
        "error": "overloaded_error",
        "ending": "closed",
        "stop_reason": "end_turn",
        "tokens": Tokens(input=10),
        "cost": 0.25,
        "attempt": 1,
        "trace_id": f"{1:032x}",
        "span_id": f"{1:016x}",
    }
    assert expected == {name: getattr(call, name) for name in call.__dataclass_fields__}
    assert 10 == call.tokens.total
    assert 3 == store.attributes(call.id)["anthropic.request.messages.count"]


def test_tail(store: Store, make: Make, fill: Fill) -> None:
    """A tail sees each call once, in the order of arrival, and only those it asks for."""
    before = store.last_id()
    assert NUMBER == before
    assert list(range(NUMBER - 2, NUMBER + 1)) == [call.id for call in store.last_calls(limit=3)]
    assert [] == store.calls_after(before)
    fill([*make(at=-5, user_id="new"), *make(at=-6), *make(at=-7, user_id="new")])
    assert [NUMBER + 1, NUMBER + 2] == [call.id for call in store.calls_after(before, limit=2)]
    assert [NUMBER + 1, NUMBER + 3] == [call.id for call in store.calls_after(before, where={"user": "new"})]
    assert [NUMBER + 3] == [call.id for call in store.last_calls(where={"user": "new"}, limit=1)]


def test_slowest(store: Store) -> None:
    """The slowest calls, the slowest first."""
    calls = store.slowest(limit=NUMBER, since=START + timedelta(hours=1))
    assert sorted((call.duration for call in calls), reverse=True) == [call.duration for call in calls]
    assert calls[:3] == store.slowest(limit=3, since=START + timedelta(hours=1))
    assert all(call.ended_at >= START + timedelta(hours=1) for call in calls)


def test_run_summary(store: Store, entries: list[Entry]) -> None:
    """What one run of a program did."""
    summary = store.run_summary("r-1")
    by_model = expected_report(entries, "model", START, START + timedelta(days=1), {"run": "r-1"})
    assert sum(row[0] for row in by_model.values()) == summary.total.calls
    assert by_model == shown(Report(rows=summary.by_model, total=summary.total))
    assert summary.total.errors == sum(row.calls for row in summary.by_error)
    assert summary.slowest == store.slowest(where={"run": "r-1"})[0]


def test_unknown_run(store: Store) -> None:
    """Of a run that is not known, nothing is told."""
    summary = store.run_summary("r-none")
    assert (0, (), (), None) == (summary.total.calls, summary.by_model, summary.by_error, summary.slowest)


def test_catch_up(store: Store, place: Place, make: Make) -> None:
    """What a dead process left behind is taken in when a reader opens the store, and whenever it asks."""
    journal = Journal(place.journals)
    journal.append(b"".join(map(encode, make())))
    assert (0, NUMBER) == (store.catch_up(), store.last_id())
    journal.abandon()
    assert (1, NUMBER + 1) == (store.catch_up(), store.last_id())
    assert 0 == store.catch_up()


def test_context_manager(place: Place, store: Store) -> None:
    """At the end of the block the file is closed, and SQLite has tidied up."""
    assert place.database == store.path
    with store:
        pass
    assert [] == list(place.database.parent.glob("calls.db-*"))
