"""Recorded traffic without a client: the same bytes in other pieces, and the same answer by the other road."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgtap.exchange import Exchange
from msgtap.record import CallRecord, CallStart, Ending, MessageResponse
from msgtap.wire import headers
from msgtap.wire.message import fold, read_body
from msgtap.wire.request import read_request
from msgtap.wire.sse import EventDecoder, read_event

if TYPE_CHECKING:
    from tests.corpus.conftest import Row, Tally

LONG = 32 * 1024
"""Bodies longer than this are sampled where they are fed byte by byte."""


@pytest.fixture(scope="session")
def messages(corpus: list[Row]) -> list[Row]:
    """All answers of a Messages endpoint, handmade ones and those without a request too."""
    return [row for row in corpus if row.kind == "messages"]


def followed(row: Row, pieces: Sequence[bytes], coding: str = "identity") -> tuple[CallRecord, bool]:
    """The record of the call whose answer comes in ``pieces``, at one time; and if the last one completed it."""
    request, _ = read_request(row.request)
    start = CallStart(
        client="none", provider="anthropic", server_address="::1", server_port=1, started_at=0, request=request
    )
    exchange = Exchange(start, 0)
    exchange.receive_headers(
        row.status, headers.select((*row.headers, ("content-encoding", coding)), headers.RESPONSE), 1
    )
    complete = False
    for piece in pieces:
        complete = exchange.receive_data(piece, 2)
    return exchange.close(Ending.COMPLETE, 3), complete


def test_bytes_one_by_one(messages: list[Row], tally: Tally) -> None:
    """A body that comes byte by byte gives the very record that it gives in one piece, and as soon."""
    rows = [row for n, row in enumerate(messages) if len(row.body) <= LONG or n % 20 == 0]
    for row in rows:
        assert followed(row, [row.body]) == followed(row, [row.body[n : n + 1] for n in range(len(row.body))])
    tally.add("no client, byte by byte", len(rows), len(rows))


@settings(deadline=None, max_examples=500)
@given(data=st.data())
def test_pieces_of_any_size(messages: list[Row], data: st.DataObject) -> None:
    """So does a body cut anywhere, compressed or not; a stream also with other line ends, a BOM, or no end."""
    row = data.draw(st.sampled_from(messages))
    body = row.body
    if row.streamed:
        mark, line_end, end = (data.draw(st.sampled_from(options)) for options in ((b"", BOM), LINE_ENDS, ENDS))
        body = (mark + body.rstrip(b"\n") + end).replace(b"\n", line_end)
    coding = data.draw(st.sampled_from(["identity", "gzip"]))
    sent = gzip.compress(body) if coding == "gzip" else body
    cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=40))
    pieces = [sent[start:stop] for start, stop in itertools.pairwise(sorted([0, *cuts, len(sent)]))]
    assert followed(row, [row.body])[0] == followed(row, pieces, coding)[0]


BOM = b"\xef\xbb\xbf"
LINE_ENDS = (b"\n", b"\r\n", b"\r")
ENDS = (b"", b"\n", b"\n\n", b"\n\n\n", b"\n\n: bye\n\n", b"\n\ndata: [DONE]\n\n")


def test_streams_agree_with_their_messages(messages: list[Row], tally: Tally) -> None:
    """A recorded stream folds into the very answer that it gives when put together as one message."""
    rows = [row for row in messages if row.streamed and row.id not in PLACEHOLDER]
    for row in rows:
        assert (row.id, read_body(_put_together(row.body))) == (row.id, _folded(row.body))
    tally.add("no client, streams as messages", len(rows), len(rows))


# Its only output count is message_start's placeholder, which a whole message could not have.
PLACEHOLDER = {"anthropic-sdk-python-d779175487dd"}


def test_messages_agree_with_their_streams(messages: list[Row], tally: Tally) -> None:
    """A recorded message gives the very answer that it gives when told as a stream."""
    rows = [row for row in messages if not row.streamed and row.status == 200]
    for row in rows:
        assert (row.id, read_body(row.body)) == (row.id, _folded(_told(row.body)))
    tally.add("no client, messages as streams", len(rows), len(rows))


def _folded(stream: bytes) -> MessageResponse:
    events = (read_event(block) for block in EventDecoder().feed(stream))
    return reduce(lambda response, event: fold(response, *event), events, MessageResponse())


def _put_together(stream: bytes) -> bytes:
    """The message that a stream tells, without the text of its blocks, by the API's documentation of streaming."""
    message: dict[str, Any] = {}
    for line in stream.splitlines():
        event = json.loads(line.removeprefix(b"data:")) if line.startswith(b"data:") else {}
        match event.pop("type", None):
            case "message_start":
                message = event["message"]
            case "content_block_start":
                message["content"].append(event["content_block"])
            case "message_delta":
                usage = {name: value for name, value in event.pop("usage", {}).items() if value is not None}
                message |= {**event.pop("delta"), **event, "usage": message["usage"] | usage}
    return json.dumps(message).encode()


def _told(body: bytes) -> bytes:
    """A message as a stream, without the deltas of its blocks."""
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (name.encode(), json.dumps({"type": name, **data}).encode())
        for name, data in _events(json.loads(body))
    )


def _events(message: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    usage, late = message["usage"], {"stop_reason", "stop_sequence", "stop_details", "container", "context_management"}
    opening = {name: value for name, value in message.items() if name not in late}
    delta = {name: value for name, value in message.items() if name in late}
    yield "message_start", {"message": {**opening, "content": [], "usage": {**usage, "output_tokens": 1}}}
    for index, block in enumerate(message["content"]):
        yield "content_block_start", {"index": index, "content_block": block}
        yield "content_block_stop", {"index": index}
    edits = {name: delta.pop(name) for name in ("context_management",) if name in delta}
    yield "message_delta", {"delta": delta, "usage": {"output_tokens": usage["output_tokens"]}, **edits}
    yield "message_stop", {}
