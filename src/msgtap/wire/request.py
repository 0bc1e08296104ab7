"""The request body, read once: what was asked, and what it claims about who asks.

Messages, system prompts, tools and images are skipped, not built: they are content, and nearly all of the bytes.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
from msgspec import Struct

from msgtap import shield
from msgtap.record import (
    CacheControl,
    MessageRequest,
    OutputConfig,
    ProviderPreferences,
    Scalar,
    Thinking,
    ToolChoice,
    Trace,
)
from msgtap.wire.decoding import LIST_LIMIT, UNREADABLE, Count, Integer, Number, decoder, first, text, texts

METADATA_LIMIT = 1024
"""Longest value in characters of one of ``trace``'s own keys."""


class Claims(Struct, frozen=True, kw_only=True):
    """What the body says about session, user and trace, as sent; `msgtap.correlation` decides what holds."""

    session_id: str | None = None
    user: str | None = None
    metadata_user_id: str | None = None
    trace: Trace | None = None


class _Skipped(Struct):
    """An object that is counted and not looked into."""


class _Typed(Struct):
    type: str | None = None


class _Named(Struct):
    id: str | None = None
    model: str | None = None


class _Metadata(Struct):
    user_id: str | None = None


class _ContextManagement(Struct):
    edits: list[_Typed] | None = None


class _TaskBudget(Struct):
    total: Count | None = None


class _OutputConfig(Struct):
    effort: str | None = None
    format: _Typed | None = None
    task_budget: _TaskBudget | None = None


class _Thinking(Struct):
    type: str | None = None
    budget_tokens: Count | None = None
    display: str | None = None


class _ToolChoice(Struct):
    type: str | None = None
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _CacheControl(Struct):
    type: str | None = None
    ttl: str | None = None


class _Sort(Struct):
    by: str | None = None


class _Preferences(Struct):
    order: list[str] | None = None
    only: list[str] | None = None
    ignore: list[str] | None = None
    quantizations: list[str] | None = None
    sort: str | _Sort | None = None
    allow_fallbacks: bool | None = None
    require_parameters: bool | None = None
    data_collection: str | None = None
    zdr: bool | None = None


class _Body(Struct):
    """The documented fields of ``MessagesRequest`` (OpenRouter's OpenAPI description of 2026-08-22)."""

    model: str | None = None
    messages: list[_Skipped] | None = None
    system: str | list[_Skipped] | None = None
    max_tokens: Integer | None = None
    stream: bool | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    top_k: Number | None = None
    stop_sequences: list[str] | None = None
    tools: list[_Skipped] | None = None
    tool_choice: _ToolChoice | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    cache_control: _CacheControl | None = None
    context_management: _ContextManagement | None = None
    service_tier: str | None = None
    speed: str | None = None
    models: list[str] | None = None
    fallbacks: list[_Named] | str | None = None
    plugins: list[_Named] | None = None
    provider: _Preferences | None = None
    route: str | None = None
    stop_server_tools_when: list[_Typed] | None = None
    metadata: _Metadata | None = None
    session_id: str | None = None
    user: str | None = None
    trace: dict[str, Any] | None = None


_decode = decoder(_Body)


def read_request(body: bytes) -> tuple[MessageRequest, Claims]:
    """The facts and the claims of a request body; empty ones where it is no JSON object."""
    wire = _decode(body)
    return (MessageRequest(), Claims()) if wire is None else (_request(wire), _claims(wire))


def _request(wire: _Body) -> MessageRequest:
    return MessageRequest(
        model=text(wire.model),
        messages=_length(wire.messages),
        system=1 if isinstance(wire.system, str) else _length(wire.system),
        max_tokens=wire.max_tokens,
        stream=bool(wire.stream),
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=wire.top_k,
        stop_sequences=_length(wire.stop_sequences),
        tools=_length(wire.tools),
        tool_choice=_tool_choice(wire.tool_choice) if wire.tool_choice else None,
        thinking=_thinking(wire.thinking) if wire.thinking else None,
        output_config=_output_config(wire.output_config) if wire.output_config else None,
        cache_control=_cache_control(wire.cache_control) if wire.cache_control else None,
        context_management=_types(wire.context_management.edits) if wire.context_management else (),
        service_tier=text(wire.service_tier),
        speed=text(wire.speed),
        models=texts(wire.models),
        fallbacks=_fallbacks(wire.fallbacks),
        plugins=texts([plugin.id for plugin in wire.plugins if plugin.id]) if wire.plugins else (),
        provider=_preferences(wire.provider) if wire.provider else None,
        route=text(wire.route),
        stop_server_tools_when=_types(wire.stop_server_tools_when),
    )


def _claims(wire: _Body) -> Claims:
    return Claims(
        session_id=wire.session_id,
        user=wire.user,
        metadata_user_id=wire.metadata.user_id if wire.metadata else None,
        trace=None if wire.trace is None else read_trace(wire.trace),
    )


def _length(values: list[Any] | None) -> int | None:
    return None if values is None else len(values)


def _types(values: list[_Typed] | None) -> tuple[str, ...]:
    return texts([value.type for value in values if value.type]) if values else ()


def _tool_choice(wire: _ToolChoice) -> ToolChoice:
    return ToolChoice(
        type=text(wire.type), name=text(wire.name), disable_parallel_tool_use=wire.disable_parallel_tool_use
    )


def _thinking(wire: _Thinking) -> Thinking:
    return Thinking(type=text(wire.type), budget_tokens=wire.budget_tokens, display=text(wire.display))


def _output_config(wire: _OutputConfig) -> OutputConfig:
    return OutputConfig(
        effort=text(wire.effort),
        format=text(wire.format.type) if wire.format else None,
        task_budget_tokens=wire.task_budget.total if wire.task_budget else None,
    )


def _cache_control(wire: _CacheControl) -> CacheControl:
    return CacheControl(type=text(wire.type), ttl=text(wire.ttl))


def _fallbacks(wire: list[_Named] | str | None) -> tuple[str, ...]:
    """OpenRouter sends models; Anthropic takes those or the word ``default``."""
    return texts([wire] if isinstance(wire, str) else [entry.model for entry in wire or () if entry.model])


def _preferences(wire: _Preferences) -> ProviderPreferences:
    return ProviderPreferences(
        order=texts(wire.order),
        only=texts(wire.only),
        ignore=texts(wire.ignore),
        quantizations=texts(wire.quantizations),
        sort=text(wire.sort.by if isinstance(wire.sort, _Sort) else wire.sort),
        allow_fallbacks=wire.allow_fallbacks,
        require_parameters=wire.require_parameters,
        data_collection=text(wire.data_collection),
        zdr=wire.zdr,
    )


_TRACE_KEYS = ("trace_id", "trace_name", "span_name", "generation_name", "parent_span_id")


def read_trace(wire: dict[str, Any]) -> Trace:
    """The ``trace`` object: its five known keys where they are texts, and the others as bounded metadata."""
    said = {key: value for key, value in wire.items() if value is not None}
    known = {key: _known(said.pop(key)) for key in _TRACE_KEYS if key in said}
    metadata: dict[str, Scalar] = {}
    for key, value in first(list(said.items()), LIST_LIMIT):
        name, kept = text(key), _metadata_value(value)
        if kept is None:
            shield.count("wrong_type")
        elif name is not None:
            metadata[name] = kept
    return Trace(**known, metadata=tuple(metadata.items()))


def _known(value: object) -> str | None:
    if isinstance(value, str):
        return text(value)
    shield.count("wrong_type")
    return None


def _metadata_value(value: object) -> Scalar | None:
    """Numbers and booleans stay what they are; a nested value becomes its JSON text. `None` for what has none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    written = value if isinstance(value, str) else _as_json(value)
    if written is None or len(written) <= METADATA_LIMIT:
        return written
    shield.count("cut_text")
    return written[: METADATA_LIMIT - 1] + "…"


def _as_json(value: object) -> str | None:
    try:
        return msgspec.json.encode(value).decode()
    except UNREADABLE:  # nested deeper than can be written
        return None
