"""The clients as rows, a program run with msgtap and without, and every fault that msgtap might have.

A program is written once, as a coroutine that is given a `Session`; with a sync client it never suspends. A client to
come is a row more: how to open it, and the few verbs of `Session`.

A test runs its program without msgtap, with it, and with a few of the faults, others than the next test; with
``MSGTAP_EVERY_FAULT=1`` it runs it with every one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import itertools
import logging
import os
import re
import ssl
import sys
import time
import warnings
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol
from unittest.mock import patch

import brotli  # type: ignore[import-untyped]
import httpx
import httpx2
import msgspec
import pytest
import trio
import zstandard

import msgtap
from msgtap import exchange, shield, tap
from msgtap.adapters import httpx as adapter
from msgtap.configuration import install_adapters
from msgtap.exporting import build
from msgtap.telemetry import logs, metrics, observer, spans
from msgtap.testing import capture_calls, replies
from msgtap.testing.endpoint import Endpoint, answering
from msgtap.testing.memory import Memory
from msgtap.wire import body, encoding, endpoint, headers, message, sse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from types import ModuleType

    from opentelemetry.sdk.trace import ReadableSpan

    from msgtap.record import CallRecord
    from msgtap.tap import Watcher
    from msgtap.testing.endpoint import Received, Respond
    from msgtap.testing.replies import Compress, Reply

    Work = Callable[[], Awaitable[object]]
    Program = Callable[[Any], Awaitable[object]]

ASKED: dict[str, object] = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "Classify."}],
}
EVERY = bool(os.environ.get("MSGTAP_EVERY_FAULT"))
FEW = 2
SEAMS = ("_send_handling_auth", "_send_single_request")
TLS = ssl.create_default_context()  # made once: it takes longer than a call


# ------------------------------------------------------------------------------------------------ rows


class Tasks:
    """Tasks, in one kind of concurrency."""

    def __init__(self, concurrency: str) -> None:
        self._concurrency = concurrency

    async def apart(self, work: Work) -> object:
        """What ``work`` gives when it runs in another task."""
        return (await self.together([work]))[0]

    async def together(self, works: Sequence[Work]) -> list[object]:
        """What each gives when all run at once: in tasks, or in 16 threads."""
        if self._concurrency == "asyncio":
            return list(await asyncio.gather(*(work() for work in works)))
        if self._concurrency == "sync":
            with ThreadPoolExecutor(16) as threads:
                return list(threads.map(_step, works))
        given: dict[int, object] = {}

        async def run(number: int, work: Work) -> None:
            given[number] = await work()

        async with trio.open_nursery() as nursery:
            for number, work in enumerate(works):
                nursery.start_soon(run, number, work)
        return [given[number] for number in range(len(works))]

    async def settle(self) -> None:
        """Let the loop finish what it has to do for generators that were dropped."""
        for _ in range(20):
            if self._concurrency == "asyncio":
                await asyncio.sleep(0)
            elif self._concurrency == "trio":
                await trio.lowlevel.checkpoint()
        gc.collect()

    async def forever(self) -> None:
        """Wait for nothing."""
        if self._concurrency == "asyncio":
            await asyncio.Event().wait()
        await trio.sleep_forever()

    async def cancelled(self, work: Work, ready: Callable[[], object]) -> object:
        """What ``work`` raises when its task is cancelled, as soon as it is ``ready``."""
        seen: list[object] = []

        async def run() -> None:
            try:
                await work()
            except BaseException as error:
                seen.append(type(error))
                raise

        if self._concurrency == "asyncio":
            task = asyncio.ensure_future(run())
            while not ready() and not task.done():  # noqa: ASYNC110  # what it waits for happens in another thread
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                while not ready() and not seen:  # noqa: ASYNC110  # as above
                    await trio.sleep(0.001)
                nursery.cancel_scope.cancel()
        return seen

    async def within(self, seconds: float, work: Work) -> object:
        """What ``work`` gives, or the exception of a timeout of the program's own."""
        try:
            if self._concurrency == "asyncio":
                return await asyncio.wait_for(work(), seconds)
            with trio.fail_after(seconds):
                return await work()
        except (TimeoutError, trio.TooSlowError) as error:
            return type(error)


class Stream(Protocol):
    """An open response, whose body is read as the client at hand reads it."""

    status: int

    async def chunk(self) -> bytes | None:
        """The next chunk; `None` at the end."""

    async def close(self) -> None:
        """Read no more."""

    def hurry(self, seconds: float) -> None:
        """Make this the longest time to wait for a chunk; before the first."""


class Session(Protocol):
    """An open client, and where it calls."""

    client: Any
    received: list[Received]
    tasks: Tasks
    url: str

    async def whole(self, **asked: object) -> tuple[int, bytes]:
        """A call whose body the client reads."""

    async def stream(self, **asked: object) -> Stream:
        """A call whose body the program reads."""


class Row(ABC):
    """One client, in one kind of concurrency: ``sync``, ``asyncio`` or ``trio``."""

    concurrency: str

    @property
    @abstractmethod
    def client(self) -> str:
        """Its name in records."""

    @property
    @abstractmethod
    def failures(self) -> dict[str, str]:
        """What its exceptions are called in records."""

    @abstractmethod
    def opened(self, url: str, options: dict[str, Any]) -> contextlib.AbstractAsyncContextManager[Any]:
        """A `Session`, while the context lasts; ``read_timeout``, in seconds, is an option of every client."""

    @abstractmethod
    def pristine(self) -> contextlib.AbstractContextManager[object]:
        """The client as it is without msgtap's wrappers, while the context lasts."""

    @property
    def name(self) -> str:
        """What tests call it."""
        return f"{self.client}-{self.concurrency}"

    def run(self, program: Program, endpoint: Endpoint, url: str = "", **options: Any) -> object:
        """What ``program`` returns."""

        async def main() -> object:
            async with self.opened(url or f"{endpoint.url}/v1/messages", options) as session:
                session.received = endpoint.received
                return await program(session)

        return RUNNERS[self.concurrency](main)


class _Steps:
    """A sync iterator as an async one that never suspends; dropped with it, closed with it."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator

    def __aiter__(self) -> _Steps:
        return self

    async def __anext__(self) -> Any:
        for item in self._iterator:
            return item
        raise StopAsyncIteration


class Web:
    """A `Session` of httpx or httpx2, which also shows the client as it is."""

    def __init__(self, row: HttpxRow, client: Any, url: str) -> None:
        self.row = row
        self.client = client
        self.module = row.module
        self.received: list[Received] = []
        self.tasks = Tasks(row.concurrency)
        self.url = url

    async def call(self, owner: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        """A method by its sync name, whose async form may begin with an a."""
        if self.row.is_async:
            return await getattr(owner, f"a{name}" if hasattr(owner, f"a{name}") else name)(*args, **kwargs)
        return getattr(owner, name)(*args, **kwargs)

    def each(self, response: Any, name: str, *args: Any) -> Any:
        """What an ``iter_`` method gives, to be iterated asynchronously."""
        if self.row.is_async:
            return getattr(response, f"a{name}")(*args)
        return _Steps(getattr(response, name)(*args))

    async def post(self, **asked: Any) -> Any:
        """A call as most programs make it."""
        return await self.call(self.client, "post", self.url, **{"json": ASKED, **asked})

    async def send(self, method: str = "POST", **asked: Any) -> Any:
        """A streamed response, which the program has to close."""
        request = self.client.build_request(method, self.url, **{"json": {**ASKED, "stream": True}, **asked})
        return await self.call(self.client, "send", request, stream=True)

    @contextlib.asynccontextmanager
    async def streaming(self, **asked: Any) -> AsyncIterator[Any]:
        """A streamed response, closed by its context."""
        manager = self.client.stream("POST", self.url, **{"json": {**ASKED, "stream": True}, **asked})
        if self.row.is_async:
            async with manager as response:
                yield response
        else:
            with manager as response:
                yield response

    async def whole(self, **asked: object) -> tuple[int, bytes]:
        """See `Session`."""
        response = await self.post(json={**ASKED, **asked})
        return response.status_code, response.content

    async def stream(self, **asked: object) -> _WebStream:
        """See `Session`."""
        return _WebStream(self, await self.send(json={**ASKED, "stream": True, **asked}))

    def facts(self, response: Any) -> dict[str, object]:
        """All that a program can see of a response, but its bytes."""
        return {
            "type": type(response),
            "status": response.status_code,
            "version": response.http_version,
            "closed": response.is_closed,
            "consumed": response.is_stream_consumed,
            "downloaded": response.num_bytes_downloaded,
            "elapsed": told(lambda: type(response.elapsed)),
            "content": told(lambda: response.content),
            "history": [(step.status_code, step.is_closed, told(lambda: step.content)) for step in response.history],  # noqa: B023
            "next": response.next_request and response.next_request.method,
            "url": str(response.url),
            "asked": (response.request.method, response.request.headers.get("content-length")),
            "encoding": response.encoding,
            "stream": [
                isinstance(response.stream, kind) for kind in (self.module.SyncByteStream, self.module.AsyncByteStream)
            ],
        }


class _WebStream:
    def __init__(self, web: Web, response: Any) -> None:
        self.status = response.status_code
        self._web, self._response = web, response
        self._chunks = web.each(response, "iter_raw")

    async def chunk(self) -> bytes | None:
        try:
            chunk: bytes = await self._chunks.__anext__()
        except StopAsyncIteration:
            return None
        return chunk

    async def close(self) -> None:
        await self._web.call(self._response, "close")

    def hurry(self, seconds: float) -> None:
        self._response.request.extensions["timeout"]["read"] = seconds


@dataclass(frozen=True)
class HttpxRow(Row):
    """httpx or httpx2."""

    module: ModuleType
    concurrency: str

    @property
    def client(self) -> str:
        """See `Row`."""
        return self.module.__name__

    @property
    def is_async(self) -> bool:
        """Whether it has tasks."""
        return self.concurrency != "sync"

    @property
    def failures(self) -> dict[str, str]:
        """See `Row`."""
        names = {"refused": "ConnectError", "silent": "ReadTimeout", "slow": "ReadTimeout", "reset": "ReadError"}
        names |= {"cut": "RemoteProtocolError", "gone": "RemoteProtocolError"}
        return {what: f"{self.client}.{name}" for what, name in names.items()}

    @contextlib.asynccontextmanager
    async def opened(self, url: str, options: dict[str, Any]) -> AsyncIterator[Web]:
        """See `Row`; ``kind`` and ``make_transport`` make the client and its transport."""
        kind = options.pop("kind", self.module.AsyncClient if self.is_async else self.module.Client)
        timeout = self.module.Timeout(20, read=options.pop("read_timeout", 20))
        if make := options.pop("make_transport", None):
            options["transport"] = make(verify=TLS)
        client = kind(**{"verify": TLS, "trust_env": False, "timeout": timeout, **options})
        if self.is_async:
            async with client:
                yield Web(self, client, url)
        else:
            with client:
                yield Web(self, client, url)

    def pristine(self) -> contextlib.ExitStack:
        """See `Row`."""
        stack = contextlib.ExitStack()
        for client in (self.module.Client, self.module.AsyncClient):
            for seam in SEAMS:
                original = inspect.getattr_static(client, seam).__wrapped__
                stack.enter_context(patch.object(client, seam, original))
        return stack


HTTPX_ROWS = [HttpxRow(module, kind) for module in (httpx, httpx2) for kind in ("sync", "asyncio", "trio")]
ROWS: list[Row] = [*HTTPX_ROWS]


def told(question: Callable[[], object]) -> object:
    """The answer, or the exception that was the answer."""
    try:
        return question()
    except Exception as error:  # noqa: BLE001
        return type(error).__name__, str(error)


def _step(main: Callable[[], Awaitable[object]]) -> object:
    coroutine: Any = main()
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a sync client has no reason to suspend")


RUNNERS: dict[str, Callable[[Any], object]] = {
    "sync": _step,
    "asyncio": lambda main: asyncio.run(main()),
    "trio": trio.run,
}


# ------------------------------------------------------------------------------------------------ codings


def _brotli() -> Compress:
    squeeze = brotli.Compressor()
    return lambda data, last: squeeze.process(data) + (squeeze.finish() if last else squeeze.flush())


def _zstd() -> Compress:
    squeeze = zstandard.ZstdCompressor().compressobj()
    ends = {True: zstandard.COMPRESSOBJ_FLUSH_FINISH, False: zstandard.COMPRESSOBJ_FLUSH_BLOCK}
    return lambda data, last: squeeze.compress(data) + squeeze.flush(ends[last])


CODINGS: dict[str, Callable[[Reply], Reply]] = {
    "identity": lambda reply: reply,
    "gzip": lambda reply: replies.encoded(reply, "gzip"),
    "deflate": lambda reply: replies.encoded(reply, "deflate"),
    "br": lambda reply: replies.encoded(reply, "br", _brotli()),
    "zstd": lambda reply: replies.encoded(reply, "zstd", _zstd()),
}


@dataclass(frozen=True)
class Coding:
    """A content coding."""

    name: str

    def __call__(self, reply: Reply) -> Reply:
        """``reply`` in this coding."""
        return CODINGS[self.name](reply)


# ------------------------------------------------------------------------------------------------ faults


class FaultError(Exception):
    """A failure of msgtap itself."""


@dataclass(frozen=True)
class Fault:
    """A failure of msgtap at one place.

    Args:
        name: of the place.
        inject: makes it fail, and gives the watcher to run with.
        harmless: other observers see the call as they would have.
    """

    name: str
    inject: Callable[[contextlib.ExitStack, Watcher], Watcher]
    harmless: bool = False


def _raising(name: str, like: Any = None) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise FaultError(name)

    return functools.wraps(like)(fail) if callable(like) else fail


def shielded_inside(function: Any) -> Any:
    """The cell that holds what `msgtap.shield.shielded` has wrapped; `None` where it has wrapped nothing."""
    code = getattr(function, "__code__", None)
    if code is None or code.co_name != "guarded":
        return None
    return function.__closure__[code.co_freevars.index("function")]


@contextlib.contextmanager
def _broken(owner: Any, name: str) -> Iterator[None]:
    """``owner.name`` raises; if it is shielded, what is inside the shield does."""
    found = inspect.getattr_static(owner, name)
    cell = shielded_inside(found)
    if cell is None:
        fault = _raising(name, found)
        with patch.object(owner, name, property(fault) if isinstance(found, property) else fault):
            yield
        return
    inside = cell.cell_contents
    cell.cell_contents = _raising(name, inside)
    try:
        yield
    finally:
        cell.cell_contents = inside


def _at(owner: Any, name: str, *, harmless: bool = False) -> Fault:
    def inject(stack: contextlib.ExitStack, watcher: Watcher) -> Watcher:
        stack.enter_context(_broken(owner, name))
        return watcher

    return Fault(f"{owner.__name__.removeprefix('msgtap.')}.{name}", inject, harmless)


class _FaultyObserver:
    """An observer, and its own observation, that raises at one place."""

    def __init__(self, place: str) -> None:
        setattr(self, place, _raising(f"Observer.{place}"))

    def begin(self, start: object) -> _FaultyObserver:
        return self

    def sending(self) -> None: ...

    def sent(self, token: object) -> None: ...

    def progress(self, response: object) -> None: ...

    def finish(self, record: object) -> None: ...


def _observer(place: str) -> Fault:
    def inject(_: contextlib.ExitStack, watcher: Watcher) -> Watcher:
        faulty: Any = _FaultyObserver(place)
        return msgspec.structs.replace(watcher, observers=(faulty, *watcher.observers))

    return Fault(f"Observer.{place}", inject, harmless=True)


def _setting(name: str, value: Any, *, harmless: bool = False) -> Fault:
    return Fault(f"Watcher.{name}", lambda _, watcher: msgspec.structs.replace(watcher, **{name: value}), harmless)


class _NoTable:
    candidate = staticmethod(_raising("EndpointTable.candidate"))


class _HalfTable:
    def candidate(self, target: bytes) -> bool:
        return target.endswith(b"/v1/messages")

    match = staticmethod(_raising("EndpointTable.match"))


def _mute(stack: contextlib.ExitStack, watcher: Watcher) -> Watcher:
    """The handler of the program's own logging raises, too."""
    handler = logging.Handler()
    handler.emit = _raising("Handler.emit")  # type: ignore[method-assign]
    shield.LOGGER.addHandler(handler)
    stack.callback(shield.LOGGER.removeHandler, handler)
    stack.enter_context(_broken(tap.Tap, "chunk"))
    return watcher


FAULTS = [
    # What stands behind a shield of its own. One that is missing here fails `test_the_table_of_faults_is_complete`.
    _at(adapter, "_wanted"),
    *(_at(adapter._Adapter, name) for name in ("_step",)),
    *(_at(adapter._Step, name) for name in ("_take", "answer")),
    _at(tap, "drain"),
    *(_at(tap.Tap, name) for name in ("headers", "chunk", "complete", "fail", "close", "finish")),
    # What stands behind one of those.
    *(_at(adapter, name) for name in ("watch", "_content", "_Stream", "_AsyncStream")),
    *(_at(tap, name) for name in ("read_request", "correlate", "CallStart", "Exchange", "Tap", "_at_exit")),
    *(_at(headers, name) for name in ("select", "read_betas", "read_attempt")),
    *(_at(exchange.Exchange, name) for name in ("receive_headers", "receive_data", "response", "complete", "close")),
    *(_at(exchange, name) for name in ("body", "read_response_headers")),
    *(_at(body.EventStream, name) for name in ("feed", "finish")),
    *(_at(body.WholeBody, name) for name in ("feed", "finish")),
    *(_at(body, name) for name in ("decoder", "fold", "read_body", "read_error")),
    _at(encoding._Inflate, "__call__"),
    _at(sse.EventDecoder, "feed"),
    _at(message, "_told"),
    _at(endpoint.EndpointTable, "candidate"),
    _setting("endpoints", _NoTable()),
    _setting("endpoints", _HalfTable()),
    # What the user or another observer brings.
    *(_observer(place) for place in ("begin", "sending", "sent", "progress", "finish")),
    _setting("processors", (_raising("processor"),), harmless=True),
    _setting("identifiers", _raising("identifiers")),
    # Telemetry is such an observer.
    _at(observer.Telemetry, "begin", harmless=True),
    # Not its `sent`: what failed to give the program its context back would be seen, whoever catches the exception.
    *(_at(observer.CallTelemetry, name, harmless=True) for name in ("sending", "progress", "finish")),
    *(_at(spans._Own, name, harmless=True) for name in ("__init__", "sending", "finish")),
    *(_at(metrics.CallMetrics, name, harmless=True) for name in ("begin", "finish")),
    _at(logs.CallLog, "emit", harmless=True),
    Fault("shield.LOGGER", _mute),
]


# ------------------------------------------------------------------------------------------------ runs


@dataclass
class Outcome:
    """All that a program, its user and the endpoint can see of a run."""

    result: object = None
    sent: list[tuple[object, ...]] = field(default_factory=list)
    output: Sequence[str] = ("", "")
    logs: list[tuple[str, str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unraisable: list[str] = field(default_factory=list)


class Raised(tuple[object, ...]):
    """An exception as a program sees it: type, text, and the types of its cause and context, and of theirs."""

    __slots__ = ()


def raised(error: BaseException | None) -> object:
    """``error`` as something to compare."""
    return error and Raised((type(error), str(error), *_chain(error)))


def _chain(error: BaseException | None) -> tuple[object, ...]:
    if error is None:
        return ()
    return type(error), error.__suppress_context__, _chain(error.__cause__), _chain(error.__context__)


class _LogList(logging.Handler):
    """Everything that a program's own handler would get."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.seen: list[tuple[str, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append((record.name, record.levelname, re.sub(r"0x[0-9a-f]+", "0x", record.getMessage())))


def _sent(received: Received) -> tuple[object, ...]:
    """A request as compared; a Digest answer differs at each."""
    hidden = {"authorization": lambda value: value.split(" ")[0]}
    named = [(name, hidden.get(name.lower(), str)(value)) for name, value in received.headers]
    return received.method, received.target, named, received.body


class Counts(Counter[str]):
    """What was run, for the summary of the session."""


COUNTS = Counts()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says how much was run."""
    if COUNTS:
        runs = ", ".join(f"{number} {name}" for name, number in COUNTS.items())
        terminalreporter.write_line(f"transparency: {runs}; {len(FAULTS)} faults")


class Transparency:
    """Runs a program with msgtap and without, and with each of its faults, and compares.

    Args:
        name: of the test, which decides on its faults.
        row: the client.
        watcher: what observes, beside the list of records.
        memory: what it has written.
        capture: pytest's, of what is written to the file descriptors.

    Attributes:
        endpoint: where the program calls, at ``path``; or at ``url``, if there is one.
        options: of the client.
        spans: those of the run with msgtap and no fault.
    """

    def __init__(
        self, name: str, row: Row, watcher: Watcher, memory: Memory, capture: pytest.CaptureFixture[str]
    ) -> None:
        self._name = name
        self._row = row
        self._watcher = watcher
        self._memory = memory
        self._capture = capture
        self._respond: Respond = answering()
        self.endpoint = Endpoint(respond=lambda received: self._respond(received))  # noqa: PLW0108  # it changes
        self.path = "/v1/messages"
        self.url: str | None = None
        self._unordered = False
        self.options: dict[str, Any] = {}
        self.spans: tuple[ReadableSpan, ...] = ()

    def __call__(
        self,
        program: Program,
        replies: Sequence[Reply] | Respond,
        expected: Sequence[dict[str, object]],
        *,
        unordered: bool = False,
        sends: bool = True,
        faults: bool = True,
    ) -> list[CallRecord]:
        """Run ``program`` against an endpoint that gives ``replies``; with msgtap it makes the ``expected`` records.

        Args:
            program: gets a `Session` and returns whatever is to be compared.
            replies: in order; the last again and again. Or what makes them.
            expected: for each record the facts to look at, by attribute.
            unordered: whether requests and records come in any order.
            sends: whether the endpoint hears of a request, though perhaps later than the program of its end.
            faults: whether to run it with faults, too.

        Returns:
            The records.
        """
        self._unordered = unordered
        COUNTS["scenarios"] += 1
        with self.endpoint if self.url is None else contextlib.nullcontext(), _only_what_is_new_is_collected():
            url = self.url or self.endpoint.url + self.path
            with self._row.pristine():
                plain = self._run(program, replies, url, 1 if expected and sends and self.url is None else 0)
            requests = len(plain.sent)
            if EVERY:  # wrapped, and switched off
                assert plain == self._run(program, replies, url, requests)
            self._memory._spans.clear()
            with self._watching(self._watcher) as calls:
                seen = self._run(program, replies, url, requests)
            self.spans = self._memory.spans
            assert plain == seen
            assert_records(expected, calls, unordered=unordered)
            for fault in self._faults() if faults else ():
                shield._logged.clear()
                with contextlib.ExitStack() as stack, self._watching(fault.inject(stack, self._watcher)) as records:
                    seen = self._run(program, replies, url, requests)
                tap._open.clear()
                COUNTS["runs with a fault"] += 1
                self._compare(fault, plain, seen)
                if fault.harmless:
                    assert_records(expected, records, unordered=unordered)
                elif fault.name != "_Step._take":  # without it a redirect is an answer
                    assert len(expected) >= len(records), fault.name
        return list(calls)

    def _faults(self) -> list[Fault]:
        first = zlib.crc32(self._name.encode())
        return FAULTS if EVERY else [FAULTS[(first + number * 7) % len(FAULTS)] for number in range(FEW)]

    def _compare(self, fault: Fault, plain: Outcome, seen: Outcome) -> None:
        """With a fault there is one thing more to be seen: msgtap's own warning in the program's log."""
        said = [log for log in seen.logs if log[0] == shield.LOGGER.name]
        seen.logs = [log for log in seen.logs if log not in said]
        assert (fault.name, plain) == (fault.name, seen)
        assert {"WARNING"} >= {level for _, level, _ in said}, fault.name

    def failures(self, fault: Fault, program: Program, replies: Sequence[Reply]) -> int:
        """How often ``fault`` strikes while ``program`` runs."""
        before = shield.counts().get("internal_error", 0)
        with (
            self.endpoint,
            _only_what_is_new_is_collected(),
            contextlib.ExitStack() as stack,
            self._watching(fault.inject(stack, self._watcher)),
        ):
            self._run(program, replies, f"{self.endpoint.url}{self.path}", 0)
        tap._open.clear()
        return shield.counts().get("internal_error", 0) - before

    @contextlib.contextmanager
    def _watching(self, watcher: Watcher) -> Iterator[list[CallRecord]]:
        tap.activate(watcher)
        try:
            with capture_calls() as calls:
                yield calls
                tap.drain()
        finally:
            tap.activate(None)

    def _run(self, program: Program, replies: Sequence[Reply] | Respond, url: str, requests: int) -> Outcome:
        if callable(replies):
            self._respond = replies
        else:
            script = itertools.chain(replies, itertools.repeat(replies[-1]))
            self._respond = lambda _: next(script)
        received = self.endpoint.received
        received.clear()
        COUNTS["runs"] += 1
        outcome, handler = Outcome(), _LogList()
        root, before = logging.getLogger(), logging.getLogger().level

        async def careful(session: Session) -> object:
            try:
                return await program(session)
            except Exception as error:  # noqa: BLE001
                return raised(error)

        try:
            root.setLevel(logging.INFO)
            with (
                patch.object(root, "handlers", [handler]),
                warnings.catch_warnings(record=True) as caught,
                patch.object(sys, "unraisablehook", lambda it: outcome.unraisable.append(repr(it.exc_value))),
            ):
                warnings.simplefilter("always")
                outcome.result = self._row.run(careful, self.endpoint, url, **self.options)
                gc.collect()
        finally:
            root.setLevel(before)
        deadline = time.monotonic() + 5
        while len(received) < requests and time.monotonic() < deadline:
            time.sleep(0.001)
        outcome.sent = [_sent(one) for one in received]
        if self._unordered:
            outcome.sent.sort(key=repr)
            handler.seen.sort()
        outcome.logs = handler.seen
        # trio warns of each async generator that is dropped half-way, of several inside each other once or twice.
        outcome.warnings = sorted({one.category.__name__ for one in caught})
        outcome.output = self._capture.readouterr()
        return outcome


@contextlib.contextmanager
def _only_what_is_new_is_collected() -> Iterator[None]:
    """Each run ends with a collection, which else would take longer than the run."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def assert_records(
    expected: Sequence[dict[str, object]], calls: Sequence[CallRecord], *, unordered: bool = False
) -> None:
    """As many records as expected, each with the expected facts."""
    assert len(expected) == len(calls)
    seen = [{name: look(call, name) for name in facts} for facts, call in zip(expected, calls, strict=True)]
    assert (sorted(map(repr, expected)) if unordered else list(expected)) == (
        sorted(map(repr, seen)) if unordered else seen
    )


def look(call: CallRecord, name: str) -> object:
    """A fact of a record by its dotted name; an ending as its word."""
    value = functools.reduce(getattr, name.split("."), call)
    return str(value) if name == "ending" else value


# ------------------------------------------------------------------------------------------------ fixtures


@pytest.fixture(scope="session")
def memory() -> Memory:
    """What telemetry has written."""
    return Memory()


@pytest.fixture(scope="session")
def watcher(memory: Memory) -> Iterator[Watcher]:
    """Telemetry of all three signals; in force only where a test puts it in force."""
    pipelines = build([memory.exporter], "test", {})
    providers = SimpleNamespace(**{name: getattr(pipelines, name) for name in PROVIDERS})
    msgtap.instrument(**vars(providers))
    made = tap.watcher()
    msgtap.uninstrument()
    assert made is not None
    yield made
    for provider in vars(providers).values():
        provider.shutdown()


PROVIDERS = ("tracer_provider", "meter_provider", "logger_provider")


def pytest_configure(config: pytest.Config) -> None:
    """Makes the mark known."""
    config.addinivalue_line("markers", "rows(**facts): which clients a test is for, by the attributes of `Row`")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test gets every row, or those of the client that its module is named for; and every content coding."""
    if "coding" in metafunc.fixturenames:
        metafunc.parametrize("coding", [Coding(name) for name in CODINGS], ids=list(CODINGS))
    if "row" not in metafunc.fixturenames:
        return
    module = metafunc.module.__name__.rpartition(".")[2]
    rows = [row for row in ROWS if not module.startswith("test_httpx") or row in HTTPX_ROWS]
    for mark in metafunc.definition.iter_markers("rows"):
        rows = [row for row in rows if all(getattr(row, name) in values for name, values in mark.kwargs.items())]
    metafunc.parametrize("row", rows, ids=[row.name for row in rows])


@pytest.fixture(autouse=True)
def _adapters() -> Iterator[None]:
    install_adapters()
    yield
    assert tap.watcher() is None
    assert set() == tap._open


@pytest.fixture
def faults() -> list[Fault]:
    """The whole table."""
    return FAULTS


@pytest.fixture
def transparent(
    request: pytest.FixtureRequest, row: Row, watcher: Watcher, memory: Memory, capfd: pytest.CaptureFixture[str]
) -> Transparency:
    """Runs a program with msgtap and without, and with its faults."""
    return Transparency(request.node.name, row, watcher, memory, capfd)
