"""httpx and httpx2: one adapter for both, since the second continues the first. Sync, asyncio and trio.

Two seams, looked up on the class at each call, so that clients built earlier are seen too. ``_send_handling_auth`` is
one call as the program means it, with its redirects and authentication challenges. ``_send_single_request`` is where
the body of a response can be tapped before the program's own hooks read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import ModuleType, TracebackType
from typing import Any
from weakref import WeakSet

import wrapt

from msgtap.shield import LOGGER, attempt, shielded
from msgtap.tap import Tap, wanted, watch

_CHALLENGES = frozenset({401, 407})
_PORTS = {"http": 80, "https": 443}
_SEAMS = ("_send_handling_auth", "_send_single_request")

_installed: WeakSet[type] = WeakSet()


def install(module: ModuleType) -> None:
    """Observe every client of ``module``, which is httpx or httpx2."""
    adapter = _Adapter(module)
    _wrap(module.Client, adapter.send, adapter.send_single)
    _wrap(module.AsyncClient, adapter.send_async, adapter.send_single_async)


def _wrap(client: type, send: Any, send_single: Any) -> None:
    if client in _installed:
        return
    _installed.add(client)
    if all(hasattr(client, seam) for seam in _SEAMS):
        wrapt.wrap_function_wrapper(client, _SEAMS[0], send)
        wrapt.wrap_function_wrapper(client, _SEAMS[1], send_single)
    else:
        LOGGER.info("this version of %s is new to msgtap: calls are seen without the times of chunks", client)
        wrapt.wrap_function_wrapper(client, "send", send)


class _Adapter:
    """The wrappers for one of the two modules; sync and async differ by ``await``."""

    def __init__(self, module: ModuleType) -> None:
        self._name = module.__name__
        self._in_memory: Any = module.ByteStream

    def send(self, wrapped: Any, client: object, args: Any, kwargs: Any) -> Any:
        flow = self._begin(client, _request(args, kwargs))
        if flow is None:
            return wrapped(*args, **kwargs)
        with flow:
            response = wrapped(*args, **kwargs)
            flow.arrive(response, _Stream)
            return response

    def send_single(self, wrapped: Any, client: object, args: Any, kwargs: Any) -> Any:
        flow = self._again(client, _request(args, kwargs))
        response = wrapped(*args, **kwargs)
        if flow is not None:
            flow.receive(response, _Stream)
        return response

    def send_async(self, wrapped: Any, client: object, args: Any, kwargs: Any) -> Any:
        if not _wanted(_request(args, kwargs)):
            return wrapped(*args, **kwargs)  # the client's own coroutine: none of ours around it
        return self._send_async(wrapped, client, args, kwargs)

    async def _send_async(self, wrapped: Any, client: object, args: Any, kwargs: Any) -> Any:
        flow = self._begin(client, _request(args, kwargs))
        if flow is None:
            return await wrapped(*args, **kwargs)
        with flow:
            response = await wrapped(*args, **kwargs)
            flow.arrive(response, _AsyncStream)
            return response

    def send_single_async(self, wrapped: Any, client: object, args: Any, kwargs: Any) -> Any:
        if _flow.get() is None:
            return wrapped(*args, **kwargs)
        return self._send_single_async(wrapped, client, args, kwargs)

    async def _send_single_async(self, wrapped: Any, client: object, args: Any, kwargs: Any) -> Any:
        flow = self._again(client, _request(args, kwargs))
        response = await wrapped(*args, **kwargs)
        if flow is not None:
            flow.receive(response, _AsyncStream)
        return response

    @shielded
    def _begin(self, client: object, request: Any) -> _Flow | None:
        tap = self._watch(request) if _wanted(request) else None
        return None if tap is None else _Flow(client, tap)

    @shielded
    def _again(self, client: object, request: Any) -> _Flow | None:
        """The flow that this request is a step of; its first step, or one after a redirect or a challenge."""
        flow = _flow.get()
        if flow is None or flow.client is not client or not _wanted(request):
            return None
        return flow if flow.step(lambda: self._watch(request)) else None

    def _watch(self, request: Any) -> Tap | None:
        url = request.url
        # Of a body in memory iterating gives the very bytes; any other would be consumed by it.
        body = b"".join(request.stream) if isinstance(request.stream, self._in_memory) else None
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
    return wanted(request.method, request.url.raw_path)


class _Flow:
    """A call that is being sent: its tap, and a response that may prove to be a mere step on the way.

    As a context manager it spans the sending, and makes itself known to the inner seam.
    """

    __slots__ = ("_first", "_followed", "_held", "_outer", "client", "tap")

    def __init__(self, client: object, tap: Tap) -> None:
        self.client: object | None = client
        self.tap = self._first = tap
        self._followed = False
        self._held: Any = None
        self._outer: _Flow | None = None

    def __enter__(self) -> None:
        self._outer = _flow.get()
        _flow.set(self)
        self._first.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if _flow.get() is self:  # not so where the garbage collector closes a coroutine in another context
            _flow.set(self._outer)
        self.client = None  # a task that was started meanwhile has a copy of this context
        if error is not None:
            self._settle()
            self.tap.fail(error)
        self._first.__exit__(kind, error, _)

    def step(self, watch_again: Callable[[], Tap | None]) -> bool:
        """One more request of this flow is about to be sent. False if it is not to be observed."""
        self._held = None
        if self._followed:
            # The program's own auth flow has seen an answer and tries once more: an attempt of its own.
            tap = watch_again()
            if tap is None:
                return False
            self.tap, self._followed = tap, False
        return True

    @shielded
    def receive(self, response: Any, proxy: type[_Stream | _AsyncStream]) -> None:
        """The inner seam has a response: the answer, unless it asks for another request."""
        if response.has_redirect_location or response.status_code in _CHALLENGES:
            self._held = response
        else:
            self._follow(response, proxy)

    @shielded
    def arrive(self, response: Any, proxy: type[_Stream | _AsyncStream]) -> None:
        """The program is about to get ``response``."""
        if not self._followed and self._held in (None, response):
            self._follow(response, proxy)
        self._settle()

    def _settle(self) -> None:
        """Whatever was held and not given to the program, a redirect that led elsewhere say, is the answer."""
        held, self._held = self._held, None
        if held is not None and not self._followed:
            self.tap.headers(held.status_code, held.headers.raw)
            self.tap.complete()

    def _follow(self, response: Any, proxy: type[_Stream | _AsyncStream]) -> None:
        self._followed = True
        self._held = None
        if response.is_closed:  # mocks, caches, and hooks of the program that read it: the content is decoded
            self.tap.headers(response.status_code, response.headers.raw, decoded=True)
            self.tap.chunk(attempt(getattr, response, "content", b"") or b"")
            self.tap.complete()
            return
        self.tap.headers(response.status_code, response.headers.raw)
        response.stream = proxy(response.stream, self.tap)


_flow: ContextVar[_Flow | None] = ContextVar("msgtap_httpx_flow", default=None)


class _Stream(wrapt.ObjectProxy[Any]):
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


class _AsyncStream(wrapt.ObjectProxy[Any]):
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


class _AsyncChunks(wrapt.ObjectProxy[Any]):
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
