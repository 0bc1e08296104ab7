"""One request and its reply: every ending at every moment, with time as an argument."""

from __future__ import annotations

import itertools
import json
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgtap import semconv
from msgtap.exchange import Exchange
from msgtap.record import (
    NO_RESPONSE,
    CallRecord,
    CallStart,
    Correlation,
    Ending,
    MessageRequest,
    MessageResponse,
    ResponseHeaders,
    Timing,
)
from msgtap.telemetry.attributes import Attributes, call_attributes
from msgtap.testing import replies
from msgtap.testing.replies import Answer, sse

S = 1_000_000_000
EPOCH = 1_795_400_000 * S
STARTED = 17 * S
FAILURE = "httpx2.ReadTimeout"
SSE = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}
GIVEN = (Ending.COMPLETE, Ending.CLOSED, Ending.CANCELLED, Ending.FAILED, Ending.EXIT)
OVERLOADED = sse("error", {"type": "error", "error": {"type": "overloaded_error", "message": "sk-ant-echoed"}})
EVENTS = replies.events(Answer(thinking="a", text="b"))
MESSAGE = b"".join(step for step in replies.message().body if isinstance(step, bytes))
ENVELOPE = json.dumps({"type": "error", "error": {"type": "rate_limit_error"}}).encode()


def begin(*, stream: bool = True, started: int = STARTED) -> Exchange:
    """An exchange that begins at ``started``."""
    start = CallStart(
        client="c",
        provider="p",
        server_address="h",
        server_port=443,
        started_at=EPOCH,
        request=MessageRequest(model="m", stream=stream),
        correlation=Correlation(session_id="s"),
        betas=("b",),
        attempt=2,
    )
    return Exchange(start, started)


class Moment(NamedTuple):
    """How far a reply has come, and what the design says of a call that ends there."""

    stream: bool
    status: int | None
    headers: dict[str, str]
    chunks: tuple[bytes, ...]
    complete: bool = False
    """All that an answer has to say has been said."""
    error: str | None = None
    """What is wrong with it, whatever ends the call."""
    began: bool = False
    stopped: bool = False
    """A stop reason is known."""


MOMENTS = {
    "nothing yet": Moment(True, None, {}, ()),
    "nothing yet, not streamed": Moment(False, None, {}, ()),
    "headers of a stream": Moment(True, 200, SSE, ()),
    "a comment": Moment(True, 200, SSE, (b": hello\n\n",)),
    "a ping": Moment(True, 200, SSE, (sse("ping", {"type": "ping"}),)),
    "part of the first event": Moment(True, 200, SSE, (EVENTS[0][:50],)),
    "message_start": Moment(True, 200, SSE, EVENTS[:1], began=True),
    "content": Moment(True, 200, SSE, EVENTS[:5], began=True),
    "message_delta": Moment(True, 200, SSE, EVENTS[:-1], began=True, stopped=True),
    "part of message_stop": Moment(True, 200, SSE, (*EVENTS[:-1], EVENTS[-1][:-9]), began=True, stopped=True),
    "message_stop without its blank line": Moment(
        True, 200, SSE, (*EVENTS[:-1], EVENTS[-1].strip()), complete=True, began=True, stopped=True
    ),
    "message_stop": Moment(True, 200, SSE, EVENTS, complete=True, began=True, stopped=True),
    "message_stop and a trailer": Moment(
        True, 200, SSE, (*EVENTS, b"data: [DONE]\n\n"), complete=True, began=True, stopped=True
    ),
    "an error at once": Moment(True, 200, SSE, (OVERLOADED,), complete=True, error="overloaded_error"),
    "an error after the start": Moment(
        True, 200, SSE, (EVENTS[0], OVERLOADED), complete=True, error="overloaded_error", began=True
    ),
    "an error after content": Moment(
        True, 200, SSE, (*EVENTS[:5], OVERLOADED), complete=True, error="overloaded_error", began=True
    ),
    "an error without a type": Moment(True, 200, SSE, (b"event: error\ndata: {}\n\n",), complete=True, error="_OTHER"),
    "a stream that nobody can decode": Moment(
        True, 200, SSE | {"content-encoding": "snappy"}, (b"abc",), complete=True
    ),
    "a page instead of a stream": Moment(True, 200, {"content-type": "text/html"}, (b"<html></html>",)),
    "a message instead of a stream": Moment(True, 200, JSON, (MESSAGE,), complete=True, stopped=True),
    "headers of a message": Moment(False, 200, JSON, ()),
    "part of a message": Moment(False, 200, JSON, (MESSAGE[:70],)),
    "a message": Moment(False, 200, JSON, (MESSAGE[:70], MESSAGE[70:]), complete=True, stopped=True),
    "a page": Moment(False, 200, {"content-type": "text/html"}, (b"<html></html>",)),
    "an error as a message": Moment(False, 200, JSON, (ENVELOPE,), complete=True, error="rate_limit_error"),
    "headers of an error": Moment(True, 529, JSON, (), error="529"),
    "part of an error": Moment(True, 429, JSON, (ENVELOPE[:30],), error="429"),
    "an error": Moment(True, 429, JSON, (ENVELOPE,), complete=True, error="rate_limit_error"),
    "an error, not streamed": Moment(False, 429, JSON, (ENVELOPE,), complete=True, error="rate_limit_error"),
    "an error that says nothing": Moment(False, 500, JSON, (b"{}",), complete=True, error="500"),
    "a page of an error": Moment(True, 502, {"content-type": "text/html"}, (b"<html></html>",), error="502"),
    "an error without a body": Moment(True, 503, {}, (), error="503"),
}


def expected(moment: Moment, ending: Ending) -> tuple[Ending, str | None]:
    """The verdict as the design's table has it: what ended the call, and its error type."""
    if moment.complete:
        return Ending.COMPLETE, moment.error
    is_stream = moment.status == 200 and moment.stream
    if is_stream and ending is Ending.COMPLETE:
        return Ending.TRUNCATED, "stream_truncated"
    return ending, moment.error or (FAILURE if ending is Ending.FAILED else None)


def run(moment: Moment, ending: Ending) -> tuple[CallRecord, list[bool]]:
    """The record of a call that comes this far, a second a step, and then ends; and when it is complete."""
    exchange, clock = begin(stream=moment.stream), itertools.count(STARTED + S, S)
    if moment.status is not None:
        exchange.receive_headers(moment.status, moment.headers, next(clock))
    gave: list[bool] = []
    for chunk in moment.chunks:
        told = exchange.receive_data(chunk, next(clock))
        assert told or not exchange.complete  # whoever asks only when told misses nothing
        gave.append(exchange.complete)
    return exchange.close(ending, STARTED + 100 * S, FAILURE if ending is Ending.FAILED else None), gave


@pytest.mark.parametrize("ending", GIVEN)
@pytest.mark.parametrize("name", MOMENTS)
def test_every_ending_at_every_moment(name: str, ending: Ending) -> None:
    """What is complete stays so whatever ends it; a stream without its end is truncated; else the ending speaks."""
    moment = MOMENTS[name]
    record, gave = run(moment, ending)
    verdict, error_type = expected(moment, ending)
    assert (verdict, error_type, moment.status) == (record.ending, record.error_type, record.status)
    assert moment.began == record.output_expected
    assert moment.stopped == (record.response.stop_reason is not None)
    assert not any(gave[:-2])  # completion is told with the chunk that brings it
    assert "sk-ant-echoed" not in repr(record)


@pytest.mark.parametrize("ending", GIVEN)
@pytest.mark.parametrize("name", MOMENTS)
def test_what_the_span_says_of_every_ending(name: str, ending: Ending) -> None:
    """``error.type`` only for failures, ``msgtap.ended`` only for a program that left, a reason once it had begun."""
    moment = MOMENTS[name]
    attributes: Attributes = call_attributes(run(moment, ending)[0])
    verdict, error_type = expected(moment, ending)
    left = verdict in {Ending.CLOSED, Ending.CANCELLED, Ending.EXIT}
    assert error_type == attributes.get(semconv.ERROR_TYPE)
    assert (verdict.value if left else None) == attributes.get(semconv.ENDED)
    reasons = ("stop",) if moment.stopped else ("error",) if moment.began else None
    assert reasons == attributes.get(semconv.FINISH_REASONS)


@pytest.mark.parametrize("ending", GIVEN)
@pytest.mark.parametrize("name", MOMENTS)
def test_when_every_ending_was(name: str, ending: Ending) -> None:
    """A failure, a cancellation and a stream cut short end when that is noticed, all else when it was last heard of."""
    moment = MOMENTS[name]
    record, _ = run(moment, ending)
    steps = (moment.status is not None) + len(moment.chunks)
    noticed = record.ending in {Ending.FAILED, Ending.CANCELLED, Ending.TRUNCATED} or not steps
    seconds = 100 if noticed else steps
    assert (EPOCH, EPOCH + seconds * S, float(seconds)) == (
        record.timing.started_at,
        record.timing.ended_at,
        record.timing.duration,
    )
    assert (1.0 if moment.status else None) == record.timing.headers
    assert (float(steps) if moment.chunks else None) == record.timing.last_chunk


def test_completion_is_told_with_the_chunk_that_brings_it() -> None:
    """Each chunk of a stream gives False, but for the one with its last event; a whole body is read at its end."""
    for moment in (MOMENTS["message_stop"], MOMENTS["an error after content"]):
        _, gave = run(moment, Ending.CLOSED)
        assert [False] * (len(gave) - 1) + [True] == gave
    assert [False, False] == run(MOMENTS["a message"], Ending.COMPLETE)[1]


def test_the_record_has_all_that_is_known() -> None:
    """What was known at the start, and the head of the response, are in the record as they were."""
    exchange = begin()
    headers = {**SSE, "request-id": "req_1", "retry-after": "7"}
    exchange.receive_headers(200, headers, STARTED + S)
    assert MessageResponse() == exchange.response
    exchange.receive_data(b"".join(EVENTS[:-1]), STARTED + 2 * S)
    record = exchange.close(Ending.CLOSED, STARTED + 3 * S)
    assert ("c", "p", "h", 443, "m", "s", ("b",), 2) == (
        record.client,
        record.provider,
        record.server_address,
        record.server_port,
        record.request.model,
        record.correlation.session_id,
        record.betas,
        record.attempt,
    )
    assert ResponseHeaders(request_id="req_1", retry_after=7.0) == record.headers
    assert exchange.response is record.response
    assert record.error is None


def test_response_is_another_object_when_it_has_changed() -> None:
    """Whoever follows the facts can tell by identity whether there is more to know; before the head there are none."""
    exchange = begin()
    assert exchange.response is NO_RESPONSE
    exchange.receive_headers(200, SSE, STARTED)
    seen: list[MessageResponse | None] = []
    for event in EVENTS:
        exchange.receive_data(event, STARTED)
        seen.append(exchange.response)
    changed = [after is not before for before, after in itertools.pairwise([MessageResponse(), *seen])]
    names = [event.split(b"\n")[0].removeprefix(b"event: ") for event in EVENTS]
    assert {b"message_start", b"content_block_start", b"message_delta"} == {
        name for name, has in zip(names, changed, strict=True) if has
    }


def test_clocks_of_a_stream() -> None:
    """Headers, first event, first thinking, first answer, last chunk and the longest stall, each at its time."""
    exchange = begin()
    exchange.receive_headers(200, SSE, STARTED + 1 * S)
    # message_start, content_block_start, ping, delta, signature, content_block_stop, content_block_start, delta, ...
    times = [3, 4, 5, 6, 7, 8, 20, 21, 22, 23, 24]
    for at, event in zip(times, EVENTS, strict=True):
        exchange.receive_data(event, STARTED + at * S)
    record = exchange.close(Ending.COMPLETE, STARTED + 99 * S)
    assert (
        Timing(
            started_at=EPOCH,
            ended_at=EPOCH + 24 * S,
            duration=24.0,
            headers=1.0,
            first_event=3.0,
            first_thinking=6.0,
            first_answer=21.0,
            last_chunk=24.0,
            longest_stall=12.0,
        )
        == record.timing
    )


@pytest.mark.parametrize("gaps", [(), (1,), (1, 1), (2, 9, 3), (9, 2, 3), (0, 0)])
def test_longest_stall(gaps: tuple[int, ...]) -> None:
    """The longest time between two chunks of a stream; none before there is a chunk, none for a whole body."""
    stream, whole, now = begin(), begin(), STARTED
    stream.receive_headers(200, SSE, now)
    whole.receive_headers(200, JSON, now)
    for gap in gaps:
        now += gap * S
        stream.receive_data(b": hello\n\n", now)
        whole.receive_data(b" ", now)
    expected_stall = float(max(gaps[1:], default=0)) if gaps else None
    assert expected_stall == stream.close(Ending.CLOSED, now + 50 * S).timing.longest_stall
    assert whole.close(Ending.CLOSED, now).timing.longest_stall is None


def test_an_event_without_its_blank_line_is_timed_by_its_chunk() -> None:
    """The only event of a stream, read at its end, came when its chunk came."""
    exchange = begin()
    exchange.receive_headers(200, SSE, STARTED + S)
    exchange.receive_data(OVERLOADED.strip(), STARTED + 2 * S)
    timing = exchange.close(Ending.COMPLETE, STARTED + 9 * S).timing
    assert (2.0, 2.0, 2.0) == (timing.first_event, timing.last_chunk, timing.duration)


def test_a_clock_may_start_at_nothing() -> None:
    """Zero is a time like any other."""
    exchange = begin(started=-S)
    exchange.receive_headers(200, SSE, -S)
    exchange.receive_data(b"".join(EVENTS), 0)
    timing = exchange.close(Ending.COMPLETE, 5 * S).timing
    assert (1.0, 1.0, 0.0, 0.0) == (timing.duration, timing.first_event, timing.headers, timing.longest_stall)


def test_data_before_headers_is_no_error() -> None:
    """A client that shows a body without its head costs the facts, no more."""
    exchange = begin()
    assert not exchange.receive_data(b"".join(EVENTS), STARTED + S)
    record = exchange.close(Ending.COMPLETE, STARTED + 2 * S)
    assert (Ending.COMPLETE, None, None, 1.0) == (
        record.ending,
        record.status,
        record.error_type,
        record.timing.duration,
    )


STEPS = st.lists(
    st.tuples(
        st.sampled_from([*EVENTS, OVERLOADED, MESSAGE, ENVELOPE, b": hello\n\n", b"", b"junk", b"\r\n", b"\xff"]),
        st.integers(0, 5 * S),
    ),
    max_size=8,
)


@settings(deadline=None)
@given(
    st.booleans(),
    st.none() | st.sampled_from([100, 200, 204, 302, 400, 404, 429, 500, 529, 999]),
    st.sampled_from([SSE, JSON, {}, SSE | {"content-encoding": "gzip"}, JSON | {"content-encoding": "br"}]),
    STEPS,
    st.sampled_from(GIVEN),
)
def test_any_course_of_events(
    stream: bool, status: int | None, headers: dict[str, str], steps: list[tuple[bytes, int]], ending: Ending
) -> None:
    """Whatever comes, in whatever order, one record comes out, its times in order and its verdict coherent."""
    exchange, now = begin(stream=stream), STARTED
    if status is not None:
        exchange.receive_headers(status, headers, now)
    for chunk, gap in steps:
        now += gap
        exchange.receive_data(chunk, now)
    record = exchange.close(ending, now + S, FAILURE if ending is Ending.FAILED else None)
    timing = record.timing
    marks = [timing.headers, timing.first_event, timing.first_thinking, timing.first_answer, timing.last_chunk]
    assert all(0 <= mark <= timing.duration for mark in marks if mark is not None)
    assert 0 <= timing.duration <= (now + S - STARTED) / S
    if record.error_type is None:
        assert record.ending not in {Ending.FAILED, Ending.TRUNCATED}
        assert record.status is None or record.status < 400
        assert record.error is None
    if record.output_expected:
        assert record.response.id is not None
    call_attributes(record)
