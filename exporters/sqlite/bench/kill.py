"""Four processes write, a reader reads, and all writers are killed at a random moment; twenty times.

    python exporters/sqlite/bench/kill.py [rounds]

A writer ends calls as msgtap does, through the SDK's providers, as fast as it can, and says the id of each once the
call is over. What it has said must be in the store exactly once, whatever was going on when it died.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from msgtap import exporting
from msgtap.record import CallRecord, CallStart, Correlation, Ending, MessageRequest, MessageResponse, Timing, Usage
from msgtap.telemetry.observer import Telemetry
from msgtap_sqlite import StoreError, open_reader

WRITERS = 4


def write(name: str) -> None:
    """End calls until killed."""
    pipelines = exporting.build(["sqlite"], "writer", os.environ)
    telemetry = Telemetry(
        version="0",
        tracer_provider=pipelines.tracer_provider,
        meter_provider=pipelines.meter_provider,
        logger_provider=pipelines.logger_provider,
    )
    number = 0
    while True:
        number += 1
        call_id = f"{name}-{number}"
        one_call(telemetry, call_id)
        os.write(1, f"{call_id}\n".encode())


def one_call(telemetry: Telemetry, call_id: str) -> None:
    """A call from its start to its end, without a request."""
    now = time.time_ns()
    facts: dict[str, Any] = {
        "client": "httpx2",
        "provider": "anthropic",
        "server_address": "api.anthropic.com",
        "server_port": 443,
        "started_at": now,
        "request": MessageRequest(model="claude-sonnet-5", messages=3, max_tokens=512),
        "correlation": Correlation(session_id="s-1", user_id="ana"),
    }
    call = telemetry.begin(CallStart(**facts))
    assert call is not None
    response = MessageResponse(
        id=call_id, model="claude-sonnet-5", stop_reason="end_turn", usage=Usage(input_tokens=10, output_tokens=5)
    )
    timing = Timing(started_at=now, ended_at=now + 10**9, duration=1.0)
    call.finish(CallRecord(**facts, ending=Ending.COMPLETE, timing=timing, status=200, response=response))


def main(rounds: int = 20) -> None:
    """Write, kill, count."""
    with tempfile.TemporaryDirectory(prefix="msgtap-bench-") as directory:
        os.environ["MSGTAP_STORE"] = str(Path(directory) / "store" / "calls.db")
        said: Counter[str] = Counter()
        reads: list[int] = []
        over = threading.Event()
        reader = threading.Thread(target=_read, args=(reads, over))
        reader.start()
        for number in range(rounds):
            said.update(_round(number))
        over.set()
        reader.join()
        _check(said, reads)


def _round(number: int) -> list[str]:
    """Writers from their first call to their death: what they have said."""
    writers = [
        subprocess.Popen([sys.executable, __file__, "write", f"{number}-{index}"], stdout=subprocess.PIPE)
        for index in range(WRITERS)
    ]
    heard: list[bytes] = [b""] * WRITERS
    ears = [threading.Thread(target=_listen, args=(writers[index], heard, index)) for index in range(WRITERS)]
    for ear in ears:
        ear.start()
    while not all(heard):
        time.sleep(0.01)
    time.sleep(random.uniform(0, 2))
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
    for writer, ear in zip(writers, ears, strict=True):
        ear.join()
        writer.wait()
    return [line for text in heard for line in text.decode().split("\n")[:-1]]


def _listen(writer: subprocess.Popen[bytes], heard: list[bytes], index: int) -> None:
    assert writer.stdout is not None
    parts = []
    while part := os.read(writer.stdout.fileno(), 65536):
        parts.append(part)
        heard[index] = part
    heard[index] = b"".join(parts)


def _read(reads: list[int], over: threading.Event) -> None:
    """Read all the while; the number of calls may only grow."""
    while not over.is_set():
        with contextlib.suppress(StoreError), open_reader() as store:
            reads.append(store.report("model").total.calls)
            store.last_calls()
        time.sleep(0.05)


def _check(said: Counter[str], reads: list[int]) -> None:
    with open_reader() as store:
        total = store.report("model").total.calls
        by_calls = store.report("session", where={"session": "s-1"}).total.calls
        last = 0
        found: Counter[str] = Counter()
        while calls := store.calls_after(last):
            last = calls[-1].id
            found.update(store.attributes(call.id)["gen_ai.response.id"] for call in calls)
    connection = sqlite3.connect(os.environ["MSGTAP_STORE"])
    (spans,) = connection.execute("SELECT count(*) FROM spans WHERE call AND name").fetchone()
    print(f"acknowledged {said.total():,}, in the store {found.total():,}, not yet acknowledged when killed", end=" ")
    print(f"{len(found.keys() - said.keys())}")
    print(f"lost {len(said.keys() - found.keys())}, doubled {sum(number > 1 for number in found.values())}")
    print(f"integrity: {connection.execute('PRAGMA integrity_check').fetchone()[0]}")
    print(f"calls {by_calls:,}, in the hourly sums {total:,}, spans with their calls {spans:,}")
    print(f"{len(reads)} reads beside the writers, each saw as much as the one before: {reads == sorted(reads)}")
    print(f"left in the journal: {len(list(Path(os.environ['MSGTAP_STORE'] + '.journal').iterdir()))} files")


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(sys.argv[2])
    else:
        main(*map(int, sys.argv[1:]))
