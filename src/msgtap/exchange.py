"""One request and its reply, being followed: a state machine that does no I/O and reads no clock.

What goes in: the head of the response, the chunks of its body as they pass, and whatever ended it, each with its time
in nanoseconds of a monotonic clock. What comes out, once: the `CallRecord`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from msgtap.record import NO_RESPONSE, CallRecord, CallStart, Ending, ErrorBody, MessageResponse, Timing
from msgtap.wire.body import Body, EventStream, body
from msgtap.wire.headers import read_response_headers

_STREAM_TRUNCATED = "stream_truncated"
_OTHER = "_OTHER"  # OpenTelemetry's word for an error that nothing names


class Exchange:
    """What is known of one call so far."""

    __slots__ = ("_body", "_headers", "_headers_at", "_last_chunk", "_stall", "_start", "_started", "_status")

    def __init__(self, start: CallStart, now: int) -> None:
        self._start = start
        self._started = now
        self._status: int | None = None
        self._headers: Mapping[str, str] = {}
        self._headers_at: int | None = None
        self._body: Body | None = None
        self._last_chunk: int | None = None
        self._stall = 0

    @property
    def response(self) -> MessageResponse:
        """The facts of the answer so far, `NO_RESPONSE` at first; another object whenever they have changed."""
        return self._body.response if self._body else NO_RESPONSE

    def receive_headers(self, status: int, headers: Mapping[str, str], now: int) -> None:
        """The head of the response has come; ``headers`` as selected by `msgtap.wire.headers`."""
        self._status, self._headers, self._headers_at = status, headers, now
        self._body = body(status, headers, asked_to_stream=self._start.request.stream)

    def receive_data(self, data: bytes, now: int) -> bool:
        """A chunk of the body has come, as it was on the wire. True where it may have told something."""
        last = self._last_chunk
        if last is not None and now - last > self._stall:
            self._stall = now - last
        self._last_chunk = now
        return self._body is not None and self._body.feed(data, now)

    @property
    def complete(self) -> bool:
        """Whether the answer has said all that it has to say, whatever else may come."""
        return self._body is not None and self._body.complete

    def close(self, ending: Ending, now: int, failure: str | None = None) -> CallRecord:
        """The record of the call, which ended at ``now`` as ``ending`` says; ``failure`` is an exception's name."""
        if self._body:
            self._body.finish(now if self._last_chunk is None else self._last_chunk)
        ending = self._verdict(ending)
        error = self._body.error if self._body else None
        return CallRecord(
            **msgspec.structs.asdict(self._start),
            ending=ending,
            timing=self._timing(self._ended(ending, now)),
            status=self._status,
            headers=read_response_headers(self._headers),
            response=self.response,
            error=error,
            error_type=self._error_type(ending, error, failure),
            output_expected=self._body is not None and self._body.began,
        )

    def _verdict(self, ending: Ending) -> Ending:
        """What is complete stays so, whatever became of the connection; a stream without its end is cut short."""
        if self._body is None:
            return ending
        if self._body.complete:
            return Ending.COMPLETE
        if ending is Ending.COMPLETE and isinstance(self._body, EventStream):
            return Ending.TRUNCATED
        return ending

    def _error_type(self, ending: Ending, error: ErrorBody | None, failure: str | None) -> str | None:
        """The envelope's type, else the status, else the exception; `None` for a success or a program that left."""
        if self._status is not None and self._status >= 400:  # noqa: PLR2004
            return (error and error.type) or str(self._status)
        if error is not None:
            return error.type or _OTHER
        if ending is Ending.TRUNCATED:
            return _STREAM_TRUNCATED
        return (failure or _OTHER) if ending is Ending.FAILED else None

    def _ended(self, ending: Ending, now: int) -> int:
        """A program that stops reading, or is collected, ends the call when it last heard of it, not later."""
        if ending in (Ending.FAILED, Ending.CANCELLED, Ending.TRUNCATED):
            return now
        heard = (self._last_chunk, self._headers_at, now)
        return next(at for at in heard if at is not None)

    def _timing(self, ended: int) -> Timing:
        stream = self._body if isinstance(self._body, EventStream) else None
        return Timing(
            started_at=self._start.started_at,
            ended_at=self._start.started_at + ended - self._started,
            duration=(ended - self._started) / 1e9,
            headers=self._seconds(self._headers_at),
            first_event=self._seconds(stream.first_event) if stream else None,
            first_thinking=self._seconds(stream.first_thinking) if stream else None,
            first_answer=self._seconds(stream.first_answer) if stream else None,
            last_chunk=self._seconds(self._last_chunk),
            longest_stall=self._stall / 1e9 if stream and self._last_chunk is not None else None,
        )

    def _seconds(self, at: int | None) -> float | None:
        return None if at is None else (at - self._started) / 1e9
