"""The calls of the demo: real clients, the stand-in endpoint, and one of each thing that happens in production."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import anthropic
import httpx
import httpx2

from msgtap.testing import replies as make
from msgtap.testing.replies import Pause, Reply

MODEL = "claude-sonnet-5"
ROUTED = "anthropic/claude-sonnet-5"

PACE = 0.015
"""Seconds between two events of a stream."""

_ANSWER, _ROUTED = make.ANSWER, make.OPENROUTER_ANSWER


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One thing a program does, and how the endpoint answers it, attempt by attempt."""

    what: str
    replies: tuple[Reply, ...]
    do: Callable[[str], None]


def _slowly(reply: Reply, seconds: float) -> Reply:
    """The reply, after as long as a model would think."""
    return replace(reply, before=(Pause(seconds),))


def _body(model: str = MODEL, **more: object) -> dict[str, Any]:
    return {
        "model": model,
        "max_tokens": 512,
        "messages": [{"role": "user", "content": "Windscreen cracked by gravel."}],
        **more,
    }


def _identity(session: str, user: str, generation: str) -> dict[str, Any]:
    return {
        "session_id": session,
        "user": user,
        "trace": {"trace_name": "claims-intake", "generation_name": generation, "environment": "demo"},
    }


def _sdk(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key="demo", max_retries=2)


def _sdk_message(url: str) -> None:
    _sdk(url).messages.create(**_body(), extra_body=_identity("claim-44", "ana", "classify-claim"))


def _sdk_stream(url: str) -> None:
    body = _body(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048)
    extra = _identity("claim-44", "ana", "explain-decision")
    with _sdk(url).messages.stream(**body, extra_body=extra) as stream:
        stream.get_final_message()


async def _sdk_async(url: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="demo") as client:
        await client.messages.create(**_body(), extra_body={"session_id": "claim-45", "user": "ben"})


async def _sdk_async_stream(url: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="demo") as client:
        async for _ in await client.messages.create(**_body(), stream=True):
            pass


def _httpx2_message(url: str) -> None:
    with httpx2.Client(headers={"x-session-id": "nightly"}) as client:
        client.post(f"{url}/v1/messages", json=_body()).raise_for_status()


async def _httpx2_stream(url: str) -> None:
    body = _body(ROUTED, stream=True, session_id="chat-8", user="eve")
    async with httpx2.AsyncClient() as client, client.stream("POST", f"{url}/api/v1/messages", json=body) as response:
        async for _ in response.aiter_lines():
            pass


def _httpx_message(url: str) -> None:
    body = _body(ROUTED, session_id="chat-8", user="eve")
    httpx.post(f"{url}/api/v1/messages", json=body).raise_for_status()


async def _httpx_stopped(url: str) -> None:
    body = _body(stream=True)
    async with httpx.AsyncClient() as client, client.stream("POST", f"{url}/v1/messages", json=body) as response:
        async for line in response.aiter_lines():
            if "text_delta" in line:
                break


def _httpx2_post(url: str) -> None:
    httpx2.post(f"{url}/v1/messages", json=_body(stream=True))


def _httpx_post(url: str) -> None:
    httpx.post(f"{url}/v1/messages", json=_body(stream=True))


def _later(call: Callable[[str], Coroutine[Any, Any, None]]) -> Callable[[str], None]:
    return lambda url: asyncio.run(call(url))


_THINKING = replace(
    _ANSWER,
    thinking="Gravel on the motorway, glass only, nobody hurt. The policy covers it.",
    usage={**make.USAGE, "output_tokens": 284, "output_tokens_details": {"thinking_tokens": 96}},
)
_TOOL = replace(_ANSWER, text=None, tool=("lookup_policy", {"policy_no": "KX-77120"}))

CALLS = (
    Call(what="SDK", do=_sdk_message, replies=(_slowly(make.message(_ANSWER), 0.4),)),
    Call(what="SDK, stream, thinking", do=_sdk_stream, replies=(_slowly(make.stream(_THINKING, pace=PACE), 0.3),)),
    Call(what="SDK, async, tool use", do=_later(_sdk_async), replies=(_slowly(make.message(_TOOL), 0.3),)),
    Call(
        what="SDK, async, stream",
        do=_later(_sdk_async_stream),
        replies=(_slowly(make.stream(_ANSWER, pace=PACE), 0.2),),
    ),
    Call(
        what="SDK, rate limited, retried",
        do=_sdk_message,
        replies=(make.rate_limited(0.2), _slowly(make.message(_ANSWER), 0.3)),
    ),
    Call(
        what="SDK, overloaded, retried",
        do=_sdk_message,
        replies=(_slowly(make.overloaded(), 0.1), _slowly(make.message(_ANSWER), 0.3)),
    ),
    Call(what="httpx2", do=_httpx2_message, replies=(_slowly(make.message(_ANSWER), 0.3),)),
    Call(
        what="httpx2, async, stream, OpenRouter",
        do=_later(_httpx2_stream),
        replies=(_slowly(make.openrouter_stream(_ROUTED, pace=PACE), 0.2),),
    ),
    Call(what="httpx, OpenRouter", do=_httpx_message, replies=(_slowly(make.openrouter_message(_ROUTED), 0.3),)),
    Call(
        what="httpx, async, program stops reading",
        do=_later(_httpx_stopped),
        replies=(_slowly(make.stream(_ANSWER, pace=PACE), 0.2),),
    ),
    Call(what="httpx2, stream ends too early", do=_httpx2_post, replies=(make.truncated_stream(8, pace=PACE),)),
    Call(what="httpx, connection cut", do=_httpx_post, replies=(make.cut_stream(8, pace=PACE),)),
    Call(what="httpx2, error inside the stream", do=_httpx2_post, replies=(make.stream_error_after(6, pace=PACE),)),
    Call(what="httpx2, HTML from a proxy", do=_httpx2_post, replies=(make.html_error(502),)),
)
