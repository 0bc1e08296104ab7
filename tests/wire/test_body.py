"""The body of a response as it passes."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from msgtap import shield
from msgtap.record import ErrorBody, MessageResponse, Usage
from msgtap.testing import replies
from msgtap.testing.replies import Answer, OpenRouterAnswer, Reply, sse
from msgtap.wire.body import BODY_LIMIT, Body, EncodedEventStream, EventStream, WholeBody, body

FULL = Answer(thinking="A window.", text="Glass « bris » 😀.", tool=("classify", {"kind": "glass"}))
OPENROUTER = OpenRouterAnswer(thinking="A window.", text="Glass.", tool=("classify", {"kind": "glass"}))


def raw(reply: Reply) -> bytes:
    """The body of a reply."""
    return b"".join(step for step in reply.body if isinstance(step, bytes))


def cut(data: bytes, positions: Iterable[int]) -> list[bytes]:
    """The data in pieces, some perhaps empty."""
    places = sorted(min(position, len(data)) for position in positions)
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


def read(reader: Body, chunks: Iterable[bytes]) -> tuple[MessageResponse, ErrorBody | None, bool, bool]:
    """All that a body has told at its end, chunk ``n`` having come at time ``n``."""
    now = 0
    for now, chunk in enumerate(chunks):
        reader.feed(chunk, now)
    reader.finish(now)
    return reader.response, reader.error, reader.complete, reader.began


def streamed(data: bytes, codings: str = "") -> EventStream:
    """A stream that has come in one chunk."""
    reader = EncodedEventStream(codings)
    read(reader, [data])
    return reader


def whole(data: bytes, codings: str = "", *, failed: bool = False) -> WholeBody:
    """A whole body that has come in one chunk."""
    reader = WholeBody(codings, failed=failed)
    read(reader, [data])
    return reader


@pytest.mark.parametrize(
    ("status", "kind", "asked_to_stream", "streams"),
    [
        (200, "text/event-stream", True, True),
        (200, "text/event-stream; charset=utf-8", False, True),
        (200, "Text/Event-Stream", False, True),
        (200, None, True, True),
        (200, "text/plain", True, True),
        (200, "application/json", True, False),
        (200, "APPLICATION/JSON; charset=utf-8", True, False),
        (200, "application/json", False, False),
        (200, None, False, False),
        (204, None, False, False),
        (302, "text/html", True, False),
        (400, "application/json", True, False),
        (429, "text/event-stream", True, False),
        (529, "text/html", True, False),
    ],
)
def test_which_bodies_are_streams(status: int, kind: str | None, asked_to_stream: bool, streams: bool) -> None:
    """A success is a stream if it says so, or if one was asked for and it does not say JSON; nothing else ever is."""
    headers: Mapping[str, str] = {} if kind is None else {"content-type": kind}
    reader = body(status, headers, asked_to_stream=asked_to_stream)
    assert streams == isinstance(reader, EventStream)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (replies.stream(), replies.message()),
        (replies.stream(FULL), replies.message(FULL)),
        (replies.openrouter_stream(OPENROUTER), replies.openrouter_message(OPENROUTER)),
        (replies.openrouter_stream(OPENROUTER, comments=5, trailer=False), replies.openrouter_message(OPENROUTER)),
    ],
)
def test_stream_and_body_agree(stream: Reply, message: Reply) -> None:
    """A stream folds into the very response that the whole body gives."""
    assert whole(raw(message)).response == streamed(raw(stream)).response
    assert streamed(raw(stream)).complete
    assert whole(raw(message)).complete


STREAMS = [replies.stream(), replies.stream(FULL), replies.openrouter_stream(OPENROUTER), replies.stream_error_after(4)]


@pytest.mark.parametrize("reply", STREAMS)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", ["as it is", "without its blank line"])
def test_stream_byte_by_byte(reply: Reply, end: bytes, mark: bytes, last: str) -> None:
    """Byte by byte, with any line end, with a byte order mark and without the final blank line: the same facts."""
    expected = read(EventStream(), [raw(reply)])
    data = mark + raw(reply).replace(b"\n", end)
    data = data if last == "as it is" else data.rstrip(b"\r\n")
    assert expected == read(EventStream(), [data])
    assert expected == read(EventStream(), (byte.to_bytes() for byte in data))


@settings(deadline=None)
@given(
    st.sampled_from(STREAMS),
    st.lists(st.integers(0, 6000), max_size=8),
    st.lists(st.sampled_from([sse("ping", {"type": "ping"}), b": comment\n\n", b"\n\n", b"data: \n\n"]), max_size=4),
    st.sampled_from(["", "gzip", "zstd"]),
)
def test_stream_at_random_cuts(reply: Reply, positions: list[int], noise: list[bytes], coding: str) -> None:
    """At random cuts, with pings and comments between any two events, in any coding: the same facts."""
    steps = [step for step in reply.body if isinstance(step, bytes)]
    noisy = list(steps)
    for piece, position in zip(noise, positions, strict=False):
        noisy.insert(position % (len(steps) + 1), piece)
    data = b"".join(noisy)
    compress: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstandard.compress}
    data = compress.get(coding, bytes)(data)
    assert read(EventStream(), [raw(reply)]) == read(EncodedEventStream(coding), cut(data, positions))


@settings(deadline=None)
@given(st.sampled_from([replies.message(FULL), replies.error(429)]), st.lists(st.integers(0, 2000), max_size=8))
def test_whole_body_at_random_cuts(reply: Reply, positions: list[int]) -> None:
    """A whole body, cut anywhere, says the same; with a coding and with a byte order mark too."""
    failed = reply.status != 200
    expected = read(WholeBody("", failed=failed), [raw(reply)])
    for codings, data in (
        ("", raw(reply)),
        ("gzip", gzip.compress(raw(reply))),
        ("gzip", gzip.compress(b"\xef\xbb\xbf" + raw(reply))),
    ):
        assert expected == read(WholeBody(codings, failed=failed), cut(data, positions))


def test_nameless_events_are_named_by_their_data() -> None:
    """Frames without ``event:``, as some gateways send them, and with the type anywhere in the data, fold the same."""
    lines = raw(replies.stream(FULL)).split(b"\n")
    nameless = b"\n".join(line for line in lines if not line.startswith(b"event:"))
    assert streamed(raw(replies.stream(FULL))).response == streamed(nameless).response
    assert streamed(nameless).complete
    before = dict(shield.counts())
    moved = b'data: {"index":0, "type" : "message_stop"}\n\n'
    assert streamed(moved + b"data: [DONE]\n\n").complete
    assert before == shield.counts()


def test_several_lines_of_data_are_one_json() -> None:
    """An event whose JSON is spread over lines folds as one line does."""
    spread = b"".join(
        b"event: %s\n" % json.loads(data)["type"].encode()
        + b"".join(b"data: %s\n" % line for line in json.dumps(json.loads(data), indent=1).encode().split(b"\n"))
        + b"\n"
        for line in raw(replies.stream(FULL)).split(b"\n")
        if (data := line.removeprefix(b"data: ")) != line
    )
    assert streamed(raw(replies.stream(FULL))).response == streamed(spread).response


CLOCKS: list[tuple[str, list[bytes], dict[str, int | None]]] = [
    ("nothing", [], {}),
    ("no event: comments and pings", [b": hello\n\n", sse("ping", {"type": "ping"}), b"\n\n"], {}),
    (
        "text",
        [b": hello\n\n", *replies.events(Answer(text="one two"))],
        # comment, message_start, content_block_start, ping, delta
        {"first_event": 1, "first_answer": 4},
    ),
    (
        "thinking, then text",
        list(replies.events(Answer(thinking="one", text="two"))),
        # message_start, content_block_start, ping, delta, signature, content_block_stop, content_block_start, delta
        {"first_event": 0, "first_thinking": 3, "first_answer": 7},
    ),
    (
        "a tool call only",
        list(replies.events(Answer(text=None, tool=("a", {})))),
        {"first_event": 0, "first_answer": 3},
    ),
    (
        "hidden thinking, which has no deltas",
        [
            replies.events()[0],
            sse("content_block_start", {"type": "content_block_start", "content_block": {"type": "redacted_thinking"}}),
            sse("content_block_stop", {"type": "content_block_stop", "index": 0}),
            sse("content_block_start", {"type": "content_block_start", "content_block": {"type": "text"}}),
            sse("content_block_delta", {"type": "content_block_delta", "delta": {"type": "text_delta", "text": ""}}),
        ],
        {"first_event": 0, "first_answer": 4},
    ),
    (
        "a server tool's result, which is there at once",
        [
            replies.events()[0],
            sse("content_block_start", {"content_block": {"type": "web_search_tool_result", "content": []}}),
            sse("content_block_start", {"content_block": {"type": "text"}}),
            b'event:content_block_delta\ndata:{"delta":{"type":"text_delta"}}\n\n',
            b'event:content_block_delta\ndata:{"delta":{"type":"text_delta"}}\n\n',
        ],
        {"first_event": 0, "first_answer": 3},
    ),
    ("an error", [sse("error", {"type": "error", "error": {"type": "overloaded_error"}})], {"first_event": 0}),
    (
        "an event without its blank line",
        [b"", b"", b'event: message_stop\ndata: {"type":"message_stop"}'],
        {"first_event": 2},
    ),
    ("an event that is cut off", [b"", b'event: message_stop\ndata: {"type":"mess'], {}),
]


@pytest.mark.parametrize(("chunks", "expected"), [case[1:] for case in CLOCKS], ids=[case[0] for case in CLOCKS])
def test_clocks_of_a_stream(chunks: list[bytes], expected: dict[str, int | None]) -> None:
    """The first event is no ping and no comment; the first delta of a thinking block and of any other count."""
    reader = EventStream()
    read(reader, chunks)
    names = ("first_event", "first_thinking", "first_answer")
    assert {**dict.fromkeys(names), **expected} == {name: getattr(reader, name) for name in names}


@pytest.mark.parametrize(
    ("count", "complete", "began"),
    [(0, False, False), (1, False, True), (4, False, True), (-1, False, True), (None, True, True)],
)
def test_stream_is_complete_with_its_last_event_only(count: int | None, complete: bool, began: bool) -> None:
    """A stream without ``message_stop`` is not complete; generation has begun with ``message_start``."""
    reader = streamed(b"".join(replies.events(FULL)[:count]))
    assert (complete, began) == (reader.complete, reader.began)


@pytest.mark.parametrize("count", [0, 1, 3, -1])
def test_error_in_a_stream(count: int) -> None:
    """An ``error`` event, first or later, completes the stream and says what went wrong; the facts so far stay."""
    before = streamed(b"".join(replies.events(FULL)[:count]))
    error = sse(
        "error", {"type": "error", "error": {"type": "api_error", "error_type": "server"}, "request_id": "gen-1"}
    )
    reader = streamed(b"".join(replies.events(FULL)[:count]) + error)
    assert ErrorBody(type="api_error", error_type="server", request_id="gen-1") == reader.error
    assert (before.response, True, count != 0) == (reader.response, reader.complete, reader.began)


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"nonsense", b'{"error": 1}', b'{"error": {"type": "Odd!"}}'])
def test_error_in_a_stream_that_says_nothing(data: bytes) -> None:
    """An ``error`` event is an error whatever its data."""
    reader = streamed(b"event: error\ndata: " + data + b"\n\n")
    assert (ErrorBody(), True) == (reader.error, reader.complete)


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"type": "error", "error": {"type": "overloaded_error"}}, ErrorBody(type="overloaded_error")),
        ({"type": "error"}, ErrorBody()),
        ({"type": "message", "error": {"type": "overloaded_error"}}, None),
        ({}, None),
    ],
)
def test_error_in_a_whole_body(document: dict[str, object], error: ErrorBody | None) -> None:
    """A body of status 200 whose type is ``error``, as some gateways send it, is an error too."""
    reader = whole(json.dumps(document).encode())
    assert (error, True) == (reader.error, reader.complete)


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize("data", [b"", b" \r\n", b"<html></html>", b"[]", b"null", b'"text"', b'{"type":"mess'])
def test_whole_body_that_says_nothing(data: bytes, failed: bool) -> None:
    """An empty body, a page, JSON that is no object, a part of a body: no facts, no error, not complete."""
    assert (MessageResponse(), None, False, False) == read(WholeBody("", failed=failed), [data])


@pytest.mark.parametrize("codings", ["snappy", "gzip,snappy", "gzip," * 9])
def test_undecodable_stream_is_no_truncated_one(codings: str) -> None:
    """What could not be read cannot be called incomplete either; that is counted, once."""
    before = shield.counts().get("undecodable_body", 0)
    reader = EncodedEventStream(codings)
    assert (MessageResponse(), None, True, False) == read(reader, [b"abc", b"def"])
    assert before + 1 == shield.counts()["undecodable_body"]


def test_stream_that_turns_undecodable_keeps_what_it_said() -> None:
    """Events before the corrupt place are folded, and the rest is not waited for."""
    first, rest = gzip.compress(b"".join(replies.events()[:3])), b"\xff" * 100
    reader = EncodedEventStream("gzip")
    response, error, complete, began = read(reader, [first, rest, rest])
    assert (("text",), None, True, True) == (response.content, error, complete, began)


@pytest.mark.parametrize("tail", [b"", b"\0\0\0\0", b"junk"])
def test_whole_body_with_something_behind_it(tail: bytes) -> None:
    """What follows a compressed body, padding say, does not cost the body."""
    compressed = gzip.compress(raw(replies.message()))
    assert whole(raw(replies.message())).response == whole(compressed + tail, "gzip").response


@pytest.mark.parametrize("data", [b"not gzip", b"\x1f\x8b\x08\x00", gzip.compress(raw(replies.message()))[:200]])
def test_undecodable_whole_body(data: bytes) -> None:
    """A whole body that cannot be undone says nothing."""
    assert (MessageResponse(), None, False, False) == read(WholeBody("gzip", failed=False), [data])


@pytest.mark.parametrize("size", [BODY_LIMIT, BODY_LIMIT + 1])
@pytest.mark.parametrize("coding", ["", "zstd"])
def test_overlong_whole_body(size: int, coding: str) -> None:
    """A whole body of the limit is read, a longer one is left out and counted, before or after its coding is undone."""
    before, unread = shield.counts().get("overlong_body", 0), shield.counts().get("undecodable_json", 0)
    data = b'{"id":"msg_1","text":"' + b"x" * (size - 24) + b'"}'
    chunk = zstandard.compress(data) if coding else data
    reader = whole(chunk, coding)
    assert (size, "msg_1" if size == BODY_LIMIT else None) == (len(data), reader.response.id)
    assert (size > BODY_LIMIT) == shield.counts().get("overlong_body", 0) - before
    assert unread == shield.counts().get("undecodable_json", 0)  # and nobody has tried to read what is left of it


def peak_of(reader: Body, chunk: bytes, times: int) -> int:
    """Most bytes of memory that feeding this chunk over and over took."""
    tracemalloc.start()
    try:
        for now in range(times):
            reader.feed(chunk, now)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_of_a_stream_is_bounded() -> None:
    """A stream of 64 MiB, compressed or not, costs no more memory than its largest event."""
    event = sse(
        "content_block_delta", {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "word " * 200}}
    )
    many = event * 1000
    assert peak_of(EventStream(), many, 64) < 8 * 1024 * 1024
    assert peak_of(EncodedEventStream("gzip"), gzip.compress(many), 64) < 1024 * 1024


def test_memory_of_a_whole_body_is_bounded() -> None:
    """A body that never ends is let go once it is over the limit; a bomb is not blown up past it."""
    assert peak_of(WholeBody("", failed=False), bytes(1024 * 1024), 64) < BODY_LIMIT + 2 * 1024 * 1024
    bomb = WholeBody("gzip", failed=False)
    bomb.feed(gzip.compress(bytes(64 * 1024 * 1024)), 0)
    tracemalloc.start()
    try:
        bomb.finish(0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * BODY_LIMIT


def test_a_stream_of_many_blocks_is_bounded() -> None:
    """Content blocks without end are counted up to a limit; the clock of the first answer has long stopped."""
    opening = sse("content_block_start", {"type": "content_block_start", "content_block": {"type": "text"}})
    reader = streamed(replies.events()[0] + opening * 10_000)
    assert 256 == len(reader.response.content)


NAMES = st.sampled_from(
    [
        "type",
        "message",
        "usage",
        "delta",
        "content_block",
        "error",
        "id",
        "model",
        "content",
        "stop_reason",
        "container",
        "iterations",
        "cache_creation",
        "input_tokens",
        "output_tokens",
        "cost",
        "provider",
        "request_id",
        "index",
        "unknown",
    ]
)
EVENT_NAMES = st.sampled_from(
    [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "message_delta",
        "message_stop",
        "error",
        "ping",
        "unknown",
        "",
    ]
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=16,
)


@settings(deadline=None)
@given(st.lists(st.tuples(EVENT_NAMES, st.dictionaries(NAMES, JSON, max_size=5) | JSON), max_size=6))
def test_any_events_raise_nothing(events: list[tuple[str, object]]) -> None:
    """Whatever JSON the events carry, folding them raises nothing, and counts stay counts."""
    data = b"".join(f"event: {name}\ndata: {json.dumps(value)}\n\n".encode() for name, value in events)
    usage = streamed(data).response.usage
    assert all(value is None or value >= 0 for value in (usage.input_tokens, usage.output_tokens, usage.cost))


@settings(deadline=None)
@given(st.binary(max_size=80), st.sampled_from(["", "gzip", "deflate", "br", "zstd", "gzip, br"]), st.booleans())
def test_any_bytes_raise_nothing(data: bytes, codings: str, failed: bool) -> None:
    """Whatever bytes a body is made of, reading it raises nothing."""
    halves = [data[: len(data) // 2], data[len(data) // 2 :]]
    read(EncodedEventStream(codings), halves)
    read(WholeBody(codings, failed=failed), halves)
    assert Usage() == streamed(data).response.usage
