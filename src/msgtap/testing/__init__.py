"""For tests of programs that use msgtap, ours included: a stand-in endpoint, and the calls as they were seen."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import msgspec

from msgtap import tap
from msgtap.configuration import install_adapters
from msgtap.record import CallRecord, CallStart, MessageResponse
from msgtap.wire.endpoint import EndpointTable


class _Recorder:
    """An observer, and its own observation of every call, that keeps the records."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    def begin(self, start: CallStart) -> _Recorder:  # noqa: ARG002
        return self

    def sending(self) -> None: ...

    def sent(self, token: object) -> None: ...

    def progress(self, response: MessageResponse) -> None: ...

    def finish(self, record: CallRecord | None) -> None:
        if record is not None:
            self.records.append(record)


@contextmanager
def capture_calls() -> Generator[list[CallRecord]]:
    """The calls that begin while the block runs, in the order in which they end, beside whatever is configured.

    What is configured inside the block is undone at its end.

    Example:
        with capture_calls() as calls:
            client.messages.create(...)
        assert calls[0].response.usage.output_tokens == 12
    """
    recorder = _Recorder()
    before = tap.watcher()
    base = before or tap.Watcher(endpoints=EndpointTable(), observers=())
    tap.activate(msgspec.structs.replace(base, observers=(*base.observers, recorder)))
    install_adapters()
    try:
        yield recorder.records
    finally:
        tap.drain()
        tap.activate(before)
