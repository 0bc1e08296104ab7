"""The stand-in endpoint, asked by real clients over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import anthropic
import brotli  # type: ignore[import-untyped]
import httpx
import pytest
import zstandard

from msgtap.testing import replies
from msgtap.testing.endpoint import Endpoint, answering
from msgtap.testing.replies import HANG, RESET, Answer, OpenRouterAnswer, Pause, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anthropic.types import Message

    from msgtap.testing.endpoint import Received
    from msgtap.testing.replies import Compress, Ending

FULL = Answer(
    thinking="A window, nobody hurt.", text="Glass only: « bris ».", tool=("classify", {"kind": "glass", "n": 1})
)
BODY = {"model": "claude-sonnet-5", "max_tokens": 64, "messages": [{"role": "user", "content": "Classify."}]}


def ask(endpoint: Endpoint, path: str = "/v1/messages", **more: object) -> httpx.Response:
    """One request by httpx, whose default timeout ends a test that hangs."""
    return httpx.post(endpoint.url + path, json={**BODY, **more})


def said(endpoint: Endpoint, *, stream: bool = False) -> Message:
    """The Anthropic SDK's answer."""
    with anthropic.Anthropic(api_key="k", base_url=endpoint.url, max_retries=0) as client:
        if not stream:
            return client.messages.create(model="m", max_tokens=64, messages=[{"role": "user", "content": "Hello"}])
        with client.messages.stream(
            model="m", max_tokens=64, messages=[{"role": "user", "content": "Hello"}]
        ) as streamed:
            return streamed.get_final_message()


def raw(endpoint: Endpoint, request: bytes) -> Iterator[bytes]:
    """What each `recv` gives, until the endpoint closes."""
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=5) as connection:
        connection.sendall(request)
        while piece := connection.recv(65536):
            yield piece


def brotli_compress() -> Compress:
    """Brotli, flushed at each piece."""
    compressor = brotli.Compressor()
    return lambda data, last: compressor.process(data) + (compressor.finish() if last else compressor.flush())


def zstd_compress() -> Compress:
    """Zstandard, flushed at each piece."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return lambda data, last: (
        compressor.compress(data)
        + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH if last else zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    )


def test_sdk_reads_a_message() -> None:
    """The Anthropic SDK finds text, thinking, tool use and all counts in a whole message."""
    with Endpoint([replies.message(FULL)]) as endpoint:
        message = said(endpoint)
    assert ["thinking", "text", "tool_use"] == [block.type for block in message.content]
    assert ("tool_use", FULL.model, FULL.id) == (message.stop_reason, message.model, message.id)
    assert (412, 4900, 1500, 188) == (
        message.usage.input_tokens,
        message.usage.cache_read_input_tokens,
        message.usage.cache_creation_input_tokens,
        message.usage.output_tokens,
    )
    assert message.usage.cache_creation is not None
    assert 500 == message.usage.cache_creation.ephemeral_1h_input_tokens


def test_stream_and_message_agree() -> None:
    """The Anthropic SDK gathers from a stream what it reads from a whole message."""
    with Endpoint([replies.message(FULL), replies.stream(FULL)]) as endpoint:
        whole, gathered = (json.loads(said(endpoint, stream=stream).to_json()) for stream in (False, True))
    assert whole["content"] == gathered["content"]
    assert whole["usage"] == gathered["usage"]
    assert whole["stop_reason"] == gathered["stop_reason"]


def test_openrouter_message() -> None:
    """OpenRouter's message carries provider, cost and generation id."""
    answer = OpenRouterAnswer(metadata={"attempt": 1})
    with Endpoint([replies.openrouter_message(answer)]) as endpoint:
        response = ask(endpoint)
    document = response.json()
    assert ("Amazon Bedrock", 0.005526, False) == (
        document["provider"],
        document["usage"]["cost"],
        document["usage"]["is_byok"],
    )
    assert {"attempt": 1} == document["openrouter_metadata"]
    assert document["id"] == response.headers["X-Generation-Id"]


def test_openrouter_stream() -> None:
    """OpenRouter's stream has comments, a trailer, and its cost in message_delta only."""
    with Endpoint([replies.openrouter_stream()]) as endpoint:
        text = ask(endpoint).text
    assert text.startswith(": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\nevent: message_start\n")
    assert text.endswith("event: data\ndata: [DONE]\n\n")
    costly = [json.loads(line[6:])["type"] for line in text.splitlines() if '"cost"' in line]
    assert ["message_delta"] == costly


@pytest.mark.parametrize("ending", [replies.CUT, RESET])
def test_broken_stream_is_an_error(ending: Ending) -> None:
    """A client gets the events before a cut or a reset, and then an error."""
    arrived: list[bytes] = []
    reply = replies.cut_stream(4, ending=ending, pace=0.01)
    with Endpoint([reply]) as endpoint, httpx.stream("POST", endpoint.url) as response:
        with pytest.raises(httpx.RemoteProtocolError if ending == replies.CUT else httpx.ReadError):
            arrived.extend(response.iter_raw())
        assert b"".join(replies.events()[:4]) == b"".join(arrived)


def test_broken_message_is_short() -> None:
    """A message that is cut has announced its whole length."""
    whole = replies.message()
    with Endpoint([replies.cut(whole, 100)]) as endpoint, pytest.raises(httpx.RemoteProtocolError, match="100 bytes"):
        ask(endpoint)


@pytest.mark.parametrize(
    ("ending", "raised"),
    [(replies.CUT, httpx.RemoteProtocolError), (RESET, httpx.ReadError), (HANG, httpx.ReadTimeout)],
)
def test_no_answer(ending: Ending, raised: type[Exception]) -> None:
    """The endpoint can close, reset or hang instead of an answer."""
    with Endpoint([replies.silent(ending)]) as endpoint, pytest.raises(raised):
        httpx.post(endpoint.url, timeout=0.2)


def test_truncated_stream_ends_in_order() -> None:
    """A truncated stream lacks message_stop, and HTTP sees nothing wrong."""
    with Endpoint([replies.truncated_stream()]) as endpoint:
        text = ask(endpoint).text
    assert "event: message_delta" in text
    assert "message_stop" not in text


def test_error_inside_a_stream() -> None:
    """An error event in a stream of status 200 becomes the SDK's overloaded error."""
    with Endpoint([replies.stream_error_after(3)]) as endpoint, pytest.raises(anthropic.APIStatusError) as caught:
        said(endpoint, stream=True)
    assert 200 == caught.value.status_code
    assert "overloaded_error" == caught.value.type


def test_rate_limit_headers_arrive() -> None:
    """A 429 tells how long to wait, and that nothing is left."""
    with Endpoint([replies.rate_limited(1.5)]) as endpoint, pytest.raises(anthropic.RateLimitError) as caught:
        said(endpoint)
    assert "1.5" == caught.value.response.headers["retry-after"]
    assert "0" == caught.value.response.headers["anthropic-ratelimit-requests-remaining"]


@pytest.mark.parametrize(
    ("reply", "status", "kind"),
    [
        (replies.overloaded(), 529, "overloaded_error"),
        (replies.error(400), 400, "invalid_request_error"),
        (replies.error(418, "tea_error", "short and stout"), 418, "tea_error"),
        (replies.openrouter_error(402, "payment_required"), 402, "billing_error"),
        (replies.openrouter_error(400, "context_length_exceeded"), 400, "invalid_request_error"),
    ],
)
def test_errors(reply: Reply, status: int, kind: str) -> None:
    """An error carries its status and Anthropic's envelope."""
    with Endpoint([reply]) as endpoint:
        response = ask(endpoint)
    assert (status, kind) == (response.status_code, response.json()["error"]["type"])


def test_html_error() -> None:
    """A proxy's error page is no JSON."""
    with Endpoint([replies.html_error(502)]) as endpoint:
        response = ask(endpoint)
    assert (502, "text/html") == (response.status_code, response.headers["content-type"])
    assert "<h1>502 Bad Gateway</h1>" in response.text


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize(
    ("coding", "compress"), [("gzip", None), ("deflate", None), ("br", brotli_compress), ("zstd", zstd_compress)]
)
def test_codings(coding: str, compress: Callable[[], Compress] | None, framing: replies.Framing) -> None:
    """Every content coding, in every framing, decodes to the same events."""
    reply = replies.encoded(replies.stream(FULL), coding, compress() if compress else None)
    with Endpoint([replace(reply, framing=framing)]) as endpoint:
        assert b"".join(replies.events(FULL)) == ask(endpoint).content


def test_compressed_events_arrive_one_by_one() -> None:
    """Each event of a gzip stream can be decoded when it arrives, before the next is sent."""
    reply = replies.encoded(replies.stream(pace=0.02), "gzip")
    decoder = zlib.decompressobj(wbits=31)
    with Endpoint([reply]) as endpoint, httpx.stream("POST", endpoint.url) as response:
        arrived = [decoder.decompress(piece) for piece in response.iter_raw()]
    assert replies.events() == tuple(piece for piece in arrived if piece)


def test_chunks_keep_their_boundaries() -> None:
    """What is written as one step, between pauses, is received as one piece."""
    body = (b"data: {", Pause(0.05), b'"n": 1}', Pause(0.05), b"\n\n")
    with Endpoint([Reply(body=body)]) as endpoint:
        head, *pieces = raw(endpoint, b"POST / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
    assert (
        b'7\r\ndata: {\r\n7\r\n"n": 1}\r\n2\r\n\n\n\r\n0\r\n\r\n' == (head + b"".join(pieces)).partition(b"\r\n\r\n")[2]
    )
    assert b'7\r\n"n": 1}\r\n' in pieces


def test_a_reply_may_come_late() -> None:
    """Steps before the status line delay it, or send an informational response."""
    early = Reply(before=(b"HTTP/1.1 103 Early Hints\r\n\r\n", Pause(0.1)))
    with Endpoint([early]) as endpoint:
        start = time.monotonic()
        assert 200 == ask(endpoint).status_code
    assert time.monotonic() - start >= 0.1


def test_replies_come_in_order_and_the_last_again() -> None:
    """A script is played in order; its last reply is repeated."""
    with Endpoint([replies.overloaded(), replies.rate_limited(0), replies.message()]) as endpoint:
        assert [529, 429, 200, 200] == [ask(endpoint).status_code for _ in range(4)]


def test_sdk_retries_against_a_script() -> None:
    """The SDK's own retry reaches the second reply, and says which attempt it is."""
    with (
        Endpoint([replies.rate_limited(0.01), replies.message()]) as endpoint,
        anthropic.Anthropic(api_key="k", base_url=endpoint.url, max_retries=1) as client,
    ):
        client.messages.create(model="m", max_tokens=64, messages=[{"role": "user", "content": "Hello"}])
    assert ["0", "1"] == [received.header("X-Stainless-Retry-Count") for received in endpoint.received]


def test_requests_are_kept_as_sent() -> None:
    """A request is recorded with its target, and its headers in their order and case."""
    before = time.time()
    with Endpoint() as endpoint:
        headers = b"X-b: 1\r\nx-A: 2\r\nX-b: 3\r\ncontent-LENGTH: 2\r\nConnection: close\r\n"
        b"".join(raw(endpoint, b"POST /v1/messages?beta=true HTTP/1.1\r\n" + headers + b"\r\n{}"))
    (received,) = endpoint.received
    assert ("POST", "/v1/messages?beta=true", b"{}") == (received.method, received.target, received.body)
    assert (("X-b", "1"), ("x-A", "2"), ("X-b", "3")) == received.headers[:3]
    assert ("1", None) == (received.header("x-B"), received.header("absent"))
    assert before <= received.time <= time.time()


def test_chunked_requests_are_decoded() -> None:
    """A request body that is sent in chunks is recorded whole."""
    with Endpoint() as endpoint:
        httpx.post(endpoint.url + "/v1/messages", content=iter([b'{"model":', b' "m"}']))
    assert {"model": "m"} == endpoint.received[0].json()


def test_expect_continue_is_honoured() -> None:
    """A client that waits for 100 Continue before its body gets it."""
    with Endpoint() as endpoint, socket.create_connection(("127.0.0.1", endpoint.port), timeout=5) as connection:
        connection.sendall(b"POST /v1/messages HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 13\r\n\r\n")
        assert b"HTTP/1.1 100 Continue\r\n\r\n" == connection.recv(65536)
        connection.sendall(b'{"model":"m"}')
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


def test_connections_are_kept_alive() -> None:
    """One connection carries several calls, until either side asks to close it."""
    with Endpoint() as endpoint:
        client = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=5)
        used = set()
        for headers in ({}, {}, {"Connection": "close"}):
            client.request("POST", "/v1/messages", json.dumps(BODY), headers)
            used.add(client.sock)
            response = client.getresponse()
            response.read()
        client.close()
    assert 1 == len(used)
    assert "close" == response.getheader("connection")


def test_old_clients_get_no_chunks() -> None:
    """A client of HTTP/1.0 gets a stream whose end is the connection's."""
    with Endpoint([replies.stream()]) as endpoint:
        answer = b"".join(raw(endpoint, b"POST / HTTP/1.0\r\n\r\n"))
    assert b"".join(replies.events()) == answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    ("path", "more", "expected"),
    [
        ("/v1/messages", {}, ("claude-sonnet-5-20260901", ["text"])),
        ("/v1/messages", {"model": "claude-opus-4-1-20250805"}, ("claude-opus-4-1-20250805", ["text"])),
        (
            "/v1/messages?beta=true",
            {"thinking": {"type": "adaptive"}},
            ("claude-sonnet-5-20260901", ["thinking", "text"]),
        ),
        ("/api/v1/messages", {"model": "z-ai/glm-5.2", "trace": {}}, ("z-ai/glm-5.2", ["text"])),
    ],
)
def test_default_answers(path: str, more: dict[str, object], expected: tuple[str, list[str]]) -> None:
    """Without a script the endpoint answers as the requested model, and thinks if asked to."""
    with Endpoint() as endpoint:
        document = ask(endpoint, path, **more).json()
    assert expected == (document["model"], [block["type"] for block in document["content"]])
    assert ("provider" in document) == path.startswith("/api/")


@pytest.mark.parametrize(("path", "last"), [("/v1/messages", "message_stop"), ("/api/v1/messages", "[DONE]")])
def test_default_streams(path: str, last: str) -> None:
    """Without a script the endpoint streams if asked to, in the flavour of the path."""
    with Endpoint() as endpoint:
        response = ask(endpoint, path, stream=True)
    assert "text/event-stream; charset=utf-8" == response.headers["content-type"]
    assert last in response.text.splitlines()[-2]


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/v1/models", b"{}", 404),
        ("/v1/messages", b"[]", 400),
        ("/v1/messages", b"{", 400),
        ("/v1/messages", b'{"trace": {}}', 400),
        ("/api/v1/messages", b'{"trace": {}}', 200),
        ("/v1/messages/count_tokens", b"{}", 200),
    ],
)
def test_strict_refusals(path: str, content: bytes, status: int) -> None:
    """A strict endpoint refuses what Anthropic's API refuses, and OpenRouter takes."""
    with Endpoint(respond=answering(strict=True)) as endpoint:
        assert status == httpx.post(endpoint.url + path, content=content).status_code


def test_default_ids_differ() -> None:
    """Without a script no two answers have the same id."""
    with Endpoint() as endpoint:
        assert 3 == len({ask(endpoint).json()["id"] for _ in range(3)})


def test_respond_sees_the_request() -> None:
    """A callable makes the reply from the request."""

    def respond(received: Received) -> Reply:
        return replies.message(Answer(text=str(received.json()["max_tokens"])))

    with Endpoint(respond=respond) as endpoint:
        assert "64" == ask(endpoint).json()["content"][0]["text"]


def test_a_failing_callable_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the callable ends the connection and reaches threading.excepthook."""
    failures: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda failure: failures.append(failure.exc_type))

    def respond(received: Received) -> Reply:
        raise KeyError(received.target)

    with Endpoint(respond=respond) as endpoint, pytest.raises(httpx.RemoteProtocolError):
        ask(endpoint)
    assert [KeyError] == failures


def test_a_script_or_a_callable() -> None:
    """Replies and a callable together are refused."""
    with pytest.raises(ValueError, match="not both"):
        Endpoint([replies.message()], respond=answering())


def test_client_that_goes_away_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    """A client that leaves in the middle of a body, or of its own request, causes no output."""
    with Endpoint([replies.stream(pace=0.005)]) as endpoint:
        for request in (b"POST / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{", b"POST"):
            with socket.create_connection(("127.0.0.1", endpoint.port), timeout=5) as connection:
                connection.sendall(request)
                connection.settimeout(0.02)
                with contextlib.suppress(TimeoutError):
                    connection.recv(10)
        time.sleep(0.05)
    assert ("", "") == capfd.readouterr()


@pytest.mark.parametrize("reply", [replies.stream(pace=30), replies.silent(), replies.cut_stream(ending=HANG), Reply()])
def test_closing_ends_every_thread(reply: Reply) -> None:
    """Leaving the context is quick, and ends pauses, hangs, idle connections and their threads."""
    before = set(threading.enumerate())
    with contextlib.ExitStack() as stack:
        with Endpoint([reply]) as endpoint:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", endpoint.port)))
            connection.sendall(b"POST / HTTP/1.1\r\n\r\n")
            while not endpoint.received:
                time.sleep(0.001)
            start = time.monotonic()
        assert time.monotonic() - start < 1
        assert before == set(threading.enumerate())
