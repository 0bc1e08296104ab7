"""The facts of one call, frozen: what adapters, telemetry and exporters all speak of.

Nothing here does anything. ``None`` means "not said"; it is never a zero. Every text is bounded when it is read.
Change a fact with ``msgspec.structs.replace(record, ...)``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

Scalar: TypeAlias = str | int | float | bool


class CacheControl(Struct, frozen=True, kw_only=True):
    """The request's top-level cache breakpoint."""

    type: str | None = None
    ttl: str | None = None


class Thinking(Struct, frozen=True, kw_only=True):
    """How the request asks for extended thinking; ``budget_tokens`` in tokens."""

    type: str | None = None
    budget_tokens: int | None = None
    display: str | None = None


class ToolChoice(Struct, frozen=True, kw_only=True):
    """Which tools the model may or must use."""

    type: str | None = None
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class OutputConfig(Struct, frozen=True, kw_only=True):
    """Effort and output format; a format's schema is content and left out. ``task_budget_tokens`` in tokens."""

    effort: str | None = None
    format: str | None = None
    task_budget_tokens: int | None = None


class ProviderPreferences(Struct, frozen=True, kw_only=True):
    """OpenRouter's routing preferences, as far as they are scalars or names."""

    order: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    quantizations: tuple[str, ...] = ()
    sort: str | None = None
    allow_fallbacks: bool | None = None
    require_parameters: bool | None = None
    data_collection: str | None = None
    zdr: bool | None = None


class MessageRequest(Struct, frozen=True, kw_only=True):
    """What was asked, without its content.

    ``messages``, ``system``, ``tools`` and ``stop_sequences`` are counts; ``None`` where the field was absent.
    ``session_id``, ``user``, ``metadata`` and ``trace`` are in `Correlation`.
    """

    model: str | None = None
    messages: int | None = None
    system: int | None = None
    max_tokens: int | None = None
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    stop_sequences: int | None = None
    tools: int | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None
    context_management: tuple[str, ...] = ()
    service_tier: str | None = None
    speed: str | None = None
    models: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    provider: ProviderPreferences | None = None
    route: str | None = None
    stop_server_tools_when: tuple[str, ...] = ()


class Trace(Struct, frozen=True, kw_only=True):
    """OpenRouter's ``trace`` object: five known keys, and the others as bounded scalars in ``metadata``."""

    trace_id: str | None = None
    trace_name: str | None = None
    span_name: str | None = None
    generation_name: str | None = None
    parent_span_id: str | None = None
    metadata: tuple[tuple[str, Scalar], ...] = ()


class Correlation(Struct, frozen=True, kw_only=True):
    """Who called, in which session, as part of which trace; each id with the place it was found in."""

    session_id: str | None = None
    session_source: str | None = None
    user_id: str | None = None
    user_source: str | None = None
    trace: Trace | None = None


class Iteration(Struct, frozen=True, kw_only=True):
    """One entry of ``usage.iterations``: a sampling round, a compaction, an advisor's or a fallback's turn."""

    type: str | None = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_5m_tokens: int | None = None
    cache_write_1h_tokens: int | None = None


class Usage(Struct, frozen=True, kw_only=True):
    """Token counts as on the wire: ``input_tokens`` excludes what was read from or written to the cache.

    ``output_tokens`` includes ``thinking_tokens``. ``cost`` and ``upstream_cost`` are USD, as billed.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_5m_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    thinking_tokens: int | None = None
    web_search_requests: int | None = None
    web_fetch_requests: int | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    iterations: tuple[Iteration, ...] = ()
    cost: float | None = None
    upstream_cost: float | None = None
    is_byok: bool | None = None


class MessageResponse(Struct, frozen=True, kw_only=True):
    """What was answered, without its content: ``content`` lists the types of its blocks."""

    id: str | None = None
    type: str | None = None
    role: str | None = None
    model: str | None = None
    content: tuple[str, ...] = ()
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: str | None = None
    container: str | None = None
    provider: str | None = None
    applied_edits: tuple[str, ...] = ()
    usage: Usage = Usage()


NO_RESPONSE = MessageResponse()
"""What is known of an answer before there is one."""


class ErrorBody(Struct, frozen=True, kw_only=True):
    """What an error body or an ``error`` event says in machine-readable words. Its text is content and left out."""

    type: str | None = None
    error_type: str | None = None
    code: str | None = None
    request_id: str | None = None


class ResponseHeaders(Struct, frozen=True, kw_only=True):
    """The response headers that are facts of the call; all others are never looked at.

    ``retry_after`` in seconds. ``rate_limits`` maps names such as ``requests.limit`` to what the header says.
    """

    request_id: str | None = None
    generation_id: str | None = None
    organization_id: str | None = None
    retry_after: float | None = None
    cache_status: str | None = None
    rate_limits: tuple[tuple[str, Scalar], ...] = ()


class Ending(StrEnum):
    """What ended a call."""

    COMPLETE = "complete"
    """The answer was read to its end, or an error was."""
    CLOSED = "closed"
    """The program stopped reading: ``break``, ``close()``, or it dropped the response."""
    CANCELLED = "cancelled"
    """The program's task was cancelled, or the interpreter interrupted."""
    TRUNCATED = "truncated"
    """The body of a stream ended without ``message_stop``."""
    FAILED = "failed"
    """An exception: refused, timed out, cut."""
    EXIT = "exit"
    """The process ended while the call was open."""


class Timing(Struct, frozen=True, kw_only=True):
    """When things happened.

    ``started_at`` and ``ended_at`` are nanoseconds since the epoch. All else is seconds since the start, by a monotonic
    clock; ``longest_stall`` is the longest time in seconds between two chunks of the body.
    """

    started_at: int
    ended_at: int
    duration: float
    headers: float | None = None
    first_event: float | None = None
    first_thinking: float | None = None
    first_answer: float | None = None
    last_chunk: float | None = None
    longest_stall: float | None = None


class CallStart(Struct, frozen=True, kw_only=True):
    """What is known when the request is about to be sent.

    ``attempt`` counts from 0, as the client says it in ``x-stainless-retry-count``; ``None`` where it does not.
    """

    client: str
    provider: str
    server_address: str
    server_port: int
    started_at: int
    request: MessageRequest = MessageRequest()
    correlation: Correlation = Correlation()
    betas: tuple[str, ...] = ()
    attempt: int | None = None


class CallRecord(CallStart, frozen=True, kw_only=True):
    """One HTTP attempt at the Messages endpoint, from its first byte to whatever ended it.

    ``error_type`` is `None` unless the call failed: the envelope's type, else the status code, else the exception.
    ``output_expected`` says that generation had begun, so that a missing stop reason means it was cut short.
    """

    ending: Ending
    timing: Timing
    status: int | None = None
    headers: ResponseHeaders = ResponseHeaders()
    response: MessageResponse = MessageResponse()
    error_type: str | None = None
    error: ErrorBody | None = None
    output_expected: bool = False
