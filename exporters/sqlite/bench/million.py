"""A million calls: size, rates and the time of each question.

    python exporters/sqlite/bench/million.py [calls] [users]

Wall-clock and CPU time are both told: the first is what you wait for, the second what a busy machine leaves unchanged.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import get_args

import made_up

from msgtap_sqlite import open_reader, place
from msgtap_sqlite.ingest import Ingester
from msgtap_sqlite.journal import Journal
from msgtap_sqlite.reader import Dimension, Store

ROUND = 20_000


def main(number: int = 1_000_000, users: int = 5000) -> None:
    """Fill a store, then ask it everything."""
    with tempfile.TemporaryDirectory(prefix="msgtap-bench-") as directory:
        here = place.Place(Path(directory) / "store" / "calls.db")
        place.prepare(here)
        print(f"{number:,} calls of {users:,} users; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        exact = _fill(here, number, users)
        size = here.database.stat().st_size
        print(f"size                  {size:,} bytes, {size / number:.0f} a call")
        with closing(open_reader(here.database)) as store:
            _percentiles(store, *exact)
            _ask(store)


def _fill(here: place.Place, number: int, users: int) -> tuple[array[float], array[float]]:
    durations, first_tokens = array("d"), array("d")
    journal, ingester = Journal(here.journals), Ingester(here)
    appending, taking = [0.0, 0.0], [0.0, 0.0]
    made = made_up.calls(number, users, end=time.time_ns())
    while batch := list(itertools.islice(made, ROUND)):
        durations.extend(call.duration for call in batch)
        first_tokens.extend(call.first_token for call in batch)
        lines = [line for call in batch for line in call.lines]
        _timed(appending, partial(_append, journal, lines))
        journal.close()
        _timed(taking, partial(_take, journal, ingester))
    ingester.close()
    for what, (wall, cpu) in (("append, 2 entries", appending), ("taking in", taking)):
        print(f"{what:21} {wall / number * 1e6:.1f} µs a call, {cpu / number * 1e6:.1f} µs of it CPU:", end=" ")
        print(f"{number / wall:,.0f} calls a second, {number / cpu:,.0f} a second of CPU")
    return durations, first_tokens


def _append(journal: Journal, lines: list[bytes]) -> None:
    for line in lines:
        journal.append(line)


def _take(journal: Journal, ingester: Ingester) -> None:
    for segment, _ in journal.segments():
        while ingester.take(segment):
            pass
        journal.finish(segment)
        ingester.forget(segment)


def _timed(total: list[float], act: Callable[[], object]) -> float:
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    took = time.perf_counter() - wall
    total[0] += took
    total[1] += time.process_time() - cpu
    return took


def _percentiles(store: Store, durations: array[float], first_tokens: array[float]) -> None:
    total = store.report("model").total
    found = (total.p50, total.p95, total.first_token_p50, total.first_token_p95)
    of = (durations, durations, first_tokens, first_tokens)
    for values, part, value in zip(of, (0.5, 0.95) * 2, found, strict=True):
        assert value is not None
        exact = sorted(values)[math.ceil(part * len(values)) - 1]
        print(f"p{part * 100:<20.0f} {value:.4f} s, exactly {exact:.4f}: off by {abs(value / exact - 1):.2%}")


def _ask(store: Store) -> None:
    now = datetime.now(UTC)
    day = now - timedelta(days=1)
    by_each: dict[str, Callable[[], object]] = {
        f"report by {by}": partial(store.report, by, limit=20) for by in get_args(Dimension)
    }
    questions: dict[str, Callable[[], object]] = {
        **by_each,
        "by model, last 24 h": lambda: store.report("model", since=day),
        "by user, last 24 h": lambda: store.report("user", since=day, limit=20),
        "by session of a service": lambda: store.report("session", where={"service": "chat"}, limit=20),
        "by model of a user": lambda: store.report("model", where={"user": "user-7@example.com"}),
        "by user, claude-*": lambda: store.report("user", where={"model": "claude-*"}, limit=20),
        "slowest": store.slowest,
        "last 10 calls": store.last_calls,
        "calls after": lambda: store.calls_after(store.last_id() - 100),
    }
    for question, ask in questions.items():
        times = [_timed([0.0, 0.0], ask) for _ in range(3)]
        print(f"{question:24} {min(times) * 1000:8.1f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
