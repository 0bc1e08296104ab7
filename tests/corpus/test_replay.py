"""Recorded traffic, replayed to real clients over real sockets, and compared with what an independent reader found."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import anthropic
import httpx
import httpx2
import pytest

from msgtap.record import CallRecord, Ending
from msgtap.testing import capture_calls
from msgtap.wire.endpoint import EndpointTable

if TYPE_CHECKING:
    from tests.corpus.conftest import Replay, Row, Tally

Facts: TypeAlias = dict[str, object]
Drive: TypeAlias = Callable[["Replay", "Sequence[Row]", str], dict[str, bytes]]
"""Sends the requests of all rows, to be answered in that way; what the client got, by row."""

WORKERS = 8
OPTIONS: dict[str, Any] = {"timeout": 30, "trust_env": False}

# (row, fact) -> why it is not as the table of expected facts has it. None of these rows is real traffic.
EXCEPTIONS = {
    (
        "anthropic-sdk-python-d779175487dd",
        "output_tokens",
    ): "a stream without message_delta has message_start's placeholder only",
}

# The SDK's advice to the program about old models.
quiet = pytest.mark.filterwarnings("ignore:The model '", "ignore:Using Claude with")


def expected_facts(row: Row) -> Facts:
    """What `seen_facts` has to be."""
    expected, request = row.expected, json.loads(row.request or "{}")
    tools = expected["server_tool_use"] or {}
    same = (
        *("request_model", "response_model", "message_id", "stop_reason", "stop_sequence"),
        *("input_tokens", "cache_read", "cache_creation", "cache_5m", "cache_1h", "output_tokens"),
        *("service_tier", "inference_geo", "error_type", "http_status", "stream"),
    )
    return {
        **{name: expected[name] for name in same},
        "ending": Ending.COMPLETE,
        "asked_to_stream": bool(expected["request_stream_flag"]),
        "web_search_requests": tools.get("web_search_requests"),
        "web_fetch_requests": tools.get("web_fetch_requests"),
        "usage_iterations": tuple(map(_iteration, expected["usage_iterations"] or ())),
        "content_block_types": tuple(expected["content_block_types"] or ()),
        "max_tokens": request.get("max_tokens"),
        "messages": len(request["messages"]) if "messages" in request else None,
        "tools": len(request["tools"]) if "tools" in request else None,
        "user_id": request.get("metadata", {}).get("user_id"),
        "request_id": row.header("request-id"),
        "betas": row.betas,
        "retry_after": _number(row.header("retry-after")),
    }


def _number(value: str | None) -> float | None:
    return float(value) if value else None


def _iteration(wire: dict[str, Any]) -> tuple[object, ...]:
    counts = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return wire["type"], wire.get("model"), *(wire.get(name) for name in counts)


def seen_facts(call: CallRecord) -> Facts:
    """What msgtap says of a call, by the names of the table of expected facts."""
    response, usage = call.response, call.response.usage
    return {
        "request_model": call.request.model,
        "response_model": response.model,
        "message_id": response.id,
        "stop_reason": response.stop_reason,
        "stop_sequence": response.stop_sequence,
        "input_tokens": usage.input_tokens,
        "cache_read": usage.cache_read_tokens,
        "cache_creation": usage.cache_write_tokens,
        "cache_5m": usage.cache_write_5m_tokens,
        "cache_1h": usage.cache_write_1h_tokens,
        "output_tokens": usage.output_tokens,
        "service_tier": usage.service_tier,
        "inference_geo": usage.inference_geo,
        "error_type": call.error_type,
        "http_status": call.status,
        "stream": call.timing.first_event is not None,
        "ending": call.ending,
        "asked_to_stream": call.request.stream,
        "web_search_requests": usage.web_search_requests,
        "web_fetch_requests": usage.web_fetch_requests,
        "usage_iterations": tuple(
            (its.type, its.model, its.input_tokens, its.output_tokens, its.cache_read_tokens, its.cache_write_tokens)
            for its in usage.iterations
        ),
        "content_block_types": response.content,
        "max_tokens": call.request.max_tokens,
        "messages": call.request.messages,
        "tools": call.request.tools,
        "user_id": call.correlation.user_id,
        "request_id": call.headers.request_id,
        "betas": call.betas,
        "retry_after": call.headers.retry_after,
    }


def plain(module: ModuleType) -> Drive:
    """A client of httpx or httpx2 as a program uses it: streams as streams, all else at once."""

    def read(client: Any, replay: Replay, row: Row, way: str) -> bytes:
        asked = {"content": row.request, "headers": replay.headers(row, way)}
        if not row.streamed:
            return bytes(client.post(row.target, **asked).content)
        with client.stream("POST", row.target, **asked) as response:
            return b"".join(response.iter_bytes())

    def drive(replay: Replay, rows: Sequence[Row], way: str) -> dict[str, bytes]:
        with module.Client(base_url=replay.url, **OPTIONS) as client:
            return {row.id: read(client, replay, row, way) for row in rows}

    return drive


def plain_async(module: ModuleType) -> Drive:
    """The same, several at a time."""

    async def read(client: Any, replay: Replay, row: Row, way: str) -> bytes:
        asked = {"content": row.request, "headers": replay.headers(row, way)}
        if not row.streamed:
            return bytes((await client.post(row.target, **asked)).content)
        async with client.stream("POST", row.target, **asked) as response:
            return b"".join([chunk async for chunk in response.aiter_bytes()])

    async def ask(replay: Replay, rows: Sequence[Row], way: str) -> dict[str, bytes]:
        async with module.AsyncClient(base_url=replay.url, **OPTIONS) as client:
            return await _several(rows, lambda row: read(client, replay, row, way))

    return lambda replay, rows, way: asyncio.run(ask(replay, rows, way))


async def _several(rows: Sequence[Row], read: Callable[[Row], Awaitable[bytes]]) -> dict[str, bytes]:
    remaining, got = iter(rows), {}

    async def work() -> None:
        for row in remaining:
            got[row.id] = await read(row)

    await asyncio.gather(*(work() for _ in range(WORKERS)))
    return got


def _arguments(client: Any, replay: Replay, row: Row, way: str) -> tuple[Any, dict[str, Any]]:
    """The resource of the SDK that the row's request was sent to, and the arguments that make it send the same body."""
    body, headers = json.loads(row.request), replay.headers(row, way)
    prefix = row.target.partition("/v1/messages")[0]
    client = client.with_options(base_url=replay.url + prefix) if prefix else client
    beta = row.target.endswith("?beta=true")
    messages = (client.beta if beta else client).messages
    known = inspect.signature(type(messages).create).parameters
    kept = ("anthropic-beta", *replay.headers_of_ours)
    return messages, {
        **{name: value for name, value in body.items() if name in known},
        "extra_body": {name: value for name, value in body.items() if name not in known},
        "extra_headers": {name: value for name, value in headers.items() if name.lower() in kept},
        "extra_query": {"beta": "true"} if beta else {},
    }


def sdk(replay: Replay, rows: Sequence[Row], way: str) -> dict[str, bytes]:
    """The Anthropic SDK, asked for its raw responses, so that there are bytes to compare."""

    def read(row: Row) -> bytes:
        messages, arguments = _arguments(client, replay, row, way)
        try:
            response = messages.with_raw_response.create(**arguments)
        except anthropic.APIStatusError as error:
            return error.response.content
        return b"".join(response.iter_bytes()) if row.streamed else bytes(response.read())

    with anthropic.Anthropic(api_key="k", base_url=replay.url, max_retries=0, timeout=30) as client:
        return {row.id: read(row) for row in rows}


def sdk_async(replay: Replay, rows: Sequence[Row], way: str) -> dict[str, bytes]:
    """The same, several at a time."""

    async def read(client: Any, row: Row) -> bytes:
        messages, arguments = _arguments(client, replay, row, way)
        try:
            response = await messages.with_raw_response.create(**arguments)
        except anthropic.APIStatusError as error:
            return error.response.content
        if row.streamed:
            return b"".join([chunk async for chunk in response.iter_bytes()])
        return bytes(await response.read())

    async def ask() -> dict[str, bytes]:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=replay.url, max_retries=0, timeout=30) as client:
            return await _several(rows, lambda row: read(client, row))

    return asyncio.run(ask())


CLIENTS: dict[str, Drive] = {
    "httpx2": plain(httpx2),
    "httpx2 async": plain_async(httpx2),
    "httpx": plain(httpx),
    "httpx async": plain_async(httpx),
    "SDK": sdk,
    "SDK async": sdk_async,
}


def disagreements(drive: Drive, replay: Replay, rows: Sequence[Row], way: str = "by_events") -> list[str]:
    """What a client got and msgtap saw of each row, where it is not as it should be."""
    with capture_calls() as calls:
        got = drive(replay, rows, way)
    assert {row.id: 1 for row in rows} == Counter(call.correlation.session_id for call in calls)
    seen = {call.correlation.session_id: seen_facts(call) for call in calls}
    received = replay.received()
    found = []
    for row in rows:
        pairs = {name: (fact, seen[row.id][name]) for name, fact in expected_facts(row).items()}
        pairs["body"] = (replay.body(row, way), got[row.id])
        pairs["target"] = (row.target, received[row.id].target)
        pairs["request"] = (json.loads(row.request or "{}"), json.loads(received[row.id].body or "{}"))
        found += compare(row, pairs)
    return found


def compare(row: Row, pairs: dict[str, tuple[object, object]]) -> list[str]:
    """The pairs that are not equal and should be, or are and should not be."""
    differing = {name for name, (expected, found) in pairs.items() if expected != found}
    excepted = {name for name in pairs if (row.id, name) in EXCEPTIONS}
    return [
        *(f"{row.id} {name}: expected %.300r, found %.300r" % pairs[name] for name in sorted(differing - excepted)),
        *(f"{row.id} {name}: agrees now; strike it from EXCEPTIONS" for name in sorted(excepted - differing)),
    ]


def settle(tally: Tally, what: str, rows: Sequence[Row], found: list[str]) -> None:
    """Note the numbers, and fail with all that was found."""
    disagreeing = {line.partition(" ")[0] for line in found}
    tally.add(what, len(rows), len(rows) - len(disagreeing))
    if found:
        pytest.fail("\n".join(found), pytrace=False)


@quiet
@pytest.mark.parametrize("client", CLIENTS)
def test_recorded_rows_agree(client: str, recorded: list[Row], replay: Replay, tally: Tally) -> None:
    """Every recorded reply gives the expected facts, in one record, and the client gets its very bytes."""
    settle(tally, client, recorded, disagreements(CLIENTS[client], replay, recorded))


@quiet
@pytest.mark.parametrize("way", ["by_chance", "with_crlf"])
@pytest.mark.parametrize("client", CLIENTS)
def test_recorded_streams_agree_however_cut(
    client: str, way: str, recorded: list[Row], replay: Replay, tally: Tally
) -> None:
    """Every recorded stream gives the same facts where chunks end inside events, characters and line ends."""
    streams = [row for row in recorded if row.streamed]
    settle(tally, f"{client}, streams {way}", streams, disagreements(CLIENTS[client], replay, streams, way))


@pytest.mark.parametrize("client", ["httpx", "httpx2"])
def test_handmade_rows_agree(client: str, handmade: list[Row], replay: Replay, tally: Tally) -> None:
    """So does what somebody wrote by hand, some of it without a request."""
    settle(tally, f"{client}, handmade", handmade, disagreements(CLIENTS[client], replay, handmade))


@quiet
def test_the_sdk_reads_the_same(recorded: list[Row], replay: Replay, tally: Tally) -> None:
    """What the SDK's own parsing and accumulating makes of an answer is what the record says."""
    answers = [row for row in recorded if row.status == 200]
    with (
        capture_calls() as calls,
        anthropic.Anthropic(api_key="k", base_url=replay.url, max_retries=0, timeout=30) as client,
    ):
        messages = [_message(client, replay, row) for row in answers]
    found = []
    for row, message, call in zip(answers, messages, calls, strict=True):
        seen = seen_facts(call)
        found += compare(row, {name: (fact, seen[name]) for name, fact in _sdk_facts(message).items()})
    settle(tally, "SDK, messages", answers, found)


def _message(client: anthropic.Anthropic, replay: Replay, row: Row) -> Any:
    messages, arguments = _arguments(client, replay, row, "by_events")
    if not arguments.pop("stream", False):
        return messages.create(**arguments)
    with messages.stream(**arguments) as stream:
        return stream.get_final_message()


def _sdk_facts(message: Any) -> Facts:
    return {
        "message_id": message.id,
        "response_model": message.model,
        "stop_reason": message.stop_reason,
        "stop_sequence": message.stop_sequence,
        "content_block_types": tuple(block.type for block in message.content),
        "input_tokens": message.usage.input_tokens,
        "cache_read": message.usage.cache_read_input_tokens,
        "cache_creation": message.usage.cache_creation_input_tokens,
        "output_tokens": message.usage.output_tokens,
        "service_tier": message.usage.service_tier,
    }


@pytest.mark.parametrize("client", ["httpx", "httpx2"])
def test_other_kinds_make_no_record(client: str, others: list[Row], replay: Replay, tally: Tally) -> None:
    """Bedrock, Vertex, token counts and legacy completions, sent to their own paths, are none of ours."""
    with capture_calls() as calls:
        got = CLIENTS[client](replay, others, "by_events")
    assert [] == calls
    assert {row.id: replay.body(row, "by_events") for row in others} == got
    received = replay.received()
    assert {row.id: row.target for row in others} == {row.id: received[row.id].target for row in others}
    tally.add(f"{client}, other kinds", len(others), len(others))


def test_recorded_urls_are_told_apart(corpus: list[Row]) -> None:
    """By its host and path as recorded, each request to a Messages endpoint is ours, and no other."""
    table = EndpointTable()
    for row in corpus:
        url = urlsplit(row.url)
        found = table.match(url.hostname or "", url.port or 443, row.target)
        assert (row.id, row.kind == "messages") == (row.id, found is not None)
        assert row.kind != "messages" or table.candidate(row.target.encode())
