"""A Messages endpoint on loopback, which says what it is told to say and remembers what it was asked.

It speaks enough HTTP/1.1 for real clients, and breaks it where a `Reply` says so. Each step of a reply is one write to
the socket, never joined with another. It knows nothing of telemetry.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from email.utils import formatdate
from http.client import responses
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

from msgtap.testing import replies as make
from msgtap.testing.replies import Cut, Hang, Pause, Reply, Reset, Step

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request, as it came over the wire.

    Args:
        method: As sent.
        target: Path and query, as sent.
        version: `HTTP/1.1` or `HTTP/1.0`.
        headers: In the order and the case in which they came, decoded as Latin-1.
        body: Without its framing; a content coding is left on.
        time: When it had been read, in seconds since the epoch.
    """

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    time: float

    def header(self, name: str) -> str | None:
        """The first value of that header, whatever its case; None if it was not sent."""
        return _find(self.headers, name)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; a ValueError or a TypeError if it is none."""
        document = json.loads(self.body)
        if not isinstance(document, dict):
            raise TypeError("the body is JSON, but no object")
        return cast("dict[str, Any]", document)


Respond: TypeAlias = Callable[[Received], Reply]


def answering(*, pace: float = 0.0, strict: bool = False) -> Respond:
    """A well-behaved endpoint: Anthropic's, and OpenRouter's for paths that start with `/api/`.

    It streams if asked to, thinks if asked to, and answers as the requested model; Anthropic's with a date added.

    Args:
        pace: Seconds before each event of a stream.
        strict: Refuse `trace`, `session_id` and `user` with status 400, as Anthropic's API does.
    """

    def respond(received: Received) -> Reply:
        path = received.target.partition("?")[0]
        openrouter = path.startswith("/api/")
        if not path.endswith(("/messages", "/messages/count_tokens")):
            return make.error(404)
        try:
            request = received.json()
        except (TypeError, ValueError):
            return make.error(400, text="The request body is not valid JSON")
        for name in ("trace", "session_id", "user"):
            if strict and not openrouter and name in request:
                return make.error(400, text=f"{name}: Extra inputs are not permitted")
        if path.endswith("/count_tokens"):
            return make.json_reply(200, {"input_tokens": len(received.body) // 4})
        return _openrouter(request, pace) if openrouter else _anthropic(request, pace)

    return respond


def _thoughts(request: dict[str, Any]) -> tuple[str | None, dict[str, object]]:
    match request:
        case {"thinking": {"type": "enabled" | "adaptive"}}:
            return "A broken window, nobody hurt: glass only.", {"output_tokens_details": {"thinking_tokens": 96}}
        case _:
            return None, {}


def _anthropic(request: dict[str, Any], pace: float) -> Reply:
    model, (thinking, details) = str(request.get("model")), _thoughts(request)
    answer = make.Answer(
        id=f"msg_{uuid.uuid4().hex[:24]}",
        request_id=f"req_{uuid.uuid4().hex[:24]}",
        model=model if re.search(r"-\d{8}$", model) else f"{model}-20260901",
        thinking=thinking,
        usage={**make.USAGE, **details},
    )
    return make.stream(answer, pace=pace) if request.get("stream") is True else make.message(answer)


def _openrouter(request: dict[str, Any], pace: float) -> Reply:
    thinking, details = _thoughts(request)
    answer = make.OpenRouterAnswer(
        id=f"gen-{int(time.time())}-{uuid.uuid4().hex[:20]}",
        model=str(request.get("model")),
        thinking=thinking,
        usage={**make.OPENROUTER_USAGE, **details},
    )
    streamed = request.get("stream") is True
    return make.openrouter_stream(answer, pace=pace) if streamed else make.openrouter_message(answer)


def _find(headers: Sequence[tuple[str, str]], name: str) -> str | None:
    return next((value for key, value in headers if key.lower() == name.lower()), None)


def _line(reader: BinaryIO) -> str:
    line = reader.readline()
    if not line.endswith(b"\n"):
        raise ConnectionAbortedError("the client went away")
    return line.decode("latin-1").rstrip("\r\n")


def _exactly(reader: BinaryIO, size: int) -> bytes:
    data = reader.read(size)
    if len(data) < size:
        raise ConnectionAbortedError("the client went away")
    return data


def _headers(reader: BinaryIO) -> Iterator[tuple[str, str]]:
    while line := _line(reader):
        name, _, value = line.partition(":")
        yield name, value.strip()


def _chunks(reader: BinaryIO) -> Iterator[bytes]:
    while size := int(_line(reader).partition(";")[0], 16):
        yield _exactly(reader, size)
        _line(reader)
    list(_headers(reader))  # the trailers


def _read(connection: socket.socket, reader: BinaryIO) -> Received:
    method, target, version = _line(reader).split(" ")
    headers = tuple(_headers(reader))
    if (_find(headers, "expect") or "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if (_find(headers, "transfer-encoding") or "").lower() == "chunked":
        body = b"".join(_chunks(reader))
    else:
        body = _exactly(reader, int(_find(headers, "content-length") or 0))
    return Received(method=method, target=target, version=version, headers=headers, body=body, time=time.time())


def _stays_open(received: Received, reply: Reply) -> bool:
    wanted = (received.header("connection") or "").lower() != "close"
    return wanted and received.version == "HTTP/1.1" and reply.framing != "close"


def _head(reply: Reply, *, stays_open: bool) -> bytes:
    headers = [("date", formatdate(usegmt=True)), *reply.headers]
    if reply.framing == "length" and _find(headers, "content-length") is None:
        headers.append(("content-length", str(sum(len(step) for step in reply.body if isinstance(step, bytes)))))
    if reply.framing == "chunked":
        headers.append(("transfer-encoding", "chunked"))
    if not stays_open:
        headers.append(("connection", "close"))
    status = f"HTTP/1.1 {reply.status} {responses.get(reply.status, '')}"
    return "\r\n".join([status, *(f"{name}: {value}" for name, value in headers), "", ""]).encode("latin-1")


def _steps(reply: Reply, *, stays_open: bool) -> Iterator[Step]:
    yield from reply.before
    yield _head(reply, stays_open=stays_open)
    chunked = reply.framing == "chunked"
    for step in reply.body:
        if isinstance(step, bytes) and chunked and step:  # an empty chunk would end the body
            yield b"%x\r\n%b\r\n" % (len(step), step)
        elif step:
            yield step
    if chunked:
        yield b"0\r\n\r\n"


class Endpoint:
    """A Messages endpoint on a free port of 127.0.0.1, while the context lasts.

    Leaving the context closes every connection and ends every thread. That a client goes away is no error; an error in
    `respond`, or a request that is no HTTP, ends the connection and goes to `threading.excepthook`: pytest reports it.

    Args:
        replies: Given in order, whichever connection asks; the last one again and again.
        respond: Makes a reply for each request, instead; called in the connection's thread. Default: `answering()`.

    Attributes:
        received: Every request, once it has been read and before it is answered.
    """

    def __init__(self, replies: Sequence[Reply] = (), *, respond: Respond | None = None) -> None:
        if replies and respond:
            raise ValueError("give replies or respond, not both")
        self.received: list[Received] = []
        self._respond = respond or (self._next if replies else answering())
        self._replies = list(replies)
        self._turn = threading.Lock()
        self._connections: list[tuple[socket.socket, threading.Thread]] = []

    @property
    def port(self) -> int:
        """The port; within the context only."""
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`; within the context only."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._acceptor = threading.Thread(target=self._accept, name="msgtap-endpoint", daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, *_reason: object) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):  # closing a listener wakes no accept(): connecting to it does
            socket.create_connection(("127.0.0.1", self.port)).close()
        self._acceptor.join()
        self._listener.close()
        for connection, _ in self._connections:
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)
        for _, thread in self._connections:
            thread.join()

    def _next(self, _: Received) -> Reply:
        with self._turn:
            return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._stopping.is_set():
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=(connection,), name="msgtap-connection", daemon=True)
            self._connections = [open_one for open_one in self._connections if open_one[1].is_alive()]
            self._connections.append((connection, thread))
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # A ConnectionError means that the client went away, or that we did.
        with contextlib.suppress(ConnectionError), connection, connection.makefile("rb") as reader:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while self._exchange(connection, reader):
                pass

    def _exchange(self, connection: socket.socket, reader: BinaryIO) -> bool:
        """Read one request and answer it; whether the connection can take another."""
        received = _read(connection, reader)
        self.received.append(received)
        reply = self._respond(received)
        if received.version == "HTTP/1.0" and reply.framing == "chunked":
            reply = replace(reply, framing="close")
        stays_open = _stays_open(received, reply)
        return all(self._take(step, connection) for step in _steps(reply, stays_open=stays_open)) and stays_open

    def _take(self, step: Step, connection: socket.socket) -> bool:
        """Take one step; whether there may be a next."""
        match step:
            case bytes():
                connection.sendall(step)
                return True
            case Pause(seconds):
                return not self._stopping.wait(seconds)
            case Cut():
                return False
            case Reset():
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            case Hang():
                while connection.recv(65536):
                    pass
                return False
