"""The body of a response as it passes: an event stream that is folded, or a whole body that is read at its end.

Times are arguments, in nanoseconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from msgtap import shield
from msgtap.record import NO_RESPONSE, ErrorBody, MessageResponse
from msgtap.wire.encoding import Decoder, UndecodableError, decoder
from msgtap.wire.message import event_name, fold, is_whole, read_body, read_error
from msgtap.wire.sse import EventDecoder, read_event

BODY_LIMIT = 16 * 1024 * 1024
"""Most bytes of a whole body that are kept, before and after its coding is undone."""

_PADDING = b" \t\r\n\0"  # white space, in UTF-16 too
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

    def feed(self, data: bytes, now: int) -> bool:
        """Take the next chunk, as it came over the wire, at ``now``. True where it may have told something."""
        ...

    def finish(self, now: int) -> None:
        """No more will come; the last of it came at ``now``."""


def body(status: int, headers: Mapping[str, str], *, asked_to_stream: bool) -> Body:
    """The reader for a response with this status and these (selected) headers."""
    kind = headers.get("content-type", "").lower()
    streams = "event-stream" in kind or (asked_to_stream and "json" not in kind)
    codings = headers.get("content-encoding", "")
    # A stream that fails at once is answered as plain JSON, and a redirect by nothing in particular.
    if status < 300 and streams:  # noqa: PLR2004
        return EncodedEventStream(codings) if codings else EventStream()
    return WholeBody(codings, failed=status >= 400)  # noqa: PLR2004


class EventStream:
    """A body of server-sent events: constant work for each, and none is kept.

    Attributes:
        first_event, first_thinking, first_answer: when the first event (no ping, no comment), the first delta of a
            thinking block and the first delta of any other block came.
    """

    def __init__(self) -> None:
        self.response = NO_RESPONSE
        self.error: ErrorBody | None = None
        self.complete = False
        self.began = False
        self.first_event: int | None = None
        self.first_thinking: int | None = None
        self.first_answer: int | None = None
        self._events = EventDecoder()
        self._awaited = ""

    def feed(self, data: bytes, now: int) -> bool:
        """Fold the events that ``data`` completes."""
        told = False
        for block in self._events.feed(data):
            if not block.startswith(_DELTA):
                self._read(block, now)
                told = True
            elif self._awaited:
                self._mark(now)
        return told

    def finish(self, now: int) -> None:
        """Read an event whose blank line is missing, if it is all there otherwise."""
        for block in self._events.finish():
            if is_whole(read_event(block)[1]):
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


class EncodedEventStream(EventStream):
    """A body of server-sent events in a content coding."""

    def __init__(self, codings: str) -> None:
        super().__init__()
        self._decode: Decoder | None = None
        self._opaque = False
        try:
            self._decode = decoder(codings)
        except UndecodableError:
            self._give_up()

    def feed(self, data: bytes, now: int) -> bool:
        """Undo the coding, as far as ``data`` allows, and fold the events."""
        try:
            for piece in () if self._opaque else self._decoded(data):
                super().feed(piece, now)
        except UndecodableError:
            self._give_up()
        return True

    def _decoded(self, data: bytes) -> Iterable[bytes]:
        return (data,) if self._decode is None else self._decode(data)

    def finish(self, now: int) -> None:
        """As for any stream, but what could not be read cannot be called incomplete."""
        super().finish(now)
        self.complete = self.complete or self._opaque

    def _give_up(self) -> None:
        shield.count("undecodable_body")
        self._opaque = True


class WholeBody:
    """A body that is one JSON value, or none: kept up to `BODY_LIMIT`, read once."""

    def __init__(self, codings: str, *, failed: bool) -> None:
        self.response = NO_RESPONSE
        self.error: ErrorBody | None = None
        self.complete = False
        self.began = False
        self._codings = codings
        self._failed = failed
        self._chunks: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes, now: int) -> bool:  # noqa: ARG002  # a body without events has no clocks
        """Keep ``data``, up to `BODY_LIMIT` in all."""
        self._size += len(data)
        if self._size <= BODY_LIMIT:
            self._chunks.append(data)
        else:
            self._chunks.clear()
        return False

    def finish(self, now: int) -> None:  # noqa: ARG002
        """Read the body; it is complete if it is a JSON object, however the reading of it ended."""
        if self._size > BODY_LIMIT:
            shield.count("overlong_body")
            return
        content = self._content()
        if not content.rstrip(_PADDING).endswith(b"}"):  # a part of a body, a page, or nothing
            return
        response = None if self._failed else read_body(content)
        if self._failed or (response and response.type == "error"):  # some gateways say so with status 200
            self.error = read_error(content)
        self.complete = self.error is not None or response is not None
        self.response = response or self.response

    def _content(self) -> bytes:
        """The body without its coding, as far as it can be undone."""
        raw, self._chunks = b"".join(self._chunks), []
        pieces, size = list[bytes](), 0
        try:
            decode = decoder(self._codings)
            for piece in [raw] if decode is None else decode(raw):
                size += len(piece)
                if size > BODY_LIMIT:
                    shield.count("overlong_body")
                    return b""
                pieces.append(piece)
        except UndecodableError:  # perhaps only what follows the body is: the pieces before it have been kept
            shield.count("undecodable_body")
        return b"".join(pieces)
