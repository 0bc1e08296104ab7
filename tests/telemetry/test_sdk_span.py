"""The Anthropic SDK opens a span of its own around all attempts of a call: it gets what it lacks, and stays alone."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import pytest
from opentelemetry.trace import SpanKind, StatusCode

import msgtap
from msgtap.testing import replies
from msgtap.testing.endpoint import Endpoint
from msgtap.testing.replies import OpenRouterAnswer, Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from msgtap.telemetry.spans import ExistingSpan
    from msgtap.testing.memory import Memory

SDK_SPAN = "anthropic.messages.create"
ASKED: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "Classify."}],
    "extra_body": {
        "session_id": "s-1",
        "user": "u-7",
        "trace": {"trace_name": "claims", "generation_name": "classify", "tenant": "acme"},
        "temperature": 0.5,
    },
}
CLAIMED = {
    "session.id": "s-1",
    "gen_ai.conversation.id": "s-1",
    "user.id": "u-7",
    "openrouter.trace.trace_name": "claims",
    "openrouter.trace.generation_name": "classify",
    "trace.metadata.tenant": "acme",
    "gen_ai.request.temperature": 0.5,
    "msgtap.client": "httpx2",
}
TOKENS = {
    "gen_ai.usage.input_tokens": 412 + 1500 + 4900,
    "gen_ai.usage.output_tokens": 188,
    "gen_ai.usage.cache_read.input_tokens": 4900,
    "gen_ai.usage.cache_write.input_tokens": 1500,
}
AT_ONCE = (("retry-after-ms", "1"),)  # the SDK retries without its usual pause


def sdk(endpoint: Endpoint, providers: dict[str, Any], **more: Any) -> anthropic.Anthropic:
    """A client whose spans go where ours do."""
    option = {"tracer_provider": providers["tracer_provider"]}
    return anthropic.Anthropic(api_key="k", base_url=endpoint.url, **{"open_telemetry": option, **more})


def sdk_async(endpoint: Endpoint, providers: dict[str, Any]) -> anthropic.AsyncAnthropic:
    """The same for asyncio."""
    option: Any = {"tracer_provider": providers["tracer_provider"]}
    return anthropic.AsyncAnthropic(api_key="k", base_url=endpoint.url, open_telemetry=option)


def told(span: ReadableSpan, names: Sequence[str] | dict[str, Any]) -> dict[str, Any]:
    """Those attributes of a span, as far as it has them."""
    return {name: (span.attributes or {})[name] for name in names if name in (span.attributes or {})}


def bears_usage(span: ReadableSpan) -> bool:
    """Whether a backend that adds up tokens would count this span."""
    return any(name.startswith("gen_ai.usage.") for name in span.attributes or {})


def whole(client: anthropic.Anthropic) -> None:
    """A message, all at once."""
    client.messages.create(**ASKED)


def beta(client: anthropic.Anthropic) -> None:
    """The beta resource."""
    client.beta.messages.create(**ASKED, betas=["context-1m-2025-08-07"])


def raw_response(client: anthropic.Anthropic) -> None:
    """A raw response, read before the method returns."""
    client.messages.with_raw_response.create(**ASKED).parse()


def lazy_response(client: anthropic.Anthropic) -> None:
    """A response whose body the program reads itself."""
    with client.messages.with_streaming_response.create(**ASKED) as response:
        response.read()


def stream(client: anthropic.Anthropic) -> None:
    """Events, one by one."""
    for _ in client.messages.create(**ASKED, stream=True):
        pass


def stream_helper(client: anthropic.Anthropic) -> None:
    """The helper that accumulates the message."""
    with client.messages.stream(**ASKED) as streamed:
        streamed.until_done()


def stream_raw(client: anthropic.Anthropic) -> None:
    """A raw response of a stream, parsed later."""
    for _ in client.messages.with_raw_response.create(**ASKED, stream=True).parse():
        pass


def stream_bytes(client: anthropic.Anthropic) -> None:
    """A stream whose bytes the program reads itself."""
    with client.messages.with_streaming_response.create(**ASKED, stream=True) as response:
        for _ in response.iter_bytes():
            pass


async def whole_async(client: anthropic.AsyncAnthropic) -> None:
    """A message, all at once."""
    await client.messages.create(**ASKED)


async def stream_async(client: anthropic.AsyncAnthropic) -> None:
    """Events, one by one."""
    async for _ in await client.messages.create(**ASKED, stream=True):
        pass


async def stream_helper_async(client: anthropic.AsyncAnthropic) -> None:
    """The helper that accumulates the message."""
    async with client.messages.stream(**ASKED) as streamed:
        await streamed.until_done()


async def lazy_response_async(client: anthropic.AsyncAnthropic) -> None:
    """A response whose body the program reads itself."""
    async with client.messages.with_streaming_response.create(**ASKED) as response:
        await response.read()


def break_off(client: anthropic.Anthropic) -> None:
    """Leaves the loop at the first text; the SDK closes the response when its block ends."""
    with client.messages.create(**ASKED, stream=True) as streamed:
        for event in streamed:
            if event.type == "content_block_delta":
                break


def close_unread(client: anthropic.Anthropic) -> None:
    """Closes the helper's stream at the first text."""
    with client.messages.stream(**ASKED) as streamed:
        for _ in streamed.text_stream:
            streamed.close()
            break


async def break_off_async(client: anthropic.AsyncAnthropic) -> None:
    """Leaves the loop at the first text."""
    async with await client.messages.create(**ASKED, stream=True) as streamed:
        async for event in streamed:
            if event.type == "content_block_delta":
                break


def enriched(memory: Memory) -> ReadableSpan:
    """The one span, which is the SDK's."""
    (span,) = memory.spans
    assert SDK_SPAN == span.name
    return span


@pytest.mark.parametrize("call", [whole, beta, raw_response, lazy_response], ids=lambda call: call.__name__)
def test_message(call: Callable[[anthropic.Anthropic], None], memory: Memory, providers: dict[str, Any]) -> None:
    """A call that is answered at once has one span: the SDK's, with who asked, the finish reason and the tokens."""
    msgtap.instrument(**providers)
    with Endpoint([replies.message()]) as endpoint, sdk(endpoint, providers) as client:
        call(client)
    span = enriched(memory)
    assert CLAIMED == told(span, CLAIMED)
    assert {"gen_ai.response.finish_reasons": ("stop",), **TOKENS} == told(
        span, ["gen_ai.response.finish_reasons", *TOKENS]
    )


@pytest.mark.parametrize("call", [stream, stream_helper, stream_raw, stream_bytes], ids=lambda call: call.__name__)
def test_stream(call: Callable[[anthropic.Anthropic], None], memory: Memory, providers: dict[str, Any]) -> None:
    """So has a stream that is read to its end, whatever reads it; and it tells all blocks, not just the first."""
    msgtap.instrument(**providers)
    answer = replies.Answer(thinking="A window.", text="Glass.", tool=("classify", {"kind": "glass"}))
    with Endpoint([replies.stream(answer)]) as endpoint, sdk(endpoint, providers) as client:
        call(client)
    span = enriched(memory)
    assert CLAIMED == told(span, CLAIMED)
    expected = {
        "gen_ai.response.finish_reasons": ("tool_call",),
        "anthropic.message.content.types": ("thinking", "text", "tool_use"),
        **TOKENS,
    }
    assert expected == told(span, expected)
    assert {"msgtap.time_to_first_thinking", "msgtap.time_to_first_answer"} <= set(span.attributes or {})


@pytest.mark.parametrize(
    ("call", "reply"),
    [
        (whole_async, replies.message()),
        (lazy_response_async, replies.message()),
        (stream_async, replies.stream()),
        (stream_helper_async, replies.stream()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_async(
    call: Callable[[anthropic.AsyncAnthropic], Awaitable[None]],
    reply: Reply,
    memory: Memory,
    providers: dict[str, Any],
) -> None:
    """The asynchronous client's calls are enriched the same way."""
    msgtap.instrument(**providers)

    async def run() -> None:
        async with sdk_async(endpoint, providers) as client:
            await call(client)

    with Endpoint([reply]) as endpoint:
        asyncio.run(run())
    span = enriched(memory)
    assert CLAIMED == told(span, CLAIMED)
    assert {"gen_ai.response.finish_reasons": ("stop",), **TOKENS} == told(
        span, ["gen_ai.response.finish_reasons", *TOKENS]
    )


@pytest.mark.parametrize("call", [break_off, close_unread], ids=lambda call: call.__name__)
def test_break_off(call: Callable[[anthropic.Anthropic], None], memory: Memory, providers: dict[str, Any]) -> None:
    """A program that stops reading ends the SDK's span before our close(): what passed by then is on it."""
    msgtap.instrument(**providers)
    with Endpoint([replies.stream()]) as endpoint, sdk(endpoint, providers) as client:
        call(client)
    cut_short(memory)


def test_break_off_async(memory: Memory, providers: dict[str, Any]) -> None:
    """The same holds for the asynchronous client."""
    msgtap.instrument(**providers)

    async def run() -> None:
        async with sdk_async(endpoint, providers) as client:
            await break_off_async(client)

    with Endpoint([replies.stream()]) as endpoint:
        asyncio.run(run())
    cut_short(memory)


def cut_short(memory: Memory) -> None:
    """The span says that the answer is not all there, its status does not; the log says who ended it."""
    span = enriched(memory)
    assert CLAIMED == told(span, CLAIMED)
    assert {
        "gen_ai.response.finish_reasons": ("error",),
        "gen_ai.usage.input_tokens": 412 + 1500 + 4900,
    } == told(span, ["gen_ai.response.finish_reasons", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"])
    assert StatusCode.UNSET is span.status.status_code
    assert ["closed"] == [log.log_record.attributes["msgtap.ended"] for log in memory.logs]


RETRIED = [replies.error(529, headers=AT_ONCE), replies.error(529, headers=AT_ONCE), replies.message()]
ATTEMPTS = [("overloaded_error", None), ("overloaded_error", 1), (None, 2)]
"""Error type and resend count of each of the three."""


def points(memory: Memory, name: str) -> list[Any]:
    """The points of a metric."""
    return [
        point
        for resource in (memory.metrics.resource_metrics if memory.metrics else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


def test_retries(memory: Memory, providers: dict[str, Any]) -> None:
    """529, 529, 200: one enriched span that bears the usage, and below it two failed attempts that bear none."""
    msgtap.instrument(**providers)
    with Endpoint(RETRIED) as endpoint, sdk(endpoint, providers) as client:
        whole(client)
    *attempts, span = memory.spans
    assert SDK_SPAN == span.name
    assert ["messages.attempt"] * 2 == [attempt.name for attempt in attempts]
    assert [span.context.span_id] * 2 == [attempt.parent.span_id for attempt in attempts if attempt.parent]
    assert [span] == [one for one in memory.spans if bears_usage(one)]
    assert {**CLAIMED, **TOKENS, "http.request.resend_count": 2} == told(
        span, [*CLAIMED, *TOKENS, "http.request.resend_count", "error.type"]
    )
    for attempt, (error_type, resent) in zip(attempts, ATTEMPTS, strict=False):
        assert StatusCode.ERROR is attempt.status.status_code
        assert SpanKind.CLIENT is attempt.kind
        known = {
            "error.type": error_type,
            "http.response.status_code": 529,
            "http.request.resend_count": resent,
            "gen_ai.request.model": "claude-sonnet-5",
        }
        assert {name: value for name, value in known.items() if value is not None} == told(
            attempt, [*known, "gen_ai.operation.name"]
        )


@pytest.mark.parametrize("policy", ["enrich", "nest", "ignore"])
def test_each_attempt_is_counted(policy: ExistingSpan, memory: Memory, providers: dict[str, Any]) -> None:
    """Whatever becomes of spans: one duration, one log record for each attempt, and each token once."""
    msgtap.instrument(**providers, existing_span=policy)
    with Endpoint(RETRIED) as endpoint, sdk(endpoint, providers) as client:
        whole(client)
    durations = {
        point.attributes.get("error.type"): point.count for point in points(memory, "gen_ai.client.operation.duration")
    }
    assert {"overloaded_error": 2, None: 1} == durations
    usage = {
        point.attributes["gen_ai.token.type"]: (point.count, point.sum)
        for point in points(memory, "gen_ai.client.token.usage")
    }
    assert {"input": (1, 6812), "output": (1, 188)} == usage
    logged = [log.log_record.attributes for log in memory.logs]
    assert ATTEMPTS == [(facts.get("error.type"), facts.get("http.request.resend_count")) for facts in logged]
    assert [None, None, 188] == [facts.get("gen_ai.usage.output_tokens") for facts in logged]
    assert ["s-1"] * 3 == [facts["session.id"] for facts in logged]


def test_nest(memory: Memory, providers: dict[str, Any]) -> None:
    """``nest``: each attempt is a whole span of ours below the SDK's, which is left as it is."""
    msgtap.instrument(**providers, existing_span="nest")
    with Endpoint(RETRIED) as endpoint, sdk(endpoint, providers) as client:
        whole(client)
    *ours, theirs = memory.spans
    assert SDK_SPAN == theirs.name
    assert ["classify"] * 3 == [span.name for span in ours]
    assert [theirs.context.span_id] * 3 == [span.parent.span_id for span in ours if span.parent]
    assert ATTEMPTS == [
        ((span.attributes or {}).get("error.type"), (span.attributes or {}).get("http.request.resend_count"))
        for span in ours
    ]
    assert [CLAIMED] * 3 == [told(span, CLAIMED) for span in ours]
    assert {} == told(theirs, [*CLAIMED, "gen_ai.response.finish_reasons"])


def test_ignore(memory: Memory, providers: dict[str, Any]) -> None:
    """``ignore``: no span of ours, and nothing on the SDK's; where there is none, ours is written."""
    msgtap.instrument(**providers, existing_span="ignore")
    with Endpoint([*RETRIED, replies.message()]) as endpoint:
        with sdk(endpoint, providers) as client:
            whole(client)
        (span,) = memory.spans
        assert SDK_SPAN == span.name
        assert {} == told(span, [*CLAIMED, "gen_ai.response.finish_reasons"])
        with sdk(endpoint, providers, open_telemetry=False) as client:
            whole(client)
    assert [SDK_SPAN, "classify"] == [span.name for span in memory.spans]


FAILURES: list[tuple[str, Reply, str, int | None]] = [
    ("refused", replies.error(400), "invalid_request_error", 400),
    ("unavailable", replies.html_error(503), "503", 503),
    ("silent", replies.silent(replies.CUT), "httpx2.RemoteProtocolError", None),
    ("broken off", replies.cut_stream(), "httpx2.RemoteProtocolError", 200),
    ("truncated", replies.truncated_stream(4), "stream_truncated", 200),
    ("error in a stream", replies.stream_error_after(4), "overloaded_error", 200),
]


@pytest.mark.parametrize(
    ("reply", "error_type", "status"), [case[1:] for case in FAILURES], ids=[case[0] for case in FAILURES]
)
def test_failures(reply: Reply, error_type: str, status: int | None, memory: Memory, providers: dict[str, Any]) -> None:
    """A call that fails for good: the verdict stands on an attempt below the SDK's span, which knows who asked."""
    msgtap.instrument(**providers)
    failing = contextlib.suppress(anthropic.AnthropicError, httpx2.HTTPError)
    with Endpoint([reply]) as endpoint, sdk(endpoint, providers, max_retries=0) as client, failing:
        stream(client)
    attempt, span = memory.spans
    assert ("messages.attempt", SDK_SPAN) == (attempt.name, span.name)
    assert [StatusCode.ERROR] * 2 == [one.status.status_code for one in memory.spans]
    known = {"error.type": error_type, "http.response.status_code": status}
    assert {name: value for name, value in known.items() if value} == told(attempt, known)
    assert CLAIMED == told(span, CLAIMED)
    assert not bears_usage(attempt)
    began = status == 200
    assert began == bears_usage(span)
    assert ({"gen_ai.response.finish_reasons": ("error",)} if began else {}) == told(
        span, ["gen_ai.response.finish_reasons"]
    )


def test_gateway(memory: Memory, providers: dict[str, Any]) -> None:
    """What only the gateway knows is on the SDK's span: the cost as billed, and who served the call."""
    msgtap.instrument(**providers)
    reply = replies.openrouter_message(OpenRouterAnswer(provider="Amazon Bedrock"))
    with Endpoint([reply]) as endpoint, sdk(endpoint, providers) as client:
        whole(client)
    known = {
        "gen_ai.usage.cost": 0.005526,
        "openrouter.provider.name": "Amazon Bedrock",
        "openrouter.generation.id": "gen-1795400000-Kq3vN8xYtR2mZpLw7BdS",
        "openrouter.usage.is_byok": False,
    }
    assert known == told(enriched(memory), known)


def test_tool(memory: Memory, providers: dict[str, Any]) -> None:
    """A call made by a tool, inside the SDK's span of that tool, is a call of its own and not the tool's tokens."""
    msgtap.instrument(**providers)
    answers = [
        replies.message(replies.Answer(text=None, tool=("look_up", {}))),
        replies.message(replies.Answer(id="msg_inner")),
        replies.message(),
    ]

    @anthropic.beta_tool
    def look_up() -> str:
        """Asks a model by hand."""
        return httpx2.post(endpoint.url + "/v1/messages", json={"model": "claude-haiku-5", "messages": []}).text

    with Endpoint(answers) as endpoint, sdk(endpoint, providers) as client:
        client.beta.messages.tool_runner(**{**ASKED, "extra_body": {}}, tools=[look_up]).until_done()
    by_name = {span.name: span for span in memory.spans}
    tool, inner = by_name["anthropic.custom_tool_use look_up"], by_name["chat claude-haiku-5"]
    assert not bears_usage(tool)
    assert inner.parent is not None
    assert tool.context.span_id == inner.parent.span_id
    assert {"gen_ai.response.id": "msg_inner"} == told(inner, ["gen_ai.response.id"])
    assert 3 == sum(bears_usage(span) for span in memory.spans)
