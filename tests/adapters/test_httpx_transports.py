"""Whatever carries the requests of httpx and httpx2: mocks, applications, gateways, retries, aiohttp, HTTP/2."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anthropic
import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

from msgtap.testing import replies
from msgtap.testing.endpoint import answering

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.adapters.conftest import HttpxRow, Program, Transparency, Web

OK: dict[str, object] = {"ending": "complete", "status": 200, "error_type": None}
EVENTS = replies.events()
MESSAGE = replies.message().body[0]
SSE = {"content-type": "text/event-stream"}


async def _post(web: Web) -> object:
    response = await web.post()
    return web.facts(response), response.json()


async def _read(web: Web) -> object:
    async with web.streaming() as response:
        before = web.facts(response)
        chunks = [chunk async for chunk in web.each(response, "iter_bytes")]
        return before, chunks, web.facts(response)


async def _join(web: Web) -> object:
    async with web.streaming() as response:
        return response.http_version, b"".join([chunk async for chunk in web.each(response, "iter_raw")])


async def _close(web: Web) -> object:
    async with web.streaming() as response:
        pass
    return web.facts(response)


# ------------------------------------------------------------------------------------------------ transports


def _stream(
    row: HttpxRow, pieces: Any = EVENTS, *, end: Exception | None = None, close: Exception | None = None
) -> Any:
    """A body of the program's own, which may fail at its end and when it is closed."""

    def ending(error: Exception | None) -> None:
        if error is not None:
            raise error

    class Sync(row.module.SyncByteStream):  # type: ignore[misc,name-defined]
        extra = "kept"

        def __iter__(self) -> Iterator[bytes]:
            yield from pieces
            ending(end)

        def close(self) -> None:
            ending(close)

    class Async(row.module.AsyncByteStream):  # type: ignore[misc,name-defined]
        extra = "kept"

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece
            ending(end)

        async def aclose(self) -> None:
            ending(close)

    return Async() if row.is_async else Sync()


def _transport(row: HttpxRow, respond: Callable[[Any], Any]) -> Any:
    """A transport of the program's own."""

    class Sync(row.module.BaseTransport):  # type: ignore[misc,name-defined]
        def handle_request(self, request: Any) -> Any:
            return respond(request)

    class Async(row.module.AsyncBaseTransport):  # type: ignore[misc,name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            return respond(request)

    return Async() if row.is_async else Sync()


def _raise(error: BaseException) -> Any:
    raise error


TRANSPORTS: dict[str, tuple[Callable[[HttpxRow], Any], Program, dict[str, object]]] = {
    "mock, bytes": (
        lambda row: row.module.MockTransport(lambda _: row.module.Response(200, content=MESSAGE)),
        _post,
        OK,
    ),
    "mock, bytes of a stream": (
        lambda row: row.module.MockTransport(lambda _: row.module.Response(200, headers=SSE, content=b"".join(EVENTS))),
        _read,
        OK,
    ),
    "mock, an error": (
        lambda row: row.module.MockTransport(
            lambda _: row.module.Response(529, json={"error": {"type": "overloaded_error"}})
        ),
        _post,
        {"ending": "complete", "status": 529, "error_type": "overloaded_error"},
    ),
    "mock, a challenge": (
        lambda row: row.module.MockTransport(lambda _: row.module.Response(401, json={"error": {"type": "x_error"}})),
        _post,
        {"ending": "complete", "status": 401, "error_type": "x_error"},
    ),
    "mock, raises": (
        lambda row: row.module.MockTransport(lambda request: _raise(row.module.ConnectError("no", request=request))),
        _post,
        {"ending": "failed", "status": None, "error_type": "{client}.ConnectError"},
    ),
    "its own": (
        lambda row: _transport(row, lambda _: row.module.Response(200, headers=SSE, stream=_stream(row))),
        _read,
        OK,
    ),
    "its own, closed": (
        lambda row: _transport(row, lambda _: row.module.Response(200, headers=SSE, stream=_stream(row))),
        _close,
        {"ending": "closed", "status": 200, "error_type": None},
    ),
    "its own, failing": (
        lambda row: _transport(
            row, lambda _: row.module.Response(200, headers=SSE, stream=_stream(row, EVENTS[:4], end=OSError("cable")))
        ),
        _read,
        {"ending": "failed", "status": 200, "error_type": "OSError"},
    ),
    "its own, failing when closed": (
        lambda row: _transport(
            row, lambda _: row.module.Response(200, headers=SSE, stream=_stream(row, close=OSError("close")))
        ),
        _close,
        {"ending": "closed", "status": 200, "error_type": None},
    ),
    "its own, raising what is no error of the client": (
        lambda row: _transport(row, lambda _: _raise(LookupError("lost"))),
        _post,
        {"ending": "failed", "status": None, "error_type": "LookupError"},
    ),
    "its own, answering nonsense": (
        lambda row: _transport(row, lambda _: "nonsense"),
        _post,
        {"ending": "failed", "status": None, "error_type": "AttributeError"},
    ),
}


@pytest.mark.parametrize("name", TRANSPORTS)
def test_transports(transparent: Transparency, row: HttpxRow, name: str) -> None:
    """Whatever the program has put in the place of the network is seen as the network would be."""
    make, program, expected = TRANSPORTS[name]
    transparent.options = {"transport": make(row)}
    transparent(program, answering(), [_named(row, expected)], sends=False)


def _named(row: HttpxRow, facts: dict[str, object]) -> dict[str, object]:
    return {name: value.format(client=row.client) if isinstance(value, str) else value for name, value in facts.items()}


def test_a_body_of_the_programs_own(transparent: Transparency, row: HttpxRow) -> None:
    """What a program asks of the body that it has made itself, it gets."""
    transparent.options = {"transport": _transport(row, lambda _: row.module.Response(200, stream=body))}
    body = _stream(row)

    async def program(web: Web) -> object:
        async with web.streaming() as response:
            await web.call(response, "read")
            inner = response.stream._stream
            response.stream.noted = "noted"
            return inner is body, inner.extra, response.stream.noted, hasattr(response.stream, "absent")

    transparent(program, answering(), [{"status": 200}], sends=False)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_the_programs(transparent: Transparency, row: HttpxRow, stop: type[BaseException]) -> None:
    """An interrupt while the request is sent passes, and cancels the call."""
    transparent.options = {"transport": _transport(row, lambda _: _raise(stop("now")))}

    async def program(web: Web) -> object:
        try:
            return await web.post()
        except BaseException as error:  # noqa: BLE001
            return type(error), str(error), error.__cause__, error.__context__

    transparent(program, answering(), [{"ending": "cancelled", "status": None, "error_type": None}], sends=False)


def test_a_retrying_transport(transparent: Transparency, row: HttpxRow) -> None:
    """Attempts that a transport makes by itself are one call: nobody else sees them."""
    module = row.module

    class Sync(module.HTTPTransport):  # type: ignore[misc,name-defined]
        def handle_request(self, request: Any) -> Any:
            while (response := super().handle_request(request)).status_code == 529:
                response.read()
            return response

    class Async(module.AsyncHTTPTransport):  # type: ignore[misc,name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            while (response := await super().handle_async_request(request)).status_code == 529:
                await response.aread()
            return response

    kind = Async if row.is_async else Sync
    transparent.options = {"make_transport": kind}
    transparent(_read, [replies.overloaded(), replies.overloaded(), replies.stream()], [OK])


def test_a_mounted_transport(transparent: Transparency, row: HttpxRow) -> None:
    """A transport that is mounted for some hosts is seen as any other."""
    mock = row.module.MockTransport(lambda _: row.module.Response(200, content=MESSAGE))
    transparent.options = {"mounts": {"all://mounted.test": mock}}

    async def program(web: Web) -> object:
        mounted = await web.call(web.client, "post", "http://mounted.test/v1/messages", json={})
        return web.facts(mounted), web.facts(await web.post())

    transparent(
        program,
        [replies.message()],
        [{**OK, "server_address": "mounted.test", "server_port": 80}, {**OK, "server_address": "127.0.0.1"}],
    )


@pytest.mark.parametrize("same", [True, False], ids=["by the same client", "by another client"])
def test_a_gateway_in_the_process(transparent: Transparency, row: HttpxRow, same: bool) -> None:
    """A transport that asks another Messages endpoint is two calls: the one to it, and its own."""
    module = row.module
    upstream: list[Any] = []

    class Sync(module.BaseTransport):  # type: ignore[misc,name-defined]
        def handle_request(self, request: Any) -> Any:
            answer = upstream[0].client.post(upstream[0].url, json={"model": "upstream"})
            return module.Response(answer.status_code, headers=answer.headers, stream=_stream(row, [answer.content]))

    class Async(module.AsyncBaseTransport):  # type: ignore[misc,name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            answer = await upstream[0].client.post(upstream[0].url, json={"model": "upstream"})
            return module.Response(answer.status_code, headers=answer.headers, stream=_stream(row, [answer.content]))

    gateway = Async() if row.is_async else Sync()
    transparent.options = {"mounts": {"all://gateway.test": gateway}} if same else {}

    async def program(web: Web) -> object:
        upstream[:] = [web]
        if same:
            return web.facts(await web.call(web.client, "post", "http://gateway.test/v1/messages", json={"model": "m"}))
        outer = (module.AsyncClient if row.is_async else module.Client)(transport=gateway)
        response = await web.call(outer, "post", "http://gateway.test/v1/messages", json={"model": "m"})
        await web.call(outer, "close")
        return web.facts(response)

    inner, outer = {"request.model": "upstream"}, {"request.model": "m", "server_address": "gateway.test"}
    transparent(program, [replies.message()], [{**OK, **inner}, {**OK, **outer}])


# ------------------------------------------------------------------------------------------------ applications


async def _application(scope: Any, receive: Any, send: Any) -> None:
    """Streams the events of a message, as the model it was asked for; or sends it whole."""
    if scope["type"] != "http":
        return
    body = b""
    while (event := await receive())["type"] == "http.request":
        body += event["body"]
        if not event["more_body"]:
            break
    asked = json.loads(body)
    answer = replies.Answer(model=asked["model"])
    if answer.model == "endless":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": EVENTS[0], "more_body": True})
        await receive()
        return
    pieces = replies.events(answer) if asked.get("stream") else replies.message(answer).body
    kind = b"text/event-stream" if asked.get("stream") else b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.rows(concurrency=["asyncio", "trio"])
@pytest.mark.parametrize("program", [_post, _read], ids=["whole", "streamed"])
def test_an_asgi_application(transparent: Transparency, row: HttpxRow, program: Program) -> None:
    """An application in the same process is an endpoint as any other."""
    transparent.options = {"transport": row.module.ASGITransport(_application)}
    transparent(program, answering(), [{**OK, "response.model": "claude-sonnet-4-5"}], sends=False)


@pytest.mark.rows(concurrency=["sync"])
@pytest.mark.parametrize("program", [_post, _read], ids=["whole", "streamed"])
def test_a_wsgi_application(transparent: Transparency, row: HttpxRow, program: Program) -> None:
    """So is one of the older kind."""

    def application(environ: Any, start: Any) -> Any:
        asked = json.loads(environ["wsgi.input"].read())
        start("200 OK", [("content-type", "text/event-stream" if asked.get("stream") else "application/json")])
        return EVENTS if asked.get("stream") else [MESSAGE]

    transparent.options = {"transport": row.module.WSGITransport(application)}
    transparent(program, answering(), [OK], sends=False)


# ------------------------------------------------------------------------------------------------ aiohttp


@pytest.mark.rows(client=["httpx2"], concurrency=["asyncio"])
@pytest.mark.parametrize("program", [_post, _join, _close], ids=["whole", "streamed", "closed"])
def test_the_sdks_aiohttp_client(transparent: Transparency, program: Program) -> None:
    """The Anthropic SDK's client over aiohttp makes one record a call."""
    transparent.options = {"kind": partial(anthropic.DefaultAioHttpClient)}
    answers = [replies.message() if program is _post else replies.stream()]
    transparent(program, answers, [{**OK, "ending": "closed" if program is _close else "complete"}])


@pytest.mark.rows(client=["httpx2"], concurrency=["asyncio"])
def test_the_sdk_over_aiohttp(transparent: Transparency) -> None:
    """And so does the SDK that uses it, retries and all."""

    async def program(web: Web) -> object:
        client = anthropic.AsyncAnthropic(api_key="k", base_url=web.url[: -len("/v1/messages")], http_client=web.client)
        message = await client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "?"}])
        async with client.messages.stream(
            model="m", max_tokens=1, messages=[{"role": "user", "content": "?"}]
        ) as stream:
            return message.to_json(), (await stream.get_final_message()).to_json()

    transparent.options = {"kind": partial(anthropic.DefaultAioHttpClient)}
    transparent(
        program,
        [replies.rate_limited(0.001), replies.message(), replies.stream()],
        [{"status": 429, "attempt": 0}, {**OK, "attempt": 1}, {**OK, "request.stream": True}],
        faults=False,
    )


# ------------------------------------------------------------------------------------------------ HTTP/2


@pytest.fixture(scope="module")
def http2() -> Iterator[str]:
    """Where the application is served over HTTP/2, by prior knowledge."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = Config()
        config.bind = [f"fd://{listener.fileno()}"]
        config.errorlog = config.accesslog = None
        loop, stopping = asyncio.new_event_loop(), asyncio.Event()
        application, stop = cast("Any", (_application, stopping.wait))
        served = serve(application, config, shutdown_trigger=stop)
        thread = threading.Thread(target=loop.run_until_complete, args=(served,))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/messages"
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()
        with contextlib.suppress(OSError):
            listener.detach()


async def _one_chunk(web: Web) -> object:
    async with web.streaming(json={"model": "endless", "stream": True}) as response:
        async for _ in web.each(response, "iter_raw"):
            break
    return response.http_version, response.is_closed


@pytest.mark.parametrize(
    ("program", "ending"),
    [(_post, "complete"), (_join, "complete"), (_one_chunk, "closed")],
    ids=["whole", "streamed", "closed"],
)
def test_http2(transparent: Transparency, http2: str, program: Program, ending: str) -> None:
    """A call over HTTP/2 is seen as one over HTTP/1."""
    transparent.url = http2
    transparent.options = {"http1": False, "http2": True}
    transparent(program, answering(), [{**OK, "ending": ending}])


def test_http2_multiplexed(transparent: Transparency, http2: str) -> None:
    """Twenty streams over one connection are not mixed up."""
    transparent.url = http2
    transparent.options = {"http1": False, "http2": True}
    models = [f"model-{number}" for number in range(20)]

    async def program(web: Web) -> object:
        async def work(model: str) -> object:
            async with web.streaming(json={"model": model, "stream": True}) as response:
                return b"".join([chunk async for chunk in web.each(response, "iter_raw")])

        return await web.tasks.together([partial(work, model) for model in models])

    expected = [{**OK, "request.model": model, "response.model": model} for model in models]
    transparent(program, answering(), expected, unordered=True, faults=False)
