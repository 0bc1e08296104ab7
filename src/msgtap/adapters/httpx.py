"""httpx and httpx2: one adapter for both, since the second continues the first. Sync, asyncio and trio.

Two seams, looked up on the class at each call, so that clients built earlier are seen too. ``_send_single_request`` is
one request and the head of its response: there the body can be tapped before the program's own hooks read it.
``_send_handling_auth`` is one call as the program means it, with the redirects and challenges on its way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

import wrapt

from msgtap.shield import LOGGER, shielded
from msgtap.tap import Tap, candidate, wanted, watch

if TYPE_CHECKING:
    _Proxy = wrapt.ObjectProxy[Any]
else:
    _Proxy = wrapt.ObjectProxy  # before wrapt 2 it took no type

_CHALLENGES = frozenset({401, 407})
_PORTS = {"http": 80, "https": 443}
_SEAMS = ("_send_single_request", "_send_handling_auth")

_flow: ContextVar[_Flow | None] = ContextVar("msgtap_httpx_flow", default=None)


def install(module: ModuleType) -> None:
    """Observe every client of ``module``, which is httpx or httpx2."""
    adapter = _Adapter(module)
    _wrap(module.Client, adapter.send_single, adapter.send)
    _wrap(module.AsyncClient, adapter.send_single_async, adapter.send_async)


def _wrap(client: type, *wrappers: Any) -> None:
    if any(_is_ours(getattr(client, seam, None)) for seam in (*_SEAMS, "send")):
        return
    seams = _SEAMS
    if not all(hasattr(client, seam) for seam in seams):
        LOGGER.info("this version of %s is new to msgtap: calls are seen without the times of chunks", client)
        seams = ("send", "send")
    for seam, wrapper in zip(seams, wrappers, strict=True):
        wrapt.wrap_function_wrapper(client, seam, wrapper)


def _is_ours(function: Any) -> bool:
    """Whether our wrapper is on ``function``, on top or below those of others."""
    while isinstance(function, (wrapt.FunctionWrapper, wrapt.BoundFunctionWrapper)):
        if isinstance(getattr(function._self_wrapper, "__self__", None), _Adapter):  # noqa: SLF001  # wrapt's own name
            return True
        function = function.__wrapped__
    return False


class _Adapter:
    """The wrappers for one of the two modules; sync and async differ by ``await``."""

    def __init__(self, module: ModuleType) -> None:
        self._name = module.__name__
        self._in_memory: Any = module.ByteStream

    def send(self, wrapped: Any, client: object, args: Any, kwargs: Any) -> Any:
        if not _wanted(_request(args, kwargs)):
            return wrapped(*args, **kwargs)
        with _Flow(client, _Stream):
            return wrapped(*args, **kwargs)

    def send_async(self, wrapped: Any, client: object, args: Any, kwargs: Any) -> Any:
        if not _wanted(_request(args, kwargs)):
            return wrapped(*args, **kwargs)  # the client's own coroutine: none of ours around it
        return self._send_async(wrapped, client, args, kwargs)

    async def _send_async(self, wrapped: Any, client: object, args: Any, kwargs: Any) -> Any:
        with _Flow(client, _AsyncStream):
            return await wrapped(*args, **kwargs)

    def send_single(self, wrapped: Any, client: object, args: Any, kwargs: Any) -> Any:
        step = self._step(client, _request(args, kwargs))
        if step is None:
            return wrapped(*args, **kwargs)
        with step.tap:
            response = wrapped(*args, **kwargs)
        step.receive(response)
        return response

    def send_single_async(self, wrapped: Any, client: object, args: Any, kwargs: Any) -> Any:
        step = self._step(client, _request(args, kwargs))
        if step is None:
            return wrapped(*args, **kwargs)
        return self._send_single_async(wrapped, step, args, kwargs)

    async def _send_single_async(self, wrapped: Any, step: _Step, args: Any, kwargs: Any) -> Any:
        with step.tap:
            response = await wrapped(*args, **kwargs)
        step.receive(response)
        return response

    @shielded
    def _step(self, client: object, request: Any) -> _Step | None:
        """This request as a step of the call in progress; `None` if it is not to be observed."""
        flow = _flow.get()
        if flow is None or flow.client is not client or not _wanted(request):
            return None
        # Where the last answer was none, the attempt goes on. After any other the program's auth flow makes a new one.
        held, flow.held = flow.held, None
        tap = self._watch(request) if held is None else held.tap
        return None if tap is None else _Step(flow, tap)

    def _watch(self, request: Any) -> Tap | None:
        url = request.url
        # Of the client's own body in memory iterating gives the very bytes; any other may be consumed by it.
        body = b"".join(request.stream) if type(request.stream) is self._in_memory else None
        return watch(
            self._name,
            host=url.host,
            port=url.port or _PORTS.get(url.scheme, 0),
            target=url.raw_path.decode("ascii"),
            pairs=request.headers.raw,
            body=body,
        )


def _request(args: Any, kwargs: Any) -> Any:
    return args[0] if args else kwargs.get("request")


@shielded
def _wanted(request: Any) -> bool:
    # The path second: to make it costs more than all the rest of this.
    return wanted(request.method) and candidate(request.url.raw_path)


class _Flow:
    """A call on its way: as a context manager it makes itself known to the inner seam.

    Attributes:
        client: whose call it is; `None` once it is over, for a task started meanwhile keeps a copy of this context.
        proxy: what to put around the body of its response.
        held: a step that ended in a redirect or a challenge, which is the answer only if no other step follows on it.
    """

    __slots__ = ("_outer", "client", "held", "proxy")

    def __init__(self, client: object, proxy: type[_Stream | _AsyncStream]) -> None:
        self.client: object | None = client
        self.proxy = proxy
        self.held: _Step | None = None

    def __enter__(self) -> None:
        self._outer = _flow.get()
        _flow.set(self)

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        if _flow.get() is self:  # not so where the garbage collector closes a coroutine in another context
            _flow.set(self._outer)
        self.client = None
        held, self.held = self.held, None
        if held is not None:
            held.answer(error)


class _Step:
    """One request of a call, and its response."""

    __slots__ = ("_flow", "_response", "tap")
    _response: Any

    def __init__(self, flow: _Flow, tap: Tap) -> None:
        self._flow = flow
        self.tap = tap

    def receive(self, response: Any) -> None:
        """The inner seam has a response."""
        if not self._take(response):
            self.tap.drop()  # we failed, and shall hear no more of it

    @shielded
    def _take(self, response: Any) -> bool:
        self._response = response
        if response.has_redirect_location or response.status_code in _CHALLENGES:
            self._flow.held = self
        else:
            self.answer()
        return True

    @shielded
    def answer(self, error: BaseException | None = None) -> None:
        """The response is the answer, though with ``error`` the program will not get it."""
        response, self._response = self._response, None
        tap = self.tap
        if not response.is_closed:
            tap.headers(response.status_code, response.headers.raw)
            response.stream = self._flow.proxy(response.stream, tap)
            return
        # Mocks, caches, and what the client or a hook has read already: its content is decoded.
        tap.headers(response.status_code, response.headers.raw, decoded=True)
        tap.chunk(_content(response))
        if error is None:
            tap.complete()
        else:
            tap.fail(error)


def _content(response: Any) -> bytes:
    try:
        content: bytes = response.content
    except RuntimeError:  # it was closed unread
        return b""
    return content


class _Stream(_Proxy):
    """The body of a response, showing its chunks to the tap. All else, ``elapsed`` say, is the body's own."""

    def __init__(self, stream: Any, tap: Tap) -> None:
        super().__init__(stream)
        self._self_tap = tap

    def __iter__(self) -> Iterator[bytes]:
        return _passing(self.__wrapped__, self._self_tap)

    def close(self) -> None:
        self._self_tap.close()
        self.__wrapped__.close()

    def __del__(self) -> None:
        self._self_tap.drop()


def _passing(stream: Any, tap: Tap) -> Iterator[bytes]:
    try:
        for chunk in stream:
            tap.chunk(chunk)
            yield chunk
    except GeneratorExit:  # nobody reads on; whether the body is closed or dropped, its proxy hears of it
        raise
    except BaseException as error:
        tap.fail(error)
        raise
    tap.complete()


class _AsyncStream(_Proxy):
    """The same for an asynchronous body."""

    def __init__(self, stream: Any, tap: Tap) -> None:
        super().__init__(stream)
        self._self_tap = tap

    def __aiter__(self) -> _AsyncChunks:
        return _AsyncChunks(self.__wrapped__.__aiter__(), self._self_tap)

    async def aclose(self) -> None:
        self._self_tap.close()
        await self.__wrapped__.aclose()

    def __del__(self) -> None:
        self._self_tap.drop()


class _AsyncChunks(_Proxy):
    """The iterator of the body, which stays an async generator to whoever asks, and is closed as one.

    A generator of our own around it would be finalized by the event loop, in another task.
    """

    def __init__(self, chunks: Any, tap: Tap) -> None:
        super().__init__(chunks)
        self._self_tap = tap

    def __aiter__(self) -> _AsyncChunks:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk: bytes = await self.__wrapped__.__anext__()
        except StopAsyncIteration:
            self._self_tap.complete()
            raise
        except BaseException as error:
            self._self_tap.fail(error)
            raise
        self._self_tap.chunk(chunk)
        return chunk
