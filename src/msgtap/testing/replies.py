"""What a Messages endpoint may answer, as data: in which pieces, after which pauses, with which ending.

Nothing here does I/O, reads a clock or draws a random number: the same arguments give the same bytes. `endpoint.py`
sends them. The shapes are those of Anthropic's and OpenRouter's documentation and of recorded traffic; every id is
invented.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.client import responses
from typing import Literal, NamedTuple, TypeAlias

Json: TypeAlias = Mapping[str, object]
Headers: TypeAlias = tuple[tuple[str, str], ...]
Framing: TypeAlias = Literal["chunked", "length", "close"]
Compress: TypeAlias = Callable[[bytes, bool], bytes]
"""(the next bytes, whether they are the last) -> their compressed form, decodable without what follows."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Send nothing for a while."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    """Close the socket (FIN) without ending the body."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the connection (RST)."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Say nothing more until the client goes away or the endpoint closes."""


Ending: TypeAlias = Cut | Reset | Hang
Step: TypeAlias = bytes | Pause | Ending
CUT, RESET, HANG = Cut(), Reset(), Hang()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One HTTP response, and how it is sent.

    Args:
        status: The HTTP status.
        headers: Sent in this order; the endpoint adds `date` and, unless they are given, the headers of the framing.
        body: Each bytes are one write and, with `chunked`, one chunk. With `length`, `content-length` counts all of
            them, so that a body with an ending in its middle is seen to be short.
        framing: How the client learns where the body ends.
        before: Steps taken before the status line; bytes are sent as they are (an informational response, say).
    """

    status: int = 200
    headers: Headers = ()
    body: tuple[Step, ...] = ()
    framing: Framing = "chunked"
    before: tuple[Step, ...] = ()


USAGE: dict[str, object] = {
    "input_tokens": 412,
    "cache_creation_input_tokens": 1500,
    "cache_read_input_tokens": 4900,
    "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 500},
    "output_tokens": 188,
    "output_tokens_details": {"thinking_tokens": 0},
    "server_tool_use": None,
    "service_tier": "standard",
    "inference_geo": "global",
}
"""Token counts of Anthropic's API: `input_tokens` leaves the cache out, `cache_creation` splits the written tokens."""

OPENROUTER_USAGE: dict[str, object] = {
    **USAGE,
    "cache_creation_input_tokens": 0,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "inference_geo": None,
    "speed": "standard",
    "cost": 0.005526,
    "is_byok": False,
    "cost_details": {
        "upstream_inference_cost": 0.005526,
        "upstream_inference_prompt_cost": 0.002706,
        "upstream_inference_completions_cost": 0.00282,
    },
}
"""As `USAGE`, with what OpenRouter adds; the cost is in USD."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model said, whichever way it is delivered.

    Args:
        id: The message's id.
        request_id: For the `request-id` header.
        model: The model that answers.
        thinking: Text of the thinking block; None for no block. So for `text` and `tool`.
        text: Text of the text block.
        tool: Name and input of the tool that is called.
        stop_reason: None for `tool_use` or `end_turn`, as the content says.
        stop_sequence: The stop sequence that was met.
        usage: The token counts of the whole answer, sent as given.
    """

    id: str = "msg_01Kq3vN8xYtR2mZpLw7BdSfH"
    request_id: str = "req_011CTx8kQ2mZpLw7BdSfKq3v"
    model: str = "claude-sonnet-5-20260901"
    thinking: str | None = None
    text: str | None = "Glass only (« bris de glace »), no bodily injury."
    tool: tuple[str, Json] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Json = field(default_factory=USAGE.copy)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRouterAnswer(Answer):
    """The same from OpenRouter; `id` is sent as `X-Generation-Id` too, `request_id` is not sent.

    Args:
        provider: Who served the request.
        metadata: `openrouter_metadata`, for requests that opted in; None for none.
    """

    id: str = "gen-1795400000-Kq3vN8xYtR2mZpLw7BdS"
    model: str = "anthropic/claude-sonnet-5"
    usage: Json = field(default_factory=OPENROUTER_USAGE.copy)
    provider: str = "Amazon Bedrock"
    metadata: Json | None = None


ANSWER = Answer()
OPENROUTER_ANSWER = OpenRouterAnswer()

_RATE_LIMITS = {"requests": 4000, "tokens": 2_400_000, "input-tokens": 2_000_000, "output-tokens": 400_000}


def rate_limit_headers(*, used: float = 0.001) -> Headers:
    """Anthropic's twelve, when a share of each limit (0 to 1) is used."""
    return tuple(
        (f"anthropic-ratelimit-{kind}-{fact}", value)
        for kind, limit in _RATE_LIMITS.items()
        for fact, value in (
            ("limit", str(limit)),
            ("remaining", str(round(limit * (1 - used)))),
            ("reset", "2026-11-24T12:00:01Z"),
        )
    )


def _anthropic_headers(request_id: str) -> Headers:
    return (("request-id", request_id), ("anthropic-organization-id", "6b1a7f0e-52c4-4c0e-9d3a-0d5f6c1e2b7a"))


def json_reply(status: int, document: Json, *, headers: Headers = ()) -> Reply:
    """Any JSON document, sent whole."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return Reply(
        status=status, headers=(("content-type", "application/json"), *headers), body=(body,), framing="length"
    )


def sse(event: str, data: Json) -> bytes:
    """One server-sent event."""
    return f"event: {event}\ndata: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


class _Block(NamedTuple):
    whole: Json
    opening: Json
    deltas: list[Json]


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)


def _thinking(text: str) -> _Block:
    signature = "EqQBCkYIBxgCIkDp7mL0kYxR2vN8"
    deltas: list[Json] = [{"type": "thinking_delta", "thinking": word} for word in _words(text)]
    deltas.append({"type": "signature_delta", "signature": signature})
    block: Json = {"type": "thinking", "thinking": text, "signature": signature}
    return _Block(block, {**block, "thinking": "", "signature": ""}, deltas)


def _text(text: str) -> _Block:
    deltas: list[Json] = [{"type": "text_delta", "text": word} for word in _words(text)]
    return _Block({"type": "text", "text": text}, {"type": "text", "text": ""}, deltas)


def _tool_use(name: str, arguments: Json) -> _Block:
    written = json.dumps(arguments, ensure_ascii=False)
    pieces = ["", *(written[start : start + 12] for start in range(0, len(written), 12))]  # the first is empty, as seen
    block: Json = {"type": "tool_use", "id": "toolu_01Bd3vN8xYtR2mZpLw7SfKqH", "name": name, "input": arguments}
    return _Block(
        block, {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    )


def _blocks(answer: Answer) -> list[_Block]:
    return [
        *([_thinking(answer.thinking)] if answer.thinking is not None else []),
        *([_text(answer.text)] if answer.text is not None else []),
        *([_tool_use(*answer.tool)] if answer.tool is not None else []),
    ]


def _stop(answer: Answer) -> Json:
    reason = answer.stop_reason or ("tool_use" if answer.tool else "end_turn")
    return {"stop_reason": reason, "stop_sequence": answer.stop_sequence, "stop_details": None, "container": None}


def _document(answer: Answer) -> dict[str, object]:
    content = [block.whole for block in _blocks(answer)]
    head = {"id": answer.id, "type": "message", "role": "assistant", "model": answer.model, "content": content}
    return {**head, **_stop(answer), "usage": answer.usage}


def _metadata(answer: OpenRouterAnswer) -> dict[str, object]:
    return {} if answer.metadata is None else {"openrouter_metadata": answer.metadata}


def message(answer: Answer = ANSWER, *, headers: Headers = ()) -> Reply:
    """A whole message, as Anthropic's API sends it."""
    ours = (*_anthropic_headers(answer.request_id), *rate_limit_headers())
    return json_reply(200, _document(answer), headers=(*ours, *headers))


def openrouter_message(answer: OpenRouterAnswer = OPENROUTER_ANSWER, *, headers: Headers = ()) -> Reply:
    """A whole message, as OpenRouter sends it."""
    document = {**_document(answer), "provider": answer.provider, "context_management": None, **_metadata(answer)}
    return json_reply(200, document, headers=(("X-Generation-Id", answer.id), *headers))


def _event(name: str, **data: object) -> bytes:
    return sse(name, {"type": name, **data})


def _content_events(answer: Answer) -> Iterator[bytes]:
    for index, block in enumerate(_blocks(answer)):
        yield _event("content_block_start", index=index, content_block=block.opening)
        if not index:
            yield _event("ping")
        for delta in block.deltas:
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)


def _opening(answer: Answer, usage: Json, **more: object) -> bytes:
    unset: Json = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    return _event("message_start", message={**_document(answer), **unset, **more})


def events(answer: Answer = ANSWER) -> tuple[bytes, ...]:
    """The server-sent events of a message, as Anthropic's API streams it, `ping` among them."""
    # The first usage has a placeholder for the output; the last, cumulative one lacks what is about the whole request.
    first = {**answer.usage, "output_tokens": 2, "output_tokens_details": None}
    once = ("cache_creation", "service_tier", "inference_geo", "speed")
    last = {name: value for name, value in answer.usage.items() if name not in once}
    end = (_event("message_delta", delta=_stop(answer), usage=last), _event("message_stop"))
    return (_opening(answer, first), *_content_events(answer), *end)


def openrouter_events(answer: OpenRouterAnswer = OPENROUTER_ANSWER) -> tuple[bytes, ...]:
    """The same as OpenRouter streams it, without its comments and its trailer."""
    cost = ("cost", "is_byok", "cost_details")  # only in the last usage
    known = {"input_tokens": answer.usage.get("input_tokens"), "output_tokens": 0, "speed": "standard"}
    first = {name: known.get(name) for name in answer.usage if name not in cost}
    delta = _event("message_delta", delta=_stop(answer), usage=answer.usage, context_management=None)
    end = (delta, _event("message_stop", **_metadata(answer)))
    return (_opening(answer, first, provider=answer.provider), *_content_events(answer), *end)


def _streamed(pieces: tuple[bytes, ...], pace: float, headers: Headers, *ending: Step) -> Reply:
    paced: tuple[Step, ...] = tuple(step for piece in pieces for step in (Pause(pace), piece)) if pace else pieces
    ours = (("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"))
    return Reply(headers=(*ours, *headers), body=(*paced, *ending))


def stream(answer: Answer = ANSWER, *, pace: float = 0.0, headers: Headers = ()) -> Reply:
    """A streamed message, as Anthropic's API sends it: one chunk for each event, `pace` seconds before each."""
    ours = (*_anthropic_headers(answer.request_id), *rate_limit_headers())
    return _streamed(events(answer), pace, (*ours, *headers))


def openrouter_stream(
    answer: OpenRouterAnswer = OPENROUTER_ANSWER,
    *,
    pace: float = 0.0,
    comments: int = 2,
    trailer: bool = True,
    headers: Headers = (),
) -> Reply:
    """A streamed message, as OpenRouter sends it.

    Args:
        answer: What is said.
        pace: Seconds before each event.
        comments: How many `: OPENROUTER PROCESSING` come first (another one comes after the first event, if any do).
        trailer: Whether `[DONE]` follows `message_stop`; anthropic ≥ 1.17 raises JSONDecodeError on it.
        headers: Sent after the usual ones.
    """
    comment = b": OPENROUTER PROCESSING\n\n"
    first, *rest = openrouter_events(answer)
    end = (b"event: data\ndata: [DONE]\n\n",) if trailer else ()
    pieces = (*[comment] * comments, first, *[comment] * bool(comments), *rest, *end)
    return _streamed(pieces, pace, (("X-Generation-Id", answer.id), *headers))


_ERRORS = {
    400: ("invalid_request_error", "max_tokens: Field required"),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your credit balance is too low to access the Anthropic API."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "Not found"),
    409: ("conflict_error", "Conflict"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed the rate limit for your organization."),
    500: ("api_error", "Internal server error"),
    504: ("timeout_error", "Request timed out"),
    529: ("overloaded_error", "Overloaded"),
}


def error(status: int, error_type: str | None = None, text: str | None = None, *, headers: Headers = ()) -> Reply:
    """Anthropic's error envelope; type and text are the usual ones of the status unless they are given."""
    usual_type, usual_text = _ERRORS.get(status, ("api_error", responses.get(status, "Error")))
    told = {"type": error_type or usual_type, "message": text or usual_text}
    retry = (("x-should-retry", "true" if status in {408, 409, 429} or status >= 500 else "false"),)  # noqa: PLR2004
    ours = (*_anthropic_headers(ANSWER.request_id), *retry)
    return json_reply(
        status, {"type": "error", "error": told, "request_id": ANSWER.request_id}, headers=(*ours, *headers)
    )


def overloaded() -> Reply:
    """Status 529."""
    return error(529)


def rate_limited(retry_after: float = 1) -> Reply:
    """Status 429 from Anthropic, with nothing left of any limit; `retry_after` in seconds."""
    return error(429, headers=(("retry-after", f"{retry_after:g}"), *rate_limit_headers(used=1)))


# Where OpenRouter's type is not that of Anthropic's for the same status.
_OPENROUTER_ERRORS = {408: "timeout_error", 413: "invalid_request_error", 503: "overloaded_error"}


def openrouter_error(
    status: int, error_type: str, text: str = "Provider returned error", *, headers: Headers = (), **more: object
) -> Reply:
    """OpenRouter's error envelope.

    Args:
        status: The HTTP status, which decides the Anthropic `error.type`.
        error_type: One of OpenRouter's own, `rate_limit_exceeded` for example.
        text: The message.
        headers: Sent after the usual ones; `Retry-After` for example.
        more: Further keys of `error`; `availability` for example.
    """
    usual_type, _ = _ERRORS.get(status, ("api_error" if status >= 500 else "invalid_request_error", ""))  # noqa: PLR2004
    kind = _OPENROUTER_ERRORS.get(status, usual_type)
    told = {"type": kind, "message": text, "error_type": error_type, **more}
    ours = (("X-Generation-Id", OPENROUTER_ANSWER.id), *headers)
    return json_reply(status, {"type": "error", "error": told, "request_id": OPENROUTER_ANSWER.id}, headers=ours)


def html_error(status: int) -> Reply:
    """What a proxy in front of the endpoint answers: no JSON, no request id."""
    title = f"{status} {responses.get(status, 'Error')}"
    head, body = f"<head><title>{title}</title></head>", f"<body><center><h1>{title}</h1></center></body>"
    page = f"<html>\r\n{head}\r\n{body}\r\n</html>\r\n"
    headers = (("content-type", "text/html"), ("server", "cloudflare"), ("cf-ray", "8f2a1b3c4d5e6f70-FRA"))
    return Reply(status=status, headers=headers, body=(page.encode(),), framing="length")


def stream_error_after(count: int, error_type: str = "overloaded_error", *, pace: float = 0.0) -> Reply:
    """A stream of status 200 whose first `count` events are followed by an error, and then by the body's end."""
    text = next((text for kind, text in _ERRORS.values() if kind == error_type), "Error")
    broken = _event("error", error={"type": error_type, "message": text}, request_id=ANSWER.request_id)
    return _streamed((*events()[:count], broken), pace, _anthropic_headers(ANSWER.request_id))


def truncated_stream(count: int = -1, *, pace: float = 0.0) -> Reply:
    """A stream whose body ends in good order after `count` events (less than 0: that many before all), too early."""
    return _streamed(events()[:count], pace, _anthropic_headers(ANSWER.request_id))


def cut_stream(count: int = 4, *, ending: Ending = CUT, pace: float = 0.0) -> Reply:
    """A stream whose connection breaks after `count` events, and before the body's end."""
    return _streamed(events()[:count], pace, _anthropic_headers(ANSWER.request_id), ending)


def cut(reply: Reply, offset: int, ending: Ending = CUT) -> Reply:
    """The reply, broken after `offset` bytes of its body; a declared length stays that of the whole."""
    kept: list[Step] = []
    for position, step in enumerate(reply.body):
        size = len(step) if isinstance(step, bytes) else 0
        if isinstance(step, bytes) and size >= offset:
            return replace(reply, body=(*kept, step[:offset], ending, step[offset:], *reply.body[position + 1 :]))
        offset -= size
        kept.append(step)
    return replace(reply, body=(*kept, ending))


def silent(ending: Ending = HANG) -> Reply:
    """No answer at all, not even a status line."""
    return Reply(before=(ending,))


def _deflating(wbits: int) -> Compress:
    compressor = zlib.compressobj(wbits=wbits)

    def compress(data: bytes, last: bool) -> bytes:  # noqa: FBT001
        return compressor.compress(data) + compressor.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)

    return compress


_WINDOWS = {"gzip": 31, "deflate": 15}  # zlib's wbits; `deflate` is the zlib format of RFC 9110, not the raw one


def encoded(reply: Reply, coding: str, compress: Compress | None = None) -> Reply:
    """The reply with its body in a content coding, each bytes of it flushed so that a stream still streams.

    Args:
        reply: What to send.
        coding: The name for `content-encoding`.
        compress: Needed for other codings than gzip and deflate; called once for each bytes of the body, in order.

    Raises:
        KeyError: A coding that needs `compress` came without.
    """
    squeeze = compress or _deflating(_WINDOWS[coding])
    last = max((n for n, step in enumerate(reply.body) if isinstance(step, bytes)), default=-1)
    body = tuple(squeeze(step, n == last) if isinstance(step, bytes) else step for n, step in enumerate(reply.body))
    return replace(reply, headers=(*reply.headers, ("content-encoding", coding)), body=body)
