"""What every client has to stand: however a call is made and ended, the program sees what it would have seen.

Nothing here knows a client; see `Row`.
"""

from __future__ import annotations

import contextlib
import gc
import socket
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import _logs, context, metrics, trace

import msgtap
from msgtap import tap
from msgtap.testing import capture_calls, replies
from msgtap.testing.endpoint import Endpoint
from msgtap.testing.replies import CUT, HANG, RESET, Answer, Reply
from msgtap.wire.endpoint import EndpointTable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from msgtap.testing.endpoint import Received
    from tests.adapters.conftest import Coding, Program, Row, Session, Transparency

WHOLE: dict[str, object] = {"ending": "complete", "error_type": None, "status": 200}


# trio says so of the clients' own generators, with msgtap or without.
half_way = pytest.mark.filterwarnings("ignore:Async generator .* was garbage collected:ResourceWarning")


# ------------------------------------------------------------------------------------------------ programs


async def _whole(session: Session) -> object:
    return await session.whole()


async def _to_the_end(session: Session) -> object:
    stream = await session.stream()
    chunks = []
    while (chunk := await stream.chunk()) is not None:
        chunks.append(chunk)
    await stream.close()
    return stream.status, chunks


async def _to_the_last_event(session: Session) -> object:
    stream = await session.stream()
    chunks = []
    while b"message_stop" not in (chunk := await stream.chunk() or b""):
        chunks.append(chunk)
    await stream.close()
    return chunks


async def _one_chunk(session: Session) -> object:
    stream = await session.stream()
    chunk = await stream.chunk()
    await stream.close()
    return chunk


async def _closed_unread(session: Session) -> object:
    stream = await session.stream()
    await stream.close()
    await stream.close()
    return stream.status


async def _dropped(session: Session) -> object:
    stream = await session.stream()
    chunk = await stream.chunk()
    del stream
    await session.tasks.settle()
    return chunk


async def _dropped_unread(session: Session) -> object:
    stream = await session.stream()
    status = stream.status
    del stream
    await session.tasks.settle()
    return status


async def _the_program_raises(session: Session) -> object:
    stream = await session.stream()
    try:
        raise KeyError(await stream.chunk())
    finally:
        await stream.close()


async def _called_while_handling(session: Session) -> object:
    """What the program was handling when it made the call is not why it stops reading."""
    try:
        raise KeyboardInterrupt  # noqa: TRY301
    except KeyboardInterrupt:
        return await _one_chunk(session)


async def _cancelled_before_the_head(session: Session) -> object:
    return await session.tasks.cancelled(session.stream, lambda: session.received)


async def _cancelled_in_the_body(session: Session) -> object:
    chunks: list[bytes | None] = []

    async def work() -> None:
        stream = await session.stream()
        try:
            while True:
                chunks.append(await stream.chunk())
        finally:
            await stream.close()

    return await session.tasks.cancelled(work, lambda: len(chunks) == 4), chunks


async def _cancelled_between_chunks(session: Session) -> object:
    chunks: list[bytes | None] = []

    async def work() -> None:
        stream = await session.stream()
        try:
            chunks.append(await stream.chunk())
            await session.tasks.forever()
        finally:
            await stream.close()

    return await session.tasks.cancelled(work, lambda: chunks), chunks


async def _a_timeout_of_its_own(session: Session) -> object:
    stream = await session.stream()
    chunks = [await stream.chunk() for _ in range(4)]
    late = await session.tasks.within(0.02, stream.chunk)
    await stream.close()
    return chunks, late


async def _slow_body(session: Session) -> object:
    stream = await session.stream()
    stream.hurry(0.02)
    while await stream.chunk() is not None:
        pass
    return None


# ------------------------------------------------------------------------------------------------ endings


@dataclass(frozen=True, kw_only=True)
class Line:
    """One way for a call to end, and what is said of it.

    Args:
        record: ending, status and ``error.type``; ``{what}`` is the client's own name for a failure.
        span: its status, ``msgtap.ended`` and finish reason.
        refused: nobody listens.
    """

    program: Program
    reply: Reply
    record: tuple[str, int | None, str | None]
    span: tuple[str, str | None, str | None]
    refused: bool = False
    options: dict[str, Any] = field(default_factory=dict)


HANGING = replies.cut_stream(4, ending=HANG)
# Head and events in one write, so that a short timeout can only strike after them.
AT_ONCE = Reply(
    before=(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in replies.events()[:3]),
        HANG,
    )
)
GENERATING, SILENT = "error", None  # the finish reason of what was cut short, and of what had not begun
LINES = {
    "read to the end": Line(
        program=_to_the_end,
        reply=replies.stream(),
        record=("complete", 200, None),
        span=("UNSET", None, "stop"),
    ),
    "read to the end, whole": Line(
        program=_whole,
        reply=replies.message(),
        record=("complete", 200, None),
        span=("UNSET", None, "stop"),
    ),
    "read to message_stop, then closed": Line(
        program=_to_the_last_event,
        reply=replies.openrouter_stream(),
        record=("complete", 200, None),
        span=("UNSET", None, "stop"),
    ),
    "stopped early: closed": Line(
        program=_one_chunk,
        reply=replies.stream(),
        record=("closed", 200, None),
        span=("UNSET", "closed", GENERATING),
    ),
    "stopped early: closed unread": Line(
        program=_closed_unread,
        reply=replies.stream(),
        record=("closed", 200, None),
        span=("UNSET", "closed", SILENT),
    ),
    "stopped early: dropped": Line(
        program=_dropped,
        reply=replies.stream(),
        record=("closed", 200, None),
        span=("UNSET", "closed", GENERATING),
    ),
    "stopped early: dropped unread": Line(
        program=_dropped_unread,
        reply=replies.stream(),
        record=("closed", 200, None),
        span=("UNSET", "closed", SILENT),
    ),
    "stopped early: the program raises": Line(
        program=_the_program_raises,
        reply=replies.stream(),
        record=("closed", 200, None),
        span=("UNSET", "closed", GENERATING),
    ),
    "stopped early: called while handling": Line(
        program=_called_while_handling,
        reply=replies.stream(),
        record=("closed", 200, None),
        span=("UNSET", "closed", GENERATING),
    ),
    "ended without message_stop": Line(
        program=_to_the_end,
        reply=replies.truncated_stream(),
        record=("truncated", 200, "stream_truncated"),
        span=("ERROR", None, "stop"),
    ),
    "ended without message_delta": Line(
        program=_to_the_end,
        reply=replies.truncated_stream(4),
        record=("truncated", 200, "stream_truncated"),
        span=("ERROR", None, GENERATING),
    ),
    "ended before it began": Line(
        program=_to_the_end,
        reply=replies.truncated_stream(0),
        record=("truncated", 200, "stream_truncated"),
        span=("ERROR", None, SILENT),
    ),
    "cut: FIN": Line(
        program=_to_the_end,
        reply=replies.cut_stream(),
        record=("failed", 200, "{cut}"),
        span=("ERROR", None, GENERATING),
    ),
    "cut: RST": Line(
        program=_to_the_end,
        reply=replies.cut_stream(ending=RESET, pace=0.002),
        record=("failed", 200, "{reset}"),
        span=("ERROR", None, GENERATING),
    ),
    "cut: FIN in a whole body": Line(
        program=_whole,
        reply=replies.cut(replies.message(), 100),
        record=("failed", 200, "{cut}"),
        span=("ERROR", None, SILENT),
    ),
    "cut: FIN in a stream that is read at once": Line(
        program=_whole,
        reply=replies.cut_stream(),
        record=("failed", 200, "{cut}"),
        span=("ERROR", None, GENERATING),
    ),
    "cut: FIN before the head": Line(
        program=_to_the_end,
        reply=replies.silent(CUT),
        record=("failed", None, "{gone}"),
        span=("ERROR", None, SILENT),
    ),
    "cut: RST before the head": Line(
        program=_whole,
        reply=replies.silent(RESET),
        record=("failed", None, "{reset}"),
        span=("ERROR", None, SILENT),
    ),
    "timeout: before the head": Line(
        program=_whole,
        reply=replies.silent(),
        record=("failed", None, "{silent}"),
        span=("ERROR", None, SILENT),
        options={"read_timeout": 0.02},
    ),
    "timeout: in the body": Line(
        program=_slow_body,
        reply=AT_ONCE,
        record=("failed", 200, "{slow}"),
        span=("ERROR", None, GENERATING),
    ),
    "refused": Line(
        program=_whole,
        reply=Reply(),
        record=("failed", None, "{refused}"),
        span=("ERROR", None, SILENT),
        refused=True,
    ),
    "error event in a stream": Line(
        program=_to_the_end,
        reply=replies.stream_error_after(4),
        record=("complete", 200, "overloaded_error"),
        span=("ERROR", None, GENERATING),
    ),
    "error event before it began": Line(
        program=_to_the_end,
        reply=replies.stream_error_after(0),
        record=("complete", 200, "overloaded_error"),
        span=("ERROR", None, SILENT),
    ),
    "error 429": Line(
        program=_whole,
        reply=replies.rate_limited(1.5),
        record=("complete", 429, "rate_limit_error"),
        span=("ERROR", None, SILENT),
    ),
    "error 529 to a stream": Line(
        program=_to_the_end,
        reply=replies.overloaded(),
        record=("complete", 529, "overloaded_error"),
        span=("ERROR", None, SILENT),
    ),
    "error 402 of OpenRouter": Line(
        program=_whole,
        reply=replies.openrouter_error(402, "payment_required"),
        record=("complete", 402, "billing_error"),
        span=("ERROR", None, SILENT),
    ),
    "error 401": Line(
        program=_whole,
        reply=replies.error(401),
        record=("complete", 401, "authentication_error"),
        span=("ERROR", None, SILENT),
    ),
    "error 502, a page": Line(
        program=_whole,
        reply=replies.html_error(502),
        record=("complete", 502, "502"),
        span=("ERROR", None, SILENT),
    ),
    "error 529, unread": Line(
        program=_closed_unread,
        reply=replies.overloaded(),
        record=("closed", 529, "529"),
        span=("ERROR", "closed", SILENT),
    ),
    "error 401, unread": Line(
        program=_closed_unread,
        reply=replies.error(401),
        record=("closed", 401, "401"),
        span=("ERROR", "closed", SILENT),
    ),
}


LINES_OF_TASKS = {
    "cancelled: before the head": Line(
        program=_cancelled_before_the_head,
        reply=replies.silent(),
        record=("cancelled", None, None),
        span=("UNSET", "cancelled", SILENT),
    ),
    "cancelled: in the body": Line(
        program=_cancelled_in_the_body,
        reply=HANGING,
        record=("cancelled", 200, None),
        span=("UNSET", "cancelled", GENERATING),
    ),
    "cancelled: between chunks": Line(
        program=_cancelled_between_chunks,
        reply=HANGING,
        record=("cancelled", 200, None),
        span=("UNSET", "cancelled", GENERATING),
    ),
    "cancelled: a timeout of the program's own": Line(
        program=_a_timeout_of_its_own,
        reply=HANGING,
        record=("cancelled", 200, None),
        span=("UNSET", "cancelled", GENERATING),
    ),
}


@pytest.mark.parametrize("line", LINES)
def test_endings(transparent: Transparency, row: Row, line: str) -> None:
    """Whatever ends a call: the program sees the same, there is one record and one span, and both say how it ended."""
    _check(transparent, row, LINES[line])


@pytest.mark.rows(concurrency=["asyncio", "trio"])
@pytest.mark.parametrize("line", LINES_OF_TASKS)
def test_endings_of_tasks(transparent: Transparency, row: Row, line: str) -> None:
    """Nor does a cancelled task notice anything; its call was cancelled, which is no error."""
    _check(transparent, row, LINES_OF_TASKS[line])


def _check(transparent: Transparency, row: Row, line: Line) -> None:
    ending, status, failure = line.record
    error_type = failure and failure.format(**row.failures)
    expected: dict[str, object] = {"ending": ending, "status": status, "error_type": error_type}
    transparent.options = line.options
    with _deaf_port() if line.refused else contextlib.nullcontext() as url:
        transparent.url = url
        (call,) = transparent(line.program, [line.reply], [expected])
    (span,) = transparent.spans
    attributes = span.attributes or {}
    finish: Any = attributes.get("gen_ai.response.finish_reasons")
    assert line.span == (span.status.status_code.name, attributes.get("msgtap.ended"), finish and finish[0])
    assert error_type == attributes.get("error.type")
    assert (call.timing.started_at, call.timing.ended_at) == (span.start_time, span.end_time)
    if call.response.stop_reason is None:
        assert call.response.usage.output_tokens is None, "what message_start says of it is a placeholder"
    if ending == "closed":
        assert call.timing.duration == (call.timing.last_chunk or call.timing.headers), "the collector's time is none"


@contextlib.contextmanager
def _deaf_port() -> Any:
    with socket.socket() as deaf:  # bound, so that nobody else gets the port, and not listening
        deaf.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{deaf.getsockname()[1]}/v1/messages"


@half_way
def test_a_program_that_never_closes(row: Row) -> None:
    """A program that stops at message_stop, and neither reads on nor closes, has its record at once."""

    async def program(session: Session) -> None:
        stream = await session.stream()
        while b"message_stop" not in (await stream.chunk() or b""):
            assert [] == calls
        assert [WHOLE] == [{name: getattr(call, name) for name in WHOLE} for call in calls]
        await stream.close()

    with Endpoint([replies.stream()]) as endpoint, capture_calls() as calls:
        row.run(program, endpoint)
    assert 1 == len(calls)


# ------------------------------------------------------------------------------------------------ bodies


def test_codings(transparent: Transparency, coding: Coding) -> None:
    """In every content coding, whole and streamed, the program gets its bytes and the record its facts."""

    async def program(session: Session) -> object:
        return await session.whole(), await _to_the_end(session)

    facts = {**WHOLE, "response.stop_reason": "end_turn", "response.usage.output_tokens": 188}
    answers = [coding(replies.message()), coding(replies.stream())]
    transparent(program, answers, [{**facts, "request.stream": stream} for stream in (False, True)])


@pytest.mark.parametrize("size", [20, 150])
def test_corrupt_gzip(transparent: Transparency, size: int) -> None:
    """A body that cannot be decoded is the client's affair, and ends its call."""
    whole_body = replies.encoded(replies.message(), "gzip")
    (data,) = whole_body.body
    assert isinstance(data, bytes)
    corrupt = replace(whole_body, body=(data[:size] + bytes(len(data) - size),))
    transparent(_whole, [corrupt], [{"status": 200, "error_type": None}])


def test_a_request_is_read_when_it_is_sent(transparent: Transparency) -> None:
    """What the program does to its request afterwards changes no record."""

    async def program(session: Session) -> object:
        messages = [{"role": "user", "content": "Classify."}]
        stream = await session.stream(messages=messages)
        messages.append({"role": "assistant", "content": "Glass."})
        await stream.close()
        return len(messages)

    transparent(program, [replies.stream()], [{"request.messages": 1}])


# ------------------------------------------------------------------------------------------------ not ours


@pytest.mark.parametrize(
    "path",
    [
        "/v1/messages/count_tokens",
        "/v1/messages/batches",
        "/v1/messages/batches/msgbatch_1/cancel",
        "/api/v1/presets/my-preset/messages",
        "/v1/presets/v1/messages",
        "/v1/chat/completions",
        "/v1/messagesx",
        "/token",
    ],
)
def test_other_paths(transparent: Transparency, path: str) -> None:
    """A request for another path makes no record."""
    transparent.path = path
    transparent(_to_the_end, [replies.message()], [])


def test_suppressed(transparent: Transparency) -> None:
    """Where OpenTelemetry's suppression is on, telemetry sees no call."""
    token = context.attach(context.set_value("suppress_instrumentation", True))
    try:
        transparent(_whole, [replies.message()], [WHOLE], faults=False)  # the list of records is no telemetry
    finally:
        context.detach(token)
    assert () == transparent.spans


# ------------------------------------------------------------------------------------------------ contexts


def test_the_current_span_is_the_programs_own(transparent: Transparency) -> None:
    """While the program reads, and afterwards, its own span is current; the call's span is a child of it."""
    own = trace.NonRecordingSpan(trace.SpanContext(7, 7, is_remote=False, trace_flags=trace.TraceFlags(1)))

    async def program(session: Session) -> object:
        with trace.use_span(own):
            await session.whole()
            stream = await session.stream()
            current = [trace.get_current_span() is own]
            while await stream.chunk() is not None:
                current.append(trace.get_current_span() is own)
            await stream.close()
            current.append(trace.get_current_span() is own)
        return current, trace.get_current_span() is trace.INVALID_SPAN

    transparent(program, [replies.message(), replies.stream()], [WHOLE, WHOLE])
    assert [7, 7] == [span.parent and span.parent.span_id for span in transparent.spans]


@pytest.mark.rows(concurrency=["asyncio", "trio"])
def test_a_relay_that_another_task_closes(transparent: Transparency) -> None:
    """A generator that reads in one task, and is closed in another, disturbs no context."""

    async def program(session: Session) -> object:
        async def relay() -> AsyncGenerator[bytes | None]:
            stream = await session.stream()
            try:
                while chunk := await stream.chunk():
                    yield chunk
            finally:
                await stream.close()

        chunks = relay()
        first = await session.tasks.apart(lambda: anext(chunks))
        second = await session.tasks.apart(lambda: anext(chunks))
        await session.tasks.apart(chunks.aclose)
        return first, second

    transparent(program, [replies.stream()], [{"ending": "closed", "error_type": None, "status": 200}])


# ------------------------------------------------------------------------------------------------ many


def _mixed(number: int) -> Callable[[Session], Coroutine[Any, Any, object]]:
    """One of five kinds of call, of a model of its own."""

    async def work(session: Session) -> object:
        model = f"claude-{number:03}-20250101"
        kind = number % 5
        if kind == 0:
            return await session.whole(model=model)
        stream = await session.stream(model=model, thinking={"type": "adaptive"} if kind == 1 else None)
        chunks = [await stream.chunk()]
        while kind != 2 and chunks[-1] is not None:
            chunks.append(await stream.chunk())
        await stream.close()
        return chunks

    return work


def _unmixed(received: Received) -> Reply:
    """Answers by the number of the model."""
    answer = Answer(id=f"msg_{received.json()['model']}", model=received.json()["model"])
    if received.json()["model"].startswith("claude") and int(answer.model.split("-")[1]) % 5 == 3:
        return replies.overloaded()
    return replies.stream(answer) if received.json().get("stream") else replies.message(answer)


def _expected_of(number: int) -> dict[str, object]:
    """The record of the call with that number."""
    model = f"claude-{number:03}-20250101"
    failed, early = number % 5 == 3, number % 5 == 2
    return {
        "request.model": model,
        "response.model": None if failed else model,
        "response.id": None if failed else f"msg_{model}",
        "ending": "closed" if early else "complete",
        "status": 529 if failed else 200,
    }


def test_many_at_once(transparent: Transparency, row: Row) -> None:
    """Calls that run at once, in 200 tasks or in 16 threads, are not mixed up."""
    number = 160 if row.concurrency == "sync" else 200

    async def program(session: Session) -> object:
        return await session.tasks.together([partial(_mixed(index), session) for index in range(number)])

    transparent(program, _unmixed, [_expected_of(index) for index in range(number)], unordered=True, faults=False)


class _Deaf:
    """An observer that keeps nothing."""

    def begin(self, start: object) -> _Deaf:
        return self

    def sending(self) -> None: ...

    def sent(self, token: object) -> None: ...

    def progress(self, response: object) -> None: ...

    def finish(self, record: object) -> None: ...


def _census() -> Counter[str]:
    """All that is alive, by type."""
    gc.collect()
    return Counter(f"{type(item).__module__}.{type(item).__qualname__}" for item in gc.get_objects())


@half_way
def test_nothing_grows(row: Row) -> None:
    """After 300 calls there is nothing more in memory than after 50, and no call is open."""
    counted: list[Counter[str]] = []

    async def program(session: Session) -> None:
        gc.freeze()  # what was there before does not count
        for calls in (50, 300):
            for number in range(calls):
                await _mixed(number)(session)
            session.received.clear()
            counted.append(_census())

    with Endpoint(respond=_unmixed) as endpoint:
        tap.activate(tap.Watcher(endpoints=EndpointTable(), observers=(_Deaf(),)))
        try:
            row.run(program, endpoint)
        finally:
            tap.activate(None)
            gc.unfreeze()
    assert set() == tap._open
    assert not tap._dropped
    before, after = counted
    grown = {name: number for name, number in (after - before).items() if name.startswith(("msgtap", "wrapt"))}
    assert {} == grown
    assert 100 > after.total() - before.total()


def test_switched_on_and_off(row: Row) -> None:
    """While msgtap is switched on each call makes one record, however often it has been; while off, none."""
    silent: dict[str, Any] = {
        "tracer_provider": trace.NoOpTracerProvider(),
        "meter_provider": metrics.NoOpMeterProvider(),
        "logger_provider": _logs.NoOpLoggerProvider(),
    }

    async def program(session: Session) -> None:
        for _ in range(20):
            msgtap.instrument(**silent)
            with capture_calls() as calls:
                await session.whole()
            assert 1 == len(calls)
            msgtap.uninstrument()
            await session.whole()
            assert 1 == len(calls)

    with Endpoint([replies.message()]) as endpoint:
        row.run(program, endpoint)
    assert 40 == len(endpoint.received)


@half_way
def test_switched_off_during_a_call(row: Row) -> None:
    """A call that is open when msgtap is switched off is seen to its end; open when it is switched on, it is not."""

    async def program(session: Session) -> None:
        early = await session.stream()
        with capture_calls() as calls:
            stream = await session.stream()
        for one in (early, stream):
            while await one.chunk() is not None:
                pass
            await one.close()
        assert ["complete"] == [call.ending for call in calls]

    with Endpoint([replies.stream()]) as endpoint:
        row.run(program, endpoint)


def test_thousands_dropped_at_once(row: Row) -> None:
    """However many responses are collected before anything else happens, each has its record."""
    tap.activate(tap.Watcher(endpoints=EndpointTable(), observers=(_Deaf(),)))
    with capture_calls() as calls:
        for _ in range(3000):
            one = tap.watch("test", host="h", port=1, target="/v1/messages", pairs=[], body=None)
            assert one is not None
            tap._dropped.append(one)
            del one
    tap.activate(None)
    assert set() == tap._open
    assert 3000 == len(calls)
