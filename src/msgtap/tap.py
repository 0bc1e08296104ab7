"""The imperative shell around one exchange: it reads the clock, tells the observers, and closes once.

What is open stands in one set. Whoever takes a tap out of it closes the call, so a body that ends three ways is one
record, a child process that forgets the set emits nothing of its parent's, and at exit the rest is closed.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Protocol

from msgspec import Struct, structs

from msgtap.correlation import Defaults, Identifiers, correlate, plain
from msgtap.exchange import Exchange
from msgtap.record import NO_RESPONSE, CallRecord, CallStart, Ending, MessageRequest, MessageResponse
from msgtap.shield import attempt, failed, shielded
from msgtap.wire import headers
from msgtap.wire.endpoint import EndpointTable
from msgtap.wire.request import Claims, read_request

Processor = Callable[[CallRecord], CallRecord | None]
"""Changes a finished record, or drops it by returning `None`."""


class Observation(Protocol):
    """One observer's view of one call."""

    def sending(self) -> object:
        """The request is about to be sent, on this thread and in this context. What it returns comes back in `sent`."""

    def sent(self, token: object) -> None:
        """The response's head is there, or there will be none; same thread, and nearly always the same context."""

    def progress(self, response: MessageResponse) -> None:
        """More is known of the answer."""

    def finish(self, record: CallRecord | None) -> None:
        """The call is over; `None` where there is nothing to show, because a processor dropped it, say."""


class Observer(Protocol):
    """Whoever wants to know of calls."""

    def begin(self, start: CallStart) -> Observation | None:
        """A call begins; `None` if this one is of no interest."""


class Watcher(Struct, frozen=True, kw_only=True):
    """What is watched for, and who is told: the configuration in force."""

    endpoints: EndpointTable
    observers: tuple[Observer, ...]
    processors: tuple[Processor, ...] = ()
    defaults: Defaults = Defaults()
    identifiers: Identifiers = plain
    alone: bool = False
    """Whether `observe_always` has nobody to add: what it would tell them, these observers are told already."""


_watcher: Watcher | None = None
"""What is in force: the program's, with whom `observe_always` adds, or else the standing one."""
_chosen: Watcher | None = None
_standing: Watcher | None = None
_beside: tuple[Observer, ...] = ()
_open: set[Tap] = set()
Key = tuple[str, int, str]
"""Host, port and target. A request for the same while one is being sent is that one, in a layer below."""
_sending: ContextVar[Tap | None] = ContextVar("msgtap_sending", default=None)
# Taps whose response was garbage-collected. That can happen inside any lock, OpenTelemetry's own included, so nothing
# is emitted there; the next call, `flush()` or the exit does it.
_dropped: deque[Tap] = deque()


def activate(watcher: Watcher | None) -> None:
    """Put ``watcher`` in force for all calls from now on; `None` lets them pass straight through."""
    global _watcher, _chosen  # noqa: PLW0603  # the one switch; wrappers stay installed and look here
    _chosen = watcher
    _watcher = _in_force()


def observe_always(standing: Watcher | None, beside: tuple[Observer, ...] = ()) -> None:
    """Have ``standing`` in force wherever the program has nothing in force, and tell ``beside`` too where it has.

    This is for whoever observes a program from outside: what the program switches on or off does not concern it.
    """
    global _watcher, _standing, _beside  # noqa: PLW0603  # as above
    _standing, _beside = standing, beside
    _watcher = _in_force()


def _in_force() -> Watcher | None:
    if _chosen is None or _chosen.alone or not _beside:
        return _chosen or _standing
    return structs.replace(_chosen, observers=(*_chosen.observers, *_beside))


def watcher() -> Watcher | None:
    """What was put in force by `activate`."""
    return _chosen


def wanted(method: str) -> bool:
    """Whether a request with this method may be one of ours: the first look, at any request of the program."""
    return _watcher is not None and method == "POST"


def candidate(target: bytes) -> bool:
    """Whether a request for ``target`` (path and query, as sent) may be one of ours: the second look."""
    return _watcher is not None and _watcher.endpoints.candidate(target)


def watch(client: str, *, host: str, port: int, target: str, pairs: headers.Pairs, body: bytes | None) -> Tap | None:
    """Begin to observe a request for ``target`` (path and query), unless it is none of ours or nobody wants to know.

    Args:
        client: name of the HTTP client, for the record.
        host: of the URL, in lower case.
        port: of the URL, or its scheme's.
        target: path and query.
        pairs: the request's headers.
        body: the request's body, or `None` where it cannot be seen without consuming it.
    """
    current, outer, key = _watcher, _sending.get(), (host, port, target)
    endpoint = current.endpoints.match(host, port, target) if current else None
    if current is None or endpoint is None or (outer is not None and outer.sending and outer.key == key):
        return None
    drain()
    now, wall = time.perf_counter_ns(), time.time_ns()
    selected = headers.select(pairs, headers.REQUEST)
    request, claims = read_request(body) if body else (MessageRequest(), Claims())
    start = CallStart(
        client=client,
        provider=endpoint.provider,
        server_address=host,
        server_port=port,
        started_at=wall,
        request=request,
        correlation=correlate(claims, selected, current.defaults, current.identifiers),
        betas=headers.read_betas(selected),
        attempt=headers.read_attempt(selected),
    )
    begun = (attempt(observer.begin, start) for observer in current.observers)
    observations = [observation for observation in begun if observation is not None]
    return Tap(key, Exchange(start, now), observations, current.processors) if observations else None


class Tap:
    """One call being observed. As a context manager it spans the sending of the request.

    No method raises into the program. Entering and leaving belong to one thread; everything else may be called from
    any, in any order, any number of times.
    """

    __slots__ = (
        "_exchange",
        "_in_flight",
        "_known",
        "_live",
        "_observations",
        "_outer",
        "_processors",
        "_tokens",
        "key",
        "sending",
    )

    def __init__(
        self, key: Key, exchange: Exchange, observations: Sequence[Observation], processors: Sequence[Processor]
    ) -> None:
        self.key = key
        self.sending = False
        self._outer: Tap | None = None
        self._exchange = exchange
        self._observations = observations
        self._processors = processors
        self._known = NO_RESPONSE
        self._tokens: list[object] = []
        # An exception that the program is already handling is not what ends this call.
        self._in_flight = id(sys.exception())
        self._live = True
        _at_exit()
        _open.add(self)

    def __enter__(self) -> None:
        self._outer = _sending.get()
        _sending.set(self)
        self.sending = True
        self._tokens = [attempt(observation.sending) for observation in self._observations]

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if _sending.get() is self:  # not so where the garbage collector closes a coroutine in another context
            _sending.set(self._outer)
        self.sending = False  # a task that was started meanwhile keeps a copy of this context
        for observation, token in zip(self._observations, self._tokens, strict=True):
            attempt(observation.sent, token)
        if error is not None:
            self.fail(error)

    @shielded
    def headers(self, status: int, pairs: headers.Pairs, *, decoded: bool = False) -> None:
        """The head of the response has come; ``decoded`` if the chunks come with their content coding undone."""
        selected = headers.select(pairs, headers.RESPONSE)
        if decoded:
            selected.pop("content-encoding", None)
        self._exchange.receive_headers(status, selected, time.perf_counter_ns())

    @shielded
    def chunk(self, data: bytes) -> None:
        """A chunk of the body is about to be given to the program."""
        if not self._live:
            return
        exchange = self._exchange
        if not exchange.receive_data(data, time.perf_counter_ns()):
            return
        if exchange.complete:
            self.finish(Ending.COMPLETE)
        elif exchange.response is not self._known:
            self._known = exchange.response
            for observation in self._observations:
                attempt(observation.progress, self._known)

    @shielded
    def complete(self) -> None:
        """The body has been read to its end."""
        self.finish(Ending.COMPLETE)

    @shielded
    def fail(self, error: BaseException) -> None:
        """Sending, or reading the body, raised ``error``."""
        if isinstance(error, GeneratorExit):  # a coroutine was dropped, perhaps by the garbage collector
            self.drop()
        else:
            ending = Ending.FAILED if isinstance(error, Exception) else Ending.CANCELLED
            self.finish(ending, f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."))

    @shielded
    def close(self) -> None:
        """The program has closed the body, read or not; it may be on its way out because it was cancelled."""
        error = sys.exception()
        leaving = (
            error is not None and id(error) != self._in_flight and not isinstance(error, (Exception, GeneratorExit))
        )
        self.finish(Ending.CANCELLED if leaving else Ending.CLOSED)

    def drop(self) -> None:
        """The response was garbage-collected, perhaps inside somebody's lock: only remember it."""
        if self._live:
            _dropped.append(self)

    @shielded
    def finish(self, ending: Ending, failure: str | None = None) -> None:
        """The call is over as ``ending`` says, unless it was before; ``failure`` is the name of an exception."""
        self._live = False
        try:
            _open.remove(self)
        except KeyError:  # somebody else was first, or this is a child process and the call its parent's
            return
        record = attempt(self._exchange.close, ending, time.perf_counter_ns(), failure)
        for processor in self._processors:
            record = _processed(processor, record) if record else None
        for observation in self._observations:
            attempt(observation.finish, record)


def _processed(processor: Processor, record: CallRecord) -> CallRecord | None:
    """What ``processor`` makes of ``record``; one that raises, or makes something else, changes nothing."""
    result = attempt(processor, record, default=record)
    if result is None or type(result) is CallRecord:
        return result
    failed(getattr(processor, "__qualname__", repr(type(processor))), TypeError("neither a CallRecord nor None"))
    return record


@shielded
def drain() -> None:
    """Close the calls whose responses were garbage-collected."""
    while _dropped:
        try:
            tap = _dropped.popleft()
        except IndexError:  # another thread was faster
            return
        tap.finish(Ending.CLOSED)


@shielded
def close_all() -> None:
    """Close every open call: the process is about to end."""
    drain()
    for tap in list(_open):
        tap.finish(Ending.EXIT)


@functools.cache
def _at_exit() -> None:
    """Have `close_all` run at exit, once.

    Exit handlers run last in, first out: registered at the first call, not at import, it comes before the shutdown of
    any provider that was there by then.
    """
    atexit.register(close_all)


def _forget() -> None:
    """In a child process: what is open is its parent's to report."""
    _open.clear()
    _dropped.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
