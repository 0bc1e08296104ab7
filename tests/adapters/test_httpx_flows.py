"""What httpx and httpx2 do between a call and its response: redirects, authentication, the program's own hooks."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from msgtap.testing import replies
from msgtap.testing.replies import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator

    from tests.adapters.conftest import HttpxRow, Program, Transparency, Web

ASKED = {"model": "m", "max_tokens": 1, "messages": []}


def _seen(ending: str, status: int | None, error_type: str | None = None, **more: object) -> dict[str, object]:
    """What a record says."""
    return {"ending": ending, "status": status, "error_type": error_type, **more}


def _moved(status: int = 307, location: str = "/v1/messages") -> Reply:
    return Reply(status=status, headers=(("location", location),), body=(b"moved",), framing="length")


async def _post(web: Web) -> object:
    response = await web.post()
    return web.facts(response)


async def _stream(web: Web) -> object:
    async with web.streaming() as response:
        before = web.facts(response)
        chunks = [chunk async for chunk in web.each(response, "iter_raw")]
    return before, chunks, web.facts(response)


async def _close_unread(web: Web) -> object:
    async with web.streaming() as response:
        before = web.facts(response)
    return before, web.facts(response)


async def _post_generator(web: Web) -> object:
    def pieces() -> Iterator[bytes]:
        yield from (b'{"model":', b' "m"}')

    async def async_pieces() -> AsyncIterator[bytes]:
        for piece in pieces():
            yield piece

    return web.facts(await web.post(json=None, content=async_pieces() if web.row.is_async else pieces()))


# ------------------------------------------------------------------------------------------------ redirects

OK = _seen("complete", 200, None)
FOLLOWED: dict[str, tuple[Program, list[Reply], dict[str, object]]] = {
    "307": (_post, [_moved(), replies.message()], {**OK, "request.model": "claude-sonnet-4-5"}),
    "307, streamed": (_stream, [_moved(), replies.stream()], {**OK, "request.stream": True}),
    "308": (_post, [_moved(308), replies.message()], OK),
    "three 307": (_post, [_moved(), _moved(), _moved(), replies.message()], OK),
    "307 to an error": (_post, [_moved(), replies.overloaded()], _seen("complete", 529, "overloaded_error")),
    "307 elsewhere": (_post, [_moved(location="/elsewhere"), replies.message()], _seen("complete", 307)),
    "307 elsewhere and back": (_post, [_moved(location="/elsewhere"), _moved(), replies.message()], OK),
    "303 becomes GET": (_post, [_moved(303), replies.message()], _seen("complete", 303)),
    "302 becomes GET": (_stream, [_moved(302), replies.stream()], _seen("complete", 302)),
    "for ever": (_post, [_moved()], _seen("failed", 307, "{client}.TooManyRedirects")),
    "to nowhere": (_post, [_moved(location="http://a:b/")], _seen("failed", 307, "{client}.RemoteProtocolError")),
    "then refused": (
        _post,
        [_moved(), replies.silent(replies.CUT)],
        _seen("failed", None, "{client}.RemoteProtocolError"),
    ),
    "cut": (_post, [replies.cut(_moved(), 2)], _seen("failed", 307, "{client}.RemoteProtocolError")),
    "of a generator": (_post_generator, [_moved()], _seen("failed", None, "{client}.StreamConsumed")),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_redirects_are_steps(transparent: Transparency, row: HttpxRow, name: str) -> None:
    """A call that is redirected makes one record, of the answer it gets in the end."""
    program, answers, expected = FOLLOWED[name]
    transparent.options = {"follow_redirects": True}
    transparent(program, answers, [_named(row, expected)])
    assert 1 == len(transparent.spans)


@pytest.mark.parametrize(
    ("program", "ending"),
    [(_post, "complete"), (_stream, "complete"), (_close_unread, "closed")],
    ids=["read", "streamed", "unread"],
)
def test_redirects_that_are_not_followed(transparent: Transparency, program: Program, ending: str) -> None:
    """A redirect that the program gets is the answer."""
    transparent(program, [_moved()], [_seen(ending, 307)])


# ------------------------------------------------------------------------------------------------ authentication

DIGEST = 'Digest realm="r", qop="auth", nonce="n", opaque="o", algorithm=SHA-256'


def _challenge(how: str = DIGEST) -> Reply:
    return replies.error(401, headers=(("www-authenticate", how),))


def _token(status: int = 200) -> Reply:
    return replies.json_reply(status, {"token": "t-1"})


class Flow:
    """A flow of the program's own; ``flow`` is its generator, given the client's module and the request."""

    def __init__(self, flow: Callable[[Any, Any], Generator[Any, Any]], *, reads: bool = False) -> None:
        self.flow = flow
        self.reads = reads

    def auth(self, module: Any) -> Any:
        """The flow as an option of a call."""

        class Auth(module.Auth):  # type: ignore[misc]
            requires_response_body = self.reads

            def auth_flow(_, request: Any) -> Any:  # noqa: N805
                return self.flow(module, request)

        return Auth()


def _fetch(module: Any, request: Any) -> Any:
    return module.Request("POST", request.url.join("/token"), json={"grant": "g"})


def _token_first(module: Any, request: Any) -> Generator[Any, Any]:
    answer = yield _fetch(module, request)
    if answer.status_code == 200:
        request.headers["authorization"] = answer.json()["token"]
        yield request


def _token_after(status: int) -> Callable[[Any, Any], Generator[Any, Any]]:
    def flow(module: Any, request: Any) -> Generator[Any, Any]:
        answer = yield request
        if answer.status_code == status:
            answer = yield _fetch(module, request)
            if answer.status_code == 200:
                request.headers["authorization"] = answer.json()["token"]
                yield request

    return flow


def _again(status: int) -> Callable[[Any, Any], Generator[Any, Any]]:
    def flow(_: Any, request: Any) -> Generator[Any, Any]:
        answer = yield request
        if answer.status_code == status:
            request.headers["authorization"] = "better"
            yield request

    return flow


def _raising(_: Any, request: Any) -> Generator[Any, Any]:
    answer = yield request
    raise LookupError(answer.status_code)


DENIED = _seen("complete", 401, "authentication_error")
AUTHENTICATED: dict[str, tuple[Flow, list[Reply], list[dict[str, object]]]] = {
    "again after 401": (Flow(_again(401)), [_challenge(), replies.message()], [OK]),
    "again after 401, in vain": (Flow(_again(401)), [_challenge(), _challenge()], [DENIED]),
    "again after 401, then 529": (
        Flow(_again(401)),
        [_challenge(), replies.overloaded()],
        [_seen("complete", 529, "overloaded_error")],
    ),
    "again after 407": (Flow(_again(407)), [replies.error(407), replies.message()], [OK]),
    "token after 401": (Flow(_token_after(401), reads=True), [_challenge(), _token(), replies.message()], [OK]),
    "token after 401, refused": (Flow(_token_after(401), reads=True), [_challenge(), _token(500)], [DENIED]),
    "token after 401, gone": (
        Flow(_token_after(401), reads=True),
        [_challenge(), replies.silent(replies.CUT)],
        [DENIED],
    ),
    "token first": (Flow(_token_first, reads=True), [_token(), replies.message()], [OK]),
    "again after 401, streamed": (Flow(_again(401)), [_challenge(), replies.stream()], [OK]),
    "token first, streamed": (Flow(_token_first, reads=True), [_token(), replies.stream()], [OK]),
    "token first, refused": (Flow(_token_first, reads=True), [_token(500)], []),
    "again after 403": (
        Flow(_again(403)),
        [replies.error(403), replies.message()],
        [_seen("complete", 403, "permission_error"), OK],
    ),
    "again after 403, in vain": (
        Flow(_again(403), reads=True),
        [replies.error(403), replies.overloaded()],
        [_seen("complete", 403, "permission_error"), _seen("complete", 529, "overloaded_error")],
    ),
    "token after 403": (
        Flow(_token_after(403), reads=True),
        [replies.error(403), _token(), replies.message()],
        [_seen("complete", 403, "permission_error"), OK],
    ),
    "reads a final 401": (Flow(_again(403), reads=True), [_challenge()], [DENIED]),
    "raises after 401": (Flow(_raising), [_challenge()], [_seen("failed", 401, "401")]),
    "reads and raises after 401": (Flow(_raising, reads=True), [_challenge()], [DENIED]),
    "raises after 200": (Flow(_raising), [replies.message()], [_seen("closed", 200)]),
}


@pytest.mark.parametrize("name", AUTHENTICATED)
def test_authentication(transparent: Transparency, row: HttpxRow, name: str) -> None:
    """Challenges and their answers are one call; a request that the program repeats after an answer is another."""
    flow, answers, expected = AUTHENTICATED[name]

    async def program(web: Web) -> object:
        if "streamed" not in name:
            return web.facts(await web.post(auth=flow.auth(web.module)))
        async with web.streaming(auth=flow.auth(web.module)) as response:
            return await web.call(response, "read"), web.facts(response)

    transparent(program, answers, expected)
    assert [None] * len(expected) == [span.parent for span in transparent.spans], "attempts are siblings"


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([_challenge(), replies.message()], OK),
        ([_challenge(), _challenge()], DENIED),
        ([_challenge("Digest nonsense=1")], _seen("failed", 401, "401")),
        ([_challenge("Bearer"), replies.message()], DENIED),
    ],
    ids=["answered", "in vain", "malformed", "another scheme"],
)
def test_digest(transparent: Transparency, answers: list[Reply], expected: dict[str, object]) -> None:
    """A Digest challenge is no attempt of its own."""

    async def program(web: Web) -> object:
        return web.facts(await web.post(auth=web.module.DigestAuth("user", "secret")))

    transparent(program, answers, [expected])


def test_a_flow_that_uses_the_client_itself(transparent: Transparency) -> None:
    """A flow that calls by the very client that it authenticates for: each Messages call makes a record."""

    async def program(web: Web) -> object:
        class Auth(web.module.Auth):  # type: ignore[misc,name-defined]
            def sync_auth_flow(self, request: Any) -> Generator[Any, Any]:
                self.use(request, web.client.post(request.url.join("/token")))
                self.use(request, web.client.post(web.url, json={**ASKED, "model": "inner"}))
                yield request

            async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
                self.use(request, await web.client.post(request.url.join("/token")))
                self.use(request, await web.client.post(web.url, json={**ASKED, "model": "inner"}))
                yield request

            def use(self, request: Any, answer: Any) -> None:
                request.headers["authorization"] = str(answer.status_code)

        return web.facts(await web.post(auth=Auth()))

    transparent(
        program,
        [_token(), replies.message(), replies.overloaded()],
        [{**OK, "request.model": "inner"}, _seen("complete", 529, "overloaded_error")],
    )


# ------------------------------------------------------------------------------------------------ hooks


def _hooks(kind: str, hook: Callable[[Any], None], *, reads: bool = False, closes: bool = False) -> Any:
    """An option for a client of either kind."""

    def call(it: Any) -> None:
        if reads:
            it.read()
        if closes:
            it.close()
        hook(it)

    async def acall(it: Any) -> None:
        if reads:
            await it.aread()
        if closes:
            await it.aclose()
        hook(it)

    return lambda row: {"event_hooks": {kind: [acall if row.is_async else call]}}


def _nothing(_: Any) -> None:
    """A hook that looks on."""


def _named_header(request: Any) -> None:
    request.headers["x-session-id"] = "s-1"


def _fail(_: Any) -> None:
    raise LookupError("hook")


def _raise_for_status(response: Any) -> None:
    response.raise_for_status()


WATCHING = _hooks("response", _nothing)
READING = _hooks("response", _nothing, reads=True)
CHECKING = _hooks("response", _raise_for_status)
READING_AND_CHECKING = _hooks("response", _raise_for_status, reads=True)
HOOKED: dict[str, tuple[Any, Program, Reply, list[dict[str, object]]]] = {
    "watches 200": (WATCHING, _post, replies.message(), [OK]),
    "reads 200": (READING, _post, replies.message(), [OK]),
    "reads a stream": (READING, _close_unread, replies.stream(), [OK]),
    "checks 200": (CHECKING, _post, replies.message(), [OK]),
    "checks 401": (CHECKING, _post, replies.error(401), [_seen("failed", 401, "401")]),
    "checks 429": (CHECKING, _post, replies.rate_limited(1.0), [_seen("closed", 429, "429")]),
    "checks 307": (CHECKING, _post, _moved(), [_seen("failed", 307, "{client}.HTTPStatusError")]),
    "reads 401": (READING, _post, replies.error(401), [DENIED]),
    "reads and checks 200": (READING_AND_CHECKING, _stream, replies.stream(), [OK]),
    "reads and checks 401": (READING_AND_CHECKING, _post, replies.error(401), [DENIED]),
    "reads and checks 429": (
        READING_AND_CHECKING,
        _post,
        replies.rate_limited(1.0),
        [_seen("complete", 429, "rate_limit_error")],
    ),
    "raises on 200": (_hooks("response", _fail), _post, replies.message(), [_seen("closed", 200)]),
    "closes 401": (
        _hooks("response", _nothing, closes=True),
        _close_unread,
        replies.error(401),
        [_seen("complete", 401, "401")],
    ),
    "closes 200": (_hooks("response", _nothing, closes=True), _close_unread, replies.stream(), [_seen("closed", 200)]),
    "adds to the request": (
        _hooks("request", _named_header),
        _post,
        replies.message(),
        [{**OK, "correlation.session_id": "s-1", "correlation.session_source": "header"}],
    ),
    "raises before the request": (_hooks("request", _fail), _post, replies.message(), []),
}


@pytest.mark.parametrize("name", HOOKED)
def test_hooks(transparent: Transparency, row: HttpxRow, name: str) -> None:
    """The program's hooks see the response they would have seen, and may read, close and raise."""
    options, program, answer, expected = HOOKED[name]
    transparent.options = options(row)
    transparent(program, [answer], [_named(row, facts) for facts in expected])


# ------------------------------------------------------------------------------------------------ requests


async def _multipart(web: Web) -> object:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    return web.facts(
        await web.post(json=None, files={"file": ("a.txt", b"text")}, data={"model": "m"}, headers=headers)
    )


async def _file(web: Web) -> object:
    body = io.BytesIO(json.dumps(ASKED).encode())
    return web.facts(await web.post(json=None, content=body)), body.tell()


def _content(**asked: Any) -> Program:
    async def program(web: Web) -> object:
        request = web.client.build_request("POST", web.url, **asked)
        response = await web.call(web.client, "send", request)
        return web.facts(response), type(request.stream), request.content

    return program


SENT: dict[str, tuple[Program, str | None]] = {
    "bytes": (_content(content=b'{"model": "m"}'), "m"),
    "text": (_content(content='{"model": "m"}'), "m"),
    "json": (_content(json=ASKED), "m"),
    "form": (_content(data={"model": "m"}), None),
    "nothing": (_content(), None),
    "no json": (_content(content=b"\xff\xfe{"), None),
    "generator": (_post_generator, None),
    "multipart": (_multipart, None),
}


@pytest.mark.parametrize("name", SENT)
def test_requests(transparent: Transparency, name: str) -> None:
    """Whatever a request is made of is sent as it is, and consumed by nobody else."""
    program, model = SENT[name]
    transparent(program, [replies.message()], [{**OK, "request.model": model}])


@pytest.mark.rows(concurrency=["sync"])
def test_files(transparent: Transparency) -> None:
    """A file is read by the client, once."""
    transparent(_file, [replies.message()], [{**OK, "request.model": None}])


@pytest.mark.rows(concurrency=["asyncio", "trio"])
def test_files_of_an_async_client(transparent: Transparency) -> None:
    """An async client says itself what is wrong with a file; the call has failed."""
    transparent(_file, [replies.message()], [_seen("failed", None, "RuntimeError")], sends=False)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_other_methods(transparent: Transparency, method: str) -> None:
    """Only POST makes a record."""

    async def program(web: Web) -> object:
        response = await web.call(web.client, "request", method, web.url)
        return web.facts(response)

    reply = replies.message()
    transparent(program, [reply if method != "HEAD" else Reply(framing="length")], [])


@pytest.mark.rows(concurrency=["sync"])
def test_functions_of_the_module(transparent: Transparency) -> None:
    """The functions that make a client for one call are seen as well."""

    async def program(web: Web) -> object:
        response = web.module.post(web.url, json=ASKED, trust_env=False)
        with web.module.stream("POST", web.url, json=ASKED, trust_env=False) as streamed:
            chunks = list(streamed.iter_raw())
        return web.facts(response), chunks, web.facts(streamed)

    transparent(program, [replies.message(), replies.stream()], [OK, OK], faults=False)


def test_a_closed_client(transparent: Transparency) -> None:
    """A client that is closed raises its own error, before anything is sent."""

    async def program(web: Web) -> object:
        client = type(web.client)()
        await web.call(client, "close")
        return await web.call(client, "post", web.url, json=ASKED)

    transparent(program, [replies.message()], [])


def test_a_scheme_that_is_none(transparent: Transparency, row: HttpxRow) -> None:
    """A URL that the client cannot call is its own affair."""
    transparent.url = "gopher://127.0.0.1/v1/messages"
    transparent(_post, [replies.message()], [_seen("failed", None, f"{row.client}.UnsupportedProtocol")])


def _named(row: HttpxRow, facts: dict[str, object]) -> dict[str, object]:
    """The facts with the client's name in them."""
    return {name: value.format(client=row.client) if isinstance(value, str) else value for name, value in facts.items()}
