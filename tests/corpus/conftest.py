"""Recorded traffic, read from beside the project's root, and an endpoint on loopback that replays it."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import pytest

from msgtap.testing.endpoint import Endpoint, Received
from msgtap.testing.replies import Reply, encoded

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"

ROW, WAY = "x-session-id", "x-way"
"""Request headers that say which row to answer with, and in which pieces. The first is a fact of the call as well."""

_FRAMING = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_CONNECTION = frozenset({"accept-encoding", "connection", "content-length", "cookie", "host", "transfer-encoding"})

Headers: TypeAlias = tuple[tuple[str, str], ...]
Way: TypeAlias = Callable[["Row"], tuple[bytes, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One recorded request and its reply.

    Args:
        id: Of the corpus.
        kind: What it was sent to; `messages` for a Messages endpoint.
        provenance: `recorded` for real traffic.
        url: As recorded.
        request_headers: As recorded, without those of the connection.
        request: The body.
        status: Of the reply.
        headers: Of the reply, without those of its framing and coding.
        body: Of the reply, decoded.
        streamed: Whether the reply is an event stream.
        chunked: Whether the reply came in chunks.
        coding: The content coding that the reply had on the wire.
        expected: The facts that an independent reader found.
    """

    id: str
    kind: str
    provenance: str
    url: str
    request_headers: Headers
    request: bytes
    status: int
    headers: Headers
    body: bytes
    streamed: bool
    chunked: bool
    coding: str | None
    expected: dict[str, Any]

    @property
    def target(self) -> str:
        """Path and query, as recorded."""
        url = urlsplit(self.url)
        return f"{url.path}?{url.query}" if url.query else url.path

    @property
    def betas(self) -> tuple[str, ...]:
        """The beta features that the request names; of one at most, in this corpus."""
        return tuple(value for name, value in self.request_headers if name.lower() == "anthropic-beta")

    def header(self, name: str) -> str | None:
        """That header of the reply."""
        return next((value for key, value in self.headers if key.lower() == name), None)


def _row(wire: dict[str, Any], expected: dict[str, Any]) -> Row:
    request, response = wire["request"], wire["response"]
    framing = {name.lower(): value for name, value in response["headers"].items()}
    return Row(
        id=wire["id"],
        kind=wire["kind"],
        provenance=wire["provenance"],
        url=request["url"],
        request_headers=tuple(pair for pair in request["headers"].items() if pair[0].lower() not in _CONNECTION),
        request=(request["body"] or "").encode(),
        status=response["status"],
        headers=tuple(pair for pair in response["headers"].items() if pair[0].lower() not in _FRAMING),
        body=base64.b64decode(response["body_b64"]),
        streamed=response["is_stream"],
        chunked=response["is_stream"] or framing.get("transfer-encoding") == "chunked",
        coding=response["wire_encoding"],
        expected=expected,
    )


def _lines(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(CORPUS / name) as lines:
        yield from map(json.loads, lines)


@pytest.fixture(scope="session")
def corpus() -> list[Row]:
    """Every row."""
    if not CORPUS.exists():
        pytest.skip("the recorded traffic is not beside the project's root (../shared/corpus)")
    expected = {facts["id"]: facts for facts in _lines("expected.jsonl.gz")}
    return [_row(wire, expected[wire["id"]]) for wire in _lines("messages.jsonl.gz")]


@pytest.fixture(scope="session")
def recorded(corpus: list[Row]) -> list[Row]:
    """Real traffic of a Messages endpoint."""
    return [row for row in corpus if (row.kind, row.provenance) == ("messages", "recorded")]


@pytest.fixture(scope="session")
def handmade(corpus: list[Row]) -> list[Row]:
    """Traffic of a Messages endpoint that somebody wrote by hand; it is stranger than the real one."""
    return [row for row in corpus if row.kind == "messages" and row.provenance.startswith("handmade")]


@pytest.fixture(scope="session")
def others(corpus: list[Row]) -> list[Row]:
    """Traffic of other endpoints."""
    return [row for row in corpus if row.kind != "messages"]


def by_events(row: Row) -> tuple[bytes, ...]:
    """A stream an event at a time, as servers write it; any other body in one piece."""
    return tuple(re.findall(rb"(?s).+?(?:\n\n|\Z)", row.body)) if row.streamed else (row.body,)


def by_chance(row: Row) -> tuple[bytes, ...]:
    """Cut anywhere, always at the same places."""
    return pieces_of(row.body, random.Random(row.id))


def with_crlf(row: Row) -> tuple[bytes, ...]:
    """Lines end in CRLF, some of them cut in two."""
    return pieces_of(row.body.replace(b"\n", b"\r\n"), random.Random(row.id))


def pieces_of(body: bytes, chance: random.Random) -> tuple[bytes, ...]:
    """``body`` in some twenty pieces."""
    cuts = sorted({0, len(body), *(chance.randrange(len(body) + 1) for _ in range(20))})
    return tuple(body[start:end] for start, end in itertools.pairwise(cuts))


WAYS: dict[str, Way] = {way.__name__: way for way in (by_events, by_chance, with_crlf)}


def reply(row: Row, way: Way) -> Reply:
    """The recorded reply, for an endpoint to send."""
    plain = Reply(
        status=row.status,
        headers=row.headers,
        body=way(row),
        framing="chunked" if row.chunked else "length",
    )
    return encoded(plain, row.coding) if row.coding else plain


class Replay:
    """An endpoint that answers with the row, and in the way, that a request's headers name.

    Args:
        endpoint: Where to send the requests.
    """

    headers_of_ours = (ROW, WAY)

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.url = endpoint.url

    def headers(self, row: Row, way: str) -> dict[str, str]:
        """The headers to send: the recorded ones, and those that say what to answer."""
        return {**dict(row.request_headers), ROW: row.id, WAY: way}

    def body(self, row: Row, way: str) -> bytes:
        """What the client has to get, once it has undone the content coding."""
        return b"".join(WAYS[way](row))

    def received(self) -> dict[str, Received]:
        """The last request for each row."""
        return {received.header(ROW) or "": received for received in self._endpoint.received}


@pytest.fixture
def replay(corpus: list[Row]) -> Iterator[Replay]:
    """Every row, to be had by sockets on loopback."""
    rows = {row.id: row for row in corpus}

    def respond(received: Received) -> Reply:
        return reply(rows[received.header(ROW) or ""], WAYS[received.header(WAY) or ""])

    with Endpoint(respond=respond) as running:
        yield Replay(running)


class Tally:
    """What the run found, in numbers, for its last lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, what: str, rows: int, agreeing: int) -> None:
        """One line: of so many ``rows``, replayed as ``what`` says, so many agree."""
        self.lines.append(f"{what}: {agreeing} of {rows} rows agree")


TALLY = pytest.StashKey[Tally]()


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    """Where a test puts its numbers."""
    return pytestconfig.stash.setdefault(TALLY, Tally())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the numbers."""
    for line in config.stash.get(TALLY, Tally()).lines:
        terminalreporter.write_line(f"recorded traffic, {line}")
