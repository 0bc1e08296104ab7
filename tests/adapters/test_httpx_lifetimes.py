"""Responses, generators and coroutines of httpx and httpx2 that are dropped, or closed by somebody else."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import msgtap
from msgtap import tap
from msgtap.testing import capture_calls, replies
from msgtap.testing.endpoint import Endpoint
from msgtap.testing.replies import HANG

if TYPE_CHECKING:
    from collections.abc import Generator

    from msgtap.tap import Watcher
    from tests.adapters.conftest import HttpxRow, Program, Transparency, Web

CLOSED: dict[str, object] = {"ending": "closed", "error_type": None, "status": 200}
half_way = pytest.mark.filterwarnings("ignore:Async generator .* was garbage collected:ResourceWarning")


# ------------------------------------------------------------------------------------------------ generators


async def _drop_lines(web: Web) -> object:
    """The generator is dropped half-way, then the response is read on."""
    async with web.streaming() as response:
        lines = web.each(response, "iter_lines")
        first = [await anext(lines), await anext(lines)]
        del lines
        await web.tasks.settle()
        try:
            await web.call(response, "read")
        except Exception as error:  # noqa: BLE001
            return first, type(error), web.facts(response)
    return first


async def _break(web: Web) -> object:
    """The loop is left half-way."""
    async with web.streaming() as response:
        async for chunk in web.each(response, "iter_bytes"):
            first = chunk
            break
        facts = web.facts(response)
    return first, facts, web.facts(response)


async def _drop_both(web: Web) -> object:
    response = await web.send()
    lines = web.each(response, "iter_lines")
    first = await anext(lines)
    del response, lines
    await web.tasks.settle()
    return first


async def _close_unread_twice(web: Web) -> object:
    response = await web.send()
    await web.call(response, "close")
    await web.call(response, "close")
    return web.facts(response)


async def _raise_in_the_block(web: Web) -> object:
    async with web.streaming() as response:
        async for _ in web.each(response, "iter_raw"):
            raise LookupError(response.status_code)
    return None


ABANDONED: dict[str, Program] = {
    "lines dropped": _drop_lines,
    "loop left": _break,
    "both dropped": _drop_both,
    "closed twice": _close_unread_twice,
    "exception in the block": _raise_in_the_block,
}


@pytest.mark.parametrize("name", ABANDONED)
def test_abandoned(transparent: Transparency, name: str) -> None:
    """A program that loses interest sees what it would have seen, and its call is closed."""
    transparent(ABANDONED[name], [replies.stream()], [CLOSED])


# ------------------------------------------------------------------------------------------------ reference counts


async def _whole(web: Web) -> Any:
    return await web.post()


async def _read(web: Web) -> Any:
    response = await web.send()
    await web.call(response, "read")
    return response


async def _closed(web: Web) -> Any:
    response = await web.send()
    await web.call(response, "close")
    return response


async def _unread(web: Web) -> Any:
    return await web.send()


async def _begun(web: Web) -> Any:
    response = await web.send()
    await anext(web.each(response, "iter_raw"))
    return response


@pytest.mark.parametrize("make", [_whole, _read, _closed, _unread, _begun])
def test_a_response_dies_when_it_did(transparent: Transparency, make: Any) -> None:
    """A response dies by its reference count where it would have, and by the collector where not."""

    async def program(web: Web) -> object:
        gc.collect()
        gc.disable()
        try:
            reference = weakref.ref(await make(web))
            return reference() is None
        finally:
            gc.enable()

    answer = replies.message() if make is _whole else replies.stream()
    transparent(program, [answer], [{"status": 200, "error_type": None}])


# ------------------------------------------------------------------------------------------------ coroutines


@types.coroutine
def _suspended() -> Generator[None]:
    yield


def _hanging(row: HttpxRow) -> Any:
    """A transport that needs no event loop, and never answers."""

    class Transport(row.module.AsyncBaseTransport):  # type: ignore[misc,name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            await _suspended()
            raise AssertionError("nobody goes on with this")

    return Transport()


@pytest.mark.rows(concurrency=["asyncio"])
@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_a_coroutine_that_another_context_closes(
    row: HttpxRow, watcher: Watcher, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """A coroutine that is driven in one context, and closed or collected in another, leaves both alone."""
    client = row.module.AsyncClient(transport=_hanging(row))
    tap.activate(watcher)
    with capture_calls() as calls:
        coroutine: Any = client.post("http://h.test/v1/messages", json={"model": "m"})
        contextvars.Context().run(coroutine.send, None)
        before = dict(contextvars.copy_context())
        if how == "closed":
            coroutine.close()
        del coroutine
        gc.collect()
        assert before == dict(contextvars.copy_context())
        msgtap.flush()
        assert [("closed", None, "m")] == [(call.ending, call.status, call.request.model) for call in calls]
    tap.activate(None)
    assert [] == caplog.records


@pytest.mark.rows(concurrency=["asyncio"])
def test_a_coroutine_that_is_never_awaited(row: HttpxRow) -> None:
    """A call that is made and never awaited is none."""
    client = row.module.AsyncClient(transport=_hanging(row))
    with capture_calls() as calls:
        with pytest.warns(RuntimeWarning, match="was never awaited"):
            client.post("http://h.test/v1/messages", json={"model": "m"})
        assert [] == calls


@pytest.mark.rows(concurrency=["asyncio"])
def test_a_task_that_outlives_the_call_that_began_it(row: HttpxRow) -> None:
    """A task that a transport starts, and that calls by the same client later on, makes a record of its own."""
    module = row.module
    started: list[asyncio.Task[None]] = []

    class Transport(module.AsyncBaseTransport):  # type: ignore[misc,name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            if not started:
                started.append(asyncio.ensure_future(later()))
            return module.Response(200, json={"model": "m"})

    client = module.AsyncClient(transport=Transport())
    over = asyncio.Event()

    async def later() -> None:
        await over.wait()
        await client.post("http://h.test/v1/messages", json={"model": "second"})

    async def main() -> None:
        await client.post("http://h.test/v1/messages", json={"model": "first"})
        over.set()
        await started[0]

    with capture_calls() as calls:
        asyncio.run(main())
    assert ["first", "second"] == [call.request.model for call in calls]


@pytest.mark.rows(concurrency=["asyncio"])
@half_way
def test_a_loop_that_ends_with_a_stream_open(row: HttpxRow) -> None:
    """A stream that nobody has closed when its event loop ends is a call that was closed."""

    async def program(web: Web) -> Any:
        response = await web.send()
        await anext(web.each(response, "iter_raw"))
        return response

    with Endpoint([replies.cut_stream(4, ending=HANG)]) as endpoint, capture_calls() as calls:
        row.run(program, endpoint)
        gc.collect()
        msgtap.flush()
        assert [CLOSED] == [{name: getattr(call, name) for name in CLOSED} for call in calls]


# ------------------------------------------------------------------------------------------------ threads


@pytest.mark.rows(concurrency=["sync"])
def test_one_thread_reads_and_another_closes(row: HttpxRow) -> None:
    """However reading in one thread and closing in another meet, there is one record."""
    read, done = threading.Event(), []

    async def program(web: Web) -> None:
        response = web.client.send(web.client.build_request("POST", web.url, json={"stream": True}), stream=True)

        def reader() -> None:
            try:
                for number, _ in enumerate(response.iter_raw()):
                    if number == 3:
                        read.set()
            except Exception as error:  # noqa: BLE001
                done.append(error)

        thread = threading.Thread(target=reader)
        thread.start()
        read.wait(5)
        response.close()
        thread.join()

    with Endpoint([replies.cut_stream(4, ending=HANG)]) as endpoint, capture_calls() as calls:
        row.run(program, endpoint, read_timeout=0.3)
    assert 1 == len(calls)
    assert calls[0].ending in ("closed", "failed")
    assert 200 == calls[0].status


@pytest.mark.rows(concurrency=["sync"])
def test_thousands_of_dropped_responses(row: HttpxRow) -> None:
    """However many responses are collected before anything else happens, each has its record."""
    module = row.module
    client = module.Client(
        transport=module.MockTransport(lambda _: module.Response(200, content=iter([b"event: ping"])))
    )
    request = client.build_request("POST", "http://h.test/v1/messages", json={"stream": True})
    with capture_calls() as calls:
        responses = [client.send(request, stream=True) for _ in range(3000)]
        del responses
        gc.collect()
        assert [] == calls
        msgtap.flush()
        assert 3000 == len(calls)
