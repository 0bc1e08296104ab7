"""One `MessageResponse`, by two roads: a whole body read at once, or a stream of events folded as it passes.

Counts in a stream are running totals: a later one replaces an earlier one, and an absent one leaves it as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
from msgspec import Struct

from msgtap import shield
from msgtap.record import ErrorBody, Iteration, MessageResponse, Usage
from msgtap.wire.decoding import Cost, Count, decoder, first, identifier, text, texts


class _Typed(Struct):
    type: str | None = None


class _CacheCreation(Struct):
    ephemeral_5m_input_tokens: Count | None = None
    ephemeral_1h_input_tokens: Count | None = None


class _OutputDetails(Struct):
    thinking_tokens: Count | None = None


class _ServerToolUse(Struct):
    web_search_requests: Count | None = None
    web_fetch_requests: Count | None = None


class _CostDetails(Struct):
    upstream_inference_cost: Cost | None = None


class _Iteration(Struct):
    type: str | None = None
    model: str | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_creation: _CacheCreation | None = None


class _Usage(Struct):
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _OutputDetails | None = None
    server_tool_use: _ServerToolUse | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    iterations: list[_Iteration] | None = None
    cost: Cost | None = None
    cost_details: _CostDetails | None = None
    is_byok: bool | None = None


class _StopDetails(Struct):
    type: str | None = None
    category: str | None = None


class _Container(Struct):
    id: str | None = None


class _ContextManagement(Struct):
    applied_edits: list[_Typed] | None = None


class _Message(Struct):
    id: str | None = None
    type: str | None = None
    role: str | None = None
    model: str | None = None
    content: list[_Typed] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: _StopDetails | None = None
    container: _Container | None = None
    provider: str | None = None
    context_management: _ContextManagement | None = None
    usage: _Usage | None = None


class _Event(Struct):
    """All that any event carries: ``message_start``, ``content_block_start``, ``message_delta``."""

    message: _Message | None = None
    content_block: _Typed | None = None
    delta: _Message | None = None
    usage: _Usage | None = None
    context_management: _ContextManagement | None = None


class _ErrorDetails(Struct):
    error_code: str | None = None


class _Error(Struct):
    type: str | None = None
    error_type: str | None = None
    details: _ErrorDetails | None = None


class _ErrorEnvelope(Struct):
    error: _Error | None = None
    request_id: str | None = None


BLOCK_LIMIT = 256
"""Most content blocks, and rounds of sampling, of one answer."""

_decode_message = decoder(_Message)
_decode_event = decoder(_Event)
_decode_error = decoder(_ErrorEnvelope)
_decode_typed = decoder(_Typed)


def read_body(body: bytes) -> MessageResponse | None:
    """The facts of a whole body; `None` where it is no JSON object."""
    wire = _decode_message(body)
    return None if wire is None else _told(MessageResponse(), wire)


def read_error(body: bytes) -> ErrorBody | None:
    """What an error body, or the data of an ``error`` event, says; `None` where it is no JSON object."""
    wire = _decode_error(body)
    if wire is None:
        return None
    error = wire.error or _Error()
    return ErrorBody(
        type=identifier(error.type),
        error_type=identifier(error.error_type),
        code=identifier(error.details.error_code) if error.details else None,
        request_id=text(wire.request_id),
    )


_NAME = re.compile(rb'\s*\{\s*"type"\s*:\s*"([a-z_]{1,64})"')


def event_name(name: str, data: bytes) -> str:
    """An event's name; where the frame has none, the ``type`` of its data."""
    if name or not data.lstrip().startswith(b"{"):
        return name
    named = _NAME.match(data)
    if named:
        return named[1].decode()
    wire = _decode_typed(data)
    return (wire.type if wire else None) or ""


def is_whole(data: bytes) -> bool:
    """Whether the data of an event is a JSON object, not a part of one."""
    return _decode_typed(data) is not None


def fold(response: MessageResponse, name: str, data: bytes) -> MessageResponse:
    """``response``, as it stands after one more event."""
    folding = _FOLDS.get(name)
    wire = _decode_event(data) if folding else None
    return response if folding is None or wire is None else folding(response, wire)


def _start(response: MessageResponse, event: _Event) -> MessageResponse:
    message = event.message or _Message()
    if message.usage:
        # A placeholder: what was really written comes with message_delta.
        message.usage.output_tokens = None
    return _told(response, message)


def _block(response: MessageResponse, event: _Event) -> MessageResponse:
    if len(response.content) >= BLOCK_LIMIT:
        shield.count("cut_list")
        return response
    kind = text(event.content_block.type) if event.content_block else None
    return msgspec.structs.replace(response, content=(*response.content, kind or ""))


def _delta(response: MessageResponse, event: _Event) -> MessageResponse:
    message = event.delta or _Message()
    message.usage = event.usage
    message.context_management = event.context_management or message.context_management
    return _told(response, message)


# ``content_block_delta``, nearly all of a stream, is absent on purpose: its JSON is never parsed.
_FOLDS: dict[str, Callable[[MessageResponse, _Event], MessageResponse]] = {
    "message_start": _start,
    "content_block_start": _block,
    "message_delta": _delta,
}


def _told(response: MessageResponse, wire: _Message) -> MessageResponse:
    """``response`` with all that ``wire`` says in place of what was known."""
    said = {
        "id": text(wire.id),
        "type": text(wire.type),
        "role": text(wire.role),
        "model": text(wire.model),
        "content": _block_types(wire.content) if wire.content else None,
        "stop_reason": text(wire.stop_reason),
        "stop_sequence": text(wire.stop_sequence),
        "stop_details": text(wire.stop_details.category) if wire.stop_details else None,
        "container": text(wire.container.id) if wire.container else None,
        "provider": text(wire.provider),
        "applied_edits": _applied_edits(wire.context_management),
        "usage": _merged(response.usage, wire.usage) if wire.usage else None,
    }
    return msgspec.structs.replace(response, **{name: value for name, value in said.items() if value is not None})


def _block_types(blocks: list[_Typed]) -> tuple[str, ...]:
    return tuple(text(block.type) or "" for block in first(blocks, BLOCK_LIMIT))


def _applied_edits(wire: _ContextManagement | None) -> tuple[str, ...] | None:
    edits = wire.applied_edits if wire else None
    return texts([edit.type for edit in edits if edit.type]) if edits else None


def _merged(usage: Usage, wire: _Usage) -> Usage:
    cache, details, tools = wire.cache_creation, wire.output_tokens_details, wire.server_tool_use
    said = {
        "input_tokens": wire.input_tokens,
        "output_tokens": wire.output_tokens,
        "cache_read_tokens": wire.cache_read_input_tokens,
        "cache_write_tokens": wire.cache_creation_input_tokens,
        "cache_write_5m_tokens": cache.ephemeral_5m_input_tokens if cache else None,
        "cache_write_1h_tokens": cache.ephemeral_1h_input_tokens if cache else None,
        "thinking_tokens": details.thinking_tokens if details else None,
        "web_search_requests": tools.web_search_requests if tools else None,
        "web_fetch_requests": tools.web_fetch_requests if tools else None,
        "service_tier": text(wire.service_tier),
        "speed": text(wire.speed),
        "inference_geo": text(wire.inference_geo),
        "iterations": tuple(map(_iteration, first(wire.iterations, BLOCK_LIMIT))) if wire.iterations else None,
        "cost": wire.cost,
        "upstream_cost": wire.cost_details.upstream_inference_cost if wire.cost_details else None,
        "is_byok": wire.is_byok,
    }
    return msgspec.structs.replace(usage, **{name: value for name, value in said.items() if value is not None})


def _iteration(wire: _Iteration) -> Iteration:
    cache = wire.cache_creation
    return Iteration(
        type=text(wire.type),
        model=text(wire.model),
        input_tokens=wire.input_tokens,
        output_tokens=wire.output_tokens,
        cache_read_tokens=wire.cache_read_input_tokens,
        cache_write_tokens=wire.cache_creation_input_tokens,
        cache_write_5m_tokens=cache.ephemeral_5m_input_tokens if cache else None,
        cache_write_1h_tokens=cache.ephemeral_1h_input_tokens if cache else None,
    )
