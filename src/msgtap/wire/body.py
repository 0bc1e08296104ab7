"""The body of a response as it passes: an event stream that is folded, or a whole body that is read at its end.

Times are arguments, in nanoseconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from msgtap import shield
from msgtap.record import ErrorBody, MessageResponse
from msgtap.wire.encoding import Decoder, UndecodableError, decoder
from msgtap.wire.message import event_name, fold, is_whole, read_body, read_error
from msgtap.wire.sse import EventDecoder, read_event

BODY_LIMIT = 16 * 1024 * 1024
"""Most bytes of a whole body that are kept, before and after its coding is undone."""

_DELTA = b"event: content_block_delta\n"
_THINKING = frozenset({"thinking", "redacted_thinking"})


class Body(Protocol):
    """What a body has told so far.

    Attributes:
        response: the facts of the answer; another object whenever they have changed.
        error: what an error body or an ``error`` event says.
        complete: whether it has said all that an answer has to say.
        began: whether the model had begun to generate.
    """

    response: MessageResponse
    error: ErrorBody | None
    complete: bool
    began: bool

    def feed(self, data: bytes, now: int) -> None:
        """Take the next chunk, as it came over the wire, at ``now``."""

    def finish(self, now: int) -> None:
        """No more will come; the last of it came at ``now``."""


def body(status: int, headers: Mapping[str, str], *, asked_to_stream: bool) -> Body:
    """The reader for a response with this status and these (selected) headers."""
    kind = headers.get("content-type", "").lower()
    streams = "event-stream" in kind or (asked_to_stream and "json" not in kind)
    codings = headers.get("content-encoding", "")
    # A stream that fails at once is answered as plain JSON, and a redirect by nothing in particular.
    if status < 300 and streams:  # noqa: PLR2004
        return EventStream(codings)
    return WholeBody(codings, failed=status >= 400)  # noqa: PLR2004


class EventStream:
    """A body of server-sent events: constant work for each, and none is kept.

    Attributes:
        first_event, first_thinking, first_answer: when the first event (no ping, no comment), the first delta of a
            thinking block and the first delta of any other block came.
    """

    def __init__(self, codings: str) -> None:
        self.response = MessageResponse()
        self.error: ErrorBody | None = None
        self.complete = False
        self.began = False
        self.first_event: int | None = None
        self.first_thinking: int | None = None
        self.first_answer: int | None = None
        self._events = EventDecoder()
        self._awaited = ""
        self._opaque = False
        self._decode: Decoder | None = None
        try:
            self._decode = decoder(codings)
        except UndecodableError:
            self._give_up()

    def feed(self, data: bytes, now: int) -> None:
        """Fold the events that ``data`` completes."""
        if self._decode is None:
            self._receive(data, now)
            return
        try:
            for piece in self._decode(data):
                self._receive(piece, now)
        except UndecodableError:
            self._give_up()

    def finish(self, now: int) -> None:
        """Read an event whose blank line is missing, if it is all there otherwise."""
        for block in self._events.finish():
            if is_whole(read_event(block)[1]):
                self._read(block, now)
        # What could not be read cannot be called incomplete either.
        self.complete = self.complete or self._opaque

    def _give_up(self) -> None:
        shield.count("undecodable_body")
        self._opaque = True
        self._decode = _nothing

    def _receive(self, data: bytes, now: int) -> None:
        for block in self._events.feed(data):
            if block.startswith(_DELTA):
                if self._awaited:
                    self._mark(now)
            else:
                self._read(block, now)

    def _read(self, block: bytes, now: int) -> None:
        name, data = read_event(block)
        name = event_name(name, data)
        if name == "content_block_delta":
            if self._awaited:
                self._mark(now)
            return
        if not name or name == "ping":
            return
        if self.first_event is None:
            self.first_event = now
        self.response = fold(self.response, name, data)
        if name == "message_start":
            self.began = True
        elif name == "content_block_start":
            self._await_token()
        elif name == "error":
            self.error = read_error(data) or ErrorBody()
            self.complete = True
        elif name == "message_stop":
            self.complete = True

    def _await_token(self) -> None:
        """The clock of the first token of its kind starts waiting for the block that has just begun."""
        thinks = self.response.content[-1:] and self.response.content[-1] in _THINKING
        kind = "first_thinking" if thinks else "first_answer"
        self._awaited = kind if getattr(self, kind) is None else ""

    def _mark(self, now: int) -> None:
        setattr(self, self._awaited, now)
        self._awaited = ""


class WholeBody:
    """A body that is one JSON value, or none: kept up to `BODY_LIMIT`, read once."""

    def __init__(self, codings: str, *, failed: bool) -> None:
        self.response = MessageResponse()
        self.error: ErrorBody | None = None
        self.complete = False
        self.began = False
        self._codings = codings
        self._failed = failed
        self._chunks: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes, now: int) -> None:  # noqa: ARG002  # a body without events has no clocks
        """Keep ``data``, up to `BODY_LIMIT` in all."""
        self._size += len(data)
        if self._size <= BODY_LIMIT:
            self._chunks.append(data)
        else:
            self._chunks.clear()

    def finish(self, now: int) -> None:  # noqa: ARG002
        """Read the body; it is complete if it is a JSON object, however the reading of it ended."""
        if self._size > BODY_LIMIT:
            shield.count("overlong_body")
            return
        content = self._content()
        if not content.strip():
            return
        response = None if self._failed else read_body(content)
        if self._failed or (response and response.type == "error"):  # some gateways say so with status 200
            self.error = read_error(content)
        self.complete = self.error is not None or response is not None
        self.response = response or self.response

    def _content(self) -> bytes:
        """The body without its coding, as far as it can be undone."""
        raw, self._chunks = b"".join(self._chunks), []
        pieces: list[bytes] = []
        try:
            decode = decoder(self._codings)
            pieces.extend([raw] if decode is None else _bounded(decode(raw)))
        except UndecodableError:  # perhaps only what follows the body is: the pieces before it have been kept
            shield.count("undecodable_body")
        return b"".join(pieces)


def _nothing(_: bytes) -> Iterator[bytes]:
    """The decoder of a body that cannot be decoded."""
    return iter(())


def _bounded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > BODY_LIMIT:
            shield.count("overlong_body")
            return
        yield piece
