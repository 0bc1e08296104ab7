"""Server-sent events, however they are cut."""

from __future__ import annotations

import re
import time
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgtap import shield
from msgtap.testing import replies
from msgtap.wire.sse import EVENT_LIMIT, HEAD, EventDecoder, read_event

Events = list[tuple[str, bytes]]
NOTHING = ("", b"")


def decoded(chunks: Iterable[bytes]) -> Events:
    """The events of a body that came in these chunks, the last one without its blank line too; comments left out."""
    decoder = EventDecoder()
    blocks = [block for chunk in chunks for block in decoder.feed(chunk)]
    return [event for block in (*blocks, *decoder.finish()) if (event := read_event(block)) != NOTHING]


def cut(body: bytes, positions: Iterable[int]) -> list[bytes]:
    """The body in pieces, some perhaps empty."""
    places = sorted(min(position, len(body)) for position in positions)
    return [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]


def standard(body: bytes) -> Events:
    """The events by the letter of the standard, with the last one without its blank line too."""
    events: Events = []
    for block in re.sub(b"\r\n|\r", b"\n", body.removeprefix(b"\xef\xbb\xbf")).split(b"\n\n"):
        fields = [line.partition(b":") for line in block.split(b"\n")]
        said = [(name, value.removeprefix(b" ")) for name, _, value in fields]
        names = [value for name, value in said if name == b"event"]
        data = b"\n".join(value for name, value in said if name == b"data")
        events.append((names[-1].decode("utf-8", "replace") if names else "", data))
    return [event for event in events if event != NOTHING]


CASES: dict[str, tuple[bytes, Events]] = {
    "one": (b"event: a\ndata: 1\n\n", [("a", b"1")]),
    "two": (b"event: a\ndata: 1\n\nevent: b\ndata: 2\n\n", [("a", b"1"), ("b", b"2")]),
    "nameless": (b'data: {"type":"ping"}\n\n', [("", b'{"type":"ping"}')]),
    "no space": (b"event:a\ndata:1\n\n", [("a", b"1")]),
    "one space only is taken": (b"event:  a\ndata:  1 \n\n", [(" a", b" 1 ")]),
    "data first": (b"data: 1\nevent: a\n\n", [("a", b"1")]),
    "last name holds": (b"event: a\nevent: b\ndata: 1\n\n", [("b", b"1")]),
    "several lines of data": (b"event: a\ndata: {\ndata: }\n\n", [("a", b"{\n}")]),
    "empty lines of data": (b"data\ndata:\ndata: 1\n\n", [("", b"\n\n1")]),
    "colon in the data": (b"data: a: b\n\n", [("", b"a: b")]),
    "other fields": (b"id: 7\nretry: 10\nevent: a\nfoo\ndata: 1\n\n", [("a", b"1")]),
    "comment alone": (b": OPENROUTER PROCESSING\n\nevent: a\ndata: 1\n\n", [("a", b"1")]),
    "comment inside": (b"event: a\n: hello\ndata: 1\n\n", [("a", b"1")]),
    "crlf": (b"event: a\r\ndata: 1\r\n\r\nevent: b\r\ndata: 2\r\n\r\n", [("a", b"1"), ("b", b"2")]),
    "cr": (b"event: a\rdata: 1\r\revent: b\rdata: 2\r\r", [("a", b"1"), ("b", b"2")]),
    "mixed": (b"event: a\rdata: 1\r\n\nevent: b\r\ndata: 2\n\r\n", [("a", b"1"), ("b", b"2")]),
    "byte order mark": (b"\xef\xbb\xbfevent: a\ndata: 1\n\n", [("a", b"1")]),
    "byte order mark and comment": (b"\xef\xbb\xbf:\n\ndata: 1\n\n", [("", b"1")]),
    "blank lines": (b"\n\n\nevent: a\ndata: 1\n\n\n\n\nevent: b\ndata: 2\n\n\n", [("a", b"1"), ("b", b"2")]),
    "no final blank line": (b"event: a\ndata: 1\n\nevent: b\ndata: 2\n", [("a", b"1"), ("b", b"2")]),
    "no final line end": (b"event: a\ndata: 1\n\nevent: b\ndata: 2", [("a", b"1"), ("b", b"2")]),
    "final cr": (b"event: a\rdata: 1\r", [("a", b"1")]),
    "trailer": (b"event: data\ndata: [DONE]\n\n", [("data", b"[DONE]")]),
    "characters of several bytes": ("event: ä\ndata: 😀\n\n".encode(), [("ä", "😀".encode())]),
    "no text": (b"event: \xff\ndata: \xff\xfe\n\n", [("�", b"\xff\xfe")]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("name", CASES)
def test_events_however_they_are_cut(name: str) -> None:
    """Whole, byte by byte, with empty chunks between, and in two at each place: the same events."""
    body, expected = CASES[name]
    single = [body[n : n + 1] for n in range(len(body))]
    assert expected == decoded([body])
    assert expected == decoded(single)
    assert expected == decoded(piece for byte in single for piece in (byte, b""))
    for position in range(len(body) + 1):
        assert expected == decoded(cut(body, [position]))


LINES = st.sampled_from(
    [
        b"event: a",
        b"event:b",
        b"data: 1",
        b"data",
        b": comment",
        b"id: 1",
        "data: é".encode(),
        b"data: x: y",
        b"",
        b"junk",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
BODIES = st.lists(st.tuples(LINES, ENDS), max_size=16).map(lambda lines: b"".join(line + end for line, end in lines))


@settings(deadline=None)
@given(st.sampled_from([b"", b"\xef\xbb\xbf"]), BODIES, st.lists(st.integers(0, 200), max_size=8))
def test_any_lines_at_random_cuts(mark: bytes, body: bytes, positions: list[int]) -> None:
    """Any lines with any ends, cut anywhere, give what the standard says."""
    assert standard(mark + body) == decoded(cut(mark + body, positions))


@settings(deadline=None)
@given(st.binary(max_size=64), st.lists(st.integers(0, 64), max_size=4))
def test_any_bytes_raise_nothing(body: bytes, positions: list[int]) -> None:
    """Whatever bytes come, decoding them raises nothing, and cuts change nothing."""
    assert decoded([body]) == decoded(cut(body, positions))


@settings(deadline=None)
@given(
    st.sampled_from([replies.stream(), replies.openrouter_stream()]),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(0, 6000), max_size=12),
)
def test_real_streams_at_random_cuts(reply: replies.Reply, end: bytes, positions: list[int]) -> None:
    """Streams as Anthropic and OpenRouter send them give the same events with any line end, cut anywhere."""
    body = b"".join(step for step in reply.body if isinstance(step, bytes))
    assert decoded([body]) == decoded(cut(body.replace(b"\n", end), positions))


@pytest.mark.parametrize(("body", "complete"), [(b"data: 1\n\n", 8), (b"data: 1\r\n\r\n", 9), (b"data: 1\r\r", 8)])
def test_event_is_given_as_soon_as_its_blank_line_is_there(body: bytes, complete: int) -> None:
    """An event is not held back until the next one comes, nor for an LF that may follow a CR."""
    decoder = EventDecoder()
    given_at = [n for n in range(len(body)) if decoder.feed(body[n : n + 1])]
    assert [complete] == given_at


def test_a_long_event_is_whole_if_it_comes_in_one_chunk() -> None:
    """A chunk is in memory anyway, so an event in it is read however long it is."""
    before = dict(shield.counts())
    data = b"x" * (EVENT_LIMIT + 1)
    assert [("a", data)] == decoded([b"event: a\ndata: " + data + b"\n\n"])
    assert before == shield.counts()


@pytest.mark.parametrize("size", [16, 4096])
def test_an_event_over_the_limit_is_cut_and_counted(size: int) -> None:
    """Of an event that grows past the limit the head is kept, its name among it, and the next event is whole."""
    before = shield.counts().get("overlong_event", 0)
    body = b"event: big\ndata: " + b"x" * (EVENT_LIMIT + 5000) + b"\n\nevent: b\ndata: 2\n\n"
    (name, data), *others = decoded(body[n : n + size] for n in range(0, len(body), size))
    assert ("big", [("b", b"2")]) == (name, others)
    assert HEAD - 100 < len(data) < HEAD + 8192
    assert before + 1 == shield.counts()["overlong_event"]


@pytest.mark.parametrize("filler", [b"x", b"\n: ping", b"\r"])
def test_memory_is_bounded(filler: bytes) -> None:
    """16 MiB without a blank line, or of nothing but blank lines, cost a few at most."""
    chunk = filler * (65536 // len(filler))
    decoder = EventDecoder()
    tracemalloc.start()
    try:
        for _ in range(256):
            decoder.feed(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * EVENT_LIMIT


@pytest.mark.parametrize("line", [b"x" * (1024 * 1024), b"data: x\n\n" * 30_000, b"data: x\r\n" * 30_000])
def test_a_megabyte_byte_by_byte_is_quick(line: bytes) -> None:
    """The work is constant for each byte: a decoder that searched anew from the start would take minutes."""
    decoder = EventDecoder()
    started = time.process_time()
    for byte in line:
        decoder.feed(byte.to_bytes())
    assert time.process_time() - started < 20
