"""Every way to read a body, in every content coding: the program reads what it would have read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from msgtap.testing import replies
from msgtap.testing.replies import Answer, Pause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from msgtap.testing.replies import Reply
    from tests.adapters.conftest import Coding, Transparency, Web

ANSWER = Answer(thinking="A window 🪟, nobody hurt.", text="Glass only 🪟: « bris de glace » — no bodily injury 🙂.")
WHOLE: dict[str, object] = {
    "ending": "complete",
    "error_type": None,
    "status": 200,
    "response.model": ANSWER.model,
    "response.content": ("thinking", "text"),
    "response.stop_reason": "end_turn",
    "response.usage.output_tokens": 188,
}


BODIES: dict[str, Callable[[], Reply]] = {
    "json": lambda: replies.message(ANSWER),
    "sse": lambda: replies.stream(ANSWER),
}


async def _post(web: Web) -> object:
    response = await web.post(json={"model": "m", "stream": True})
    return response.content, response.text, web.facts(response)


async def _read(web: Web) -> object:
    async with web.streaming() as response:
        before = web.facts(response)
        first = await web.call(response, "read")
        return before, first, await web.call(response, "read"), response.text, web.facts(response)


async def _send_and_read(web: Web) -> object:
    response = await web.send()
    content = await web.call(response, "read")
    await web.call(response, "close")
    return content, web.facts(response)


async def _iterate_what_was_read(web: Web) -> object:
    async with web.streaming() as response:
        await web.call(response, "read")
        return [chunk async for chunk in web.each(response, "iter_bytes", 100)], web.facts(response)


async def _iterate_twice(web: Web) -> object:
    """The client's own StreamConsumed."""
    async with web.streaming() as response:
        chunks = [chunk async for chunk in web.each(response, "iter_raw")]
        chunks += [chunk async for chunk in web.each(response, "iter_raw")]
    return chunks


async def _read_what_was_iterated(web: Web) -> object:
    async with web.streaming() as response:
        lines = [line async for line in web.each(response, "iter_lines")]
        await web.call(response, "read")
    return lines


async def _iterate_when_closed(web: Web) -> object:
    async with web.streaming() as response:
        chunks = [chunk async for chunk in web.each(response, "iter_raw")]
    response.is_stream_consumed = False
    return chunks, [chunk async for chunk in web.each(response, "iter_raw")]


async def _the_stream_itself(web: Web) -> object:
    async with web.streaming() as response:
        if web.row.is_async:
            return [chunk async for chunk in response.stream], web.facts(response)
        return list(response.stream), web.facts(response)


async def _the_wrong_kind(web: Web) -> object:
    """A sync method on an async response, or the other way round: the client's own RuntimeError."""
    async with web.streaming() as response:
        try:
            if web.row.is_async:
                response.read()
            else:
                await response.aread()
        except RuntimeError as error:
            return str(error), await web.call(response, "read")
    return None


def _listed(way: str, *args: int) -> Callable[[Web], Awaitable[object]]:
    async def program(web: Web) -> object:
        async with web.streaming() as response:
            items: list[Any] = []
            async for item in web.each(response, way, *args):
                items.append((item, response.num_bytes_downloaded, response.is_closed))  # noqa: PERF401
        return items, web.facts(response)

    return program


WAYS: dict[str, Callable[[Web], Awaitable[object]]] = {
    "post": _post,
    "read": _read,
    "send and read": _send_and_read,
    "iter_bytes": _listed("iter_bytes"),
    "iter_bytes 100": _listed("iter_bytes", 100),
    "iter_raw": _listed("iter_raw"),
    "iter_raw 100": _listed("iter_raw", 100),
    "iter_text": _listed("iter_text"),
    "iter_text 7": _listed("iter_text", 7),
    "iter_lines": _listed("iter_lines"),
    "iterate what was read": _iterate_what_was_read,
}
ODD_WAYS: dict[str, Callable[[Web], Awaitable[object]]] = {
    "iterate twice": _iterate_twice,
    "read what was iterated": _read_what_was_iterated,
    "iterate when closed": _iterate_when_closed,
    "the stream itself": _the_stream_itself,
    "the wrong kind": _the_wrong_kind,
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("way", WAYS)
def test_reading(transparent: Transparency, way: str, body: str, coding: Coding) -> None:
    """However a body is read and coded: same values, chunks and attributes, and one record of the whole answer."""
    transparent(WAYS[way], [coding(BODIES[body]())], [WHOLE])


@pytest.mark.parametrize("way", ODD_WAYS)
def test_reading_wrongly(transparent: Transparency, way: str) -> None:
    """However a body is read that cannot be: the client's own exception, and one record of what was read."""
    transparent(ODD_WAYS[way], [replies.message(ANSWER)], [WHOLE])


@pytest.mark.parametrize("framing", ["length", "close"])
@pytest.mark.parametrize("body", BODIES)
def test_framing(transparent: Transparency, body: str, framing: replies.Framing) -> None:
    """A body whose end is its length, or the connection's, is read as before."""
    transparent(_read, [replace(BODIES[body](), framing=framing)], [WHOLE])


@pytest.mark.parametrize("size", [53, 400])
@pytest.mark.parametrize("way", ["iter_raw", "iter_text", "iter_lines"])
def test_wire_chunks(transparent: Transparency, way: str, size: int) -> None:
    """Chunks that cut events and characters in two, and come late, keep their boundaries."""
    data = b"".join(replies.events(ANSWER))
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    paced = tuple(step for piece in pieces for step in ((Pause(0.001), piece) if size > 100 else (piece,)))
    transparent(WAYS[way], [replace(replies.stream(ANSWER), body=paced)], [WHOLE])


@pytest.mark.rows(client=["httpx2"])
def test_event_source(transparent: Transparency) -> None:
    """httpx2 reads server-sent events by itself."""

    async def program(web: Web) -> object:
        asked = {"method": "POST", "json": {"model": "m", "stream": True}}
        if web.row.is_async:
            async with web.client.sse(web.url, **asked) as events:
                return [(event.event, event.data) async for event in events]
        with web.client.sse(web.url, **asked) as events:
            return [(event.event, event.data) for event in events]

    transparent(program, [replies.stream(ANSWER)], [WHOLE])


def test_stream_read_at_once_has_its_times(transparent: Transparency) -> None:
    """A stream that the client reads for the program still has the times of its events and chunks."""
    (call,) = transparent(_post, [replies.stream(ANSWER, pace=0.002)], [WHOLE], faults=False)
    timing = call.timing
    assert timing.headers is not None
    assert timing.first_event is not None
    assert timing.first_thinking is not None
    assert timing.first_answer is not None
    assert timing.last_chunk is not None
    assert timing.headers < timing.first_event < timing.first_thinking < timing.first_answer < timing.last_chunk


def test_a_body_in_pieces_larger_than_any_limit(transparent: Transparency) -> None:
    """A whole body past what msgtap keeps reaches the program unchanged; the record lacks what was not kept."""
    big = replace(replies.message(), body=(b'{"id":"', *[b"x" * 1024 * 1024] * 17, b'"}'))

    async def program(web: Web) -> object:
        response = await web.post()
        return len(response.content), hash(response.content)

    transparent(program, [big], [{"ending": "complete", "status": 200, "response.id": None}], faults=False)
