"""Facts to attributes: pure functions from a record and its parts to what spans, points and log events carry.

What is not known is left out. Counts of zero are left out too where the conventions call them details, kept where they
are an answer (output tokens).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from msgtap import semconv
from msgtap.record import (
    CallRecord,
    CallStart,
    Correlation,
    Ending,
    ErrorBody,
    MessageRequest,
    MessageResponse,
    ProviderPreferences,
    ResponseHeaders,
    Timing,
    Trace,
    Usage,
)

Value: TypeAlias = str | bool | int | float | tuple[str, ...]
Attributes: TypeAlias = dict[str, Value]

_ENDED_EARLY = (Ending.CLOSED, Ending.CANCELLED, Ending.EXIT)


def _known(values: Mapping[str, Value | None]) -> Attributes:
    return {name: value for name, value in values.items() if value is not None and value != ()}


def start_attributes(start: CallStart) -> Attributes:
    """What a sampler should see: the conventions want these when the span starts."""
    return _known(
        {
            semconv.OPERATION_NAME: semconv.OPERATION_CHAT,
            semconv.PROVIDER_NAME: start.provider,
            semconv.REQUEST_MODEL: start.request.model,
            semconv.SERVER_ADDRESS: start.server_address,
            semconv.SERVER_PORT: start.server_port or None,
        }
    )


def call_attributes(record: CallRecord) -> Attributes:
    """All that is known at the end of a call, but for `start_attributes`."""
    return {
        **asked_attributes(record),
        **response_attributes(record.response),
        **ending_attributes(record),
    }


def asked_attributes(start: CallStart) -> Attributes:
    """The request, and who sent it."""
    return {
        **_known(
            {
                semconv.CLIENT: start.client,
                semconv.BETA: start.betas,
                semconv.HTTP_RESEND_COUNT: start.attempt or None,
            }
        ),
        **_correlation(start.correlation),
        **_request(start.request),
    }


def _correlation(correlation: Correlation) -> Attributes:
    ids = _known(
        {
            semconv.SESSION_ID: correlation.session_id,
            semconv.CONVERSATION_ID: correlation.session_id,
            semconv.USER_ID: correlation.user_id,
        }
    )
    return {**ids, **_trace(correlation.trace)} if correlation.trace else ids


def _trace(trace: Trace) -> Attributes:
    known = {
        semconv.TRACE_ID: trace.trace_id,
        semconv.TRACE_NAME: trace.trace_name,
        semconv.TRACE_SPAN_NAME: trace.span_name,
        semconv.TRACE_GENERATION_NAME: trace.generation_name,
        semconv.TRACE_PARENT_SPAN_ID: trace.parent_span_id,
    }
    return _known(known | {semconv.TRACE_METADATA + key: value for key, value in trace.metadata})


def _request(request: MessageRequest) -> Attributes:
    scalars = _known(
        {
            semconv.REQUEST_STREAM: request.stream or None,
            semconv.REQUEST_MAX_TOKENS: request.max_tokens,
            semconv.REQUEST_TEMPERATURE: request.temperature,
            semconv.REQUEST_TOP_P: request.top_p,
            semconv.REQUEST_TOP_K: request.top_k,
            # OpenAI's rule for the same field: the default is not worth an attribute.
            semconv.REQUEST_SERVICE_TIER: request.service_tier if request.service_tier != "auto" else None,
            semconv.REQUEST_SPEED: request.speed,
            semconv.REQUEST_MESSAGES: request.messages,
            semconv.REQUEST_SYSTEM: request.system,
            semconv.REQUEST_TOOLS: request.tools,
            semconv.REQUEST_STOP_SEQUENCES: request.stop_sequences,
            semconv.CONTEXT_EDITS: request.context_management,
            semconv.REQUEST_MODELS: request.models,
            semconv.REQUEST_FALLBACKS: request.fallbacks,
            semconv.REQUEST_PLUGINS: request.plugins,
            semconv.REQUEST_ROUTE: request.route,
            semconv.REQUEST_STOP_SERVER_TOOLS: request.stop_server_tools_when,
        }
    )
    return scalars | _known(_request_objects(request))


def _request_objects(request: MessageRequest) -> dict[str, Value | None]:
    """The fields of the request that are objects, where they are there at all."""
    found: dict[str, Value | None] = {}
    if choice := request.tool_choice:
        found[semconv.TOOL_CHOICE_TYPE] = choice.type
        found[semconv.TOOL_CHOICE_NAME] = choice.name
        found[semconv.TOOL_CHOICE_NOT_PARALLEL] = choice.disable_parallel_tool_use
    if thinking := request.thinking:
        found[semconv.THINKING_TYPE] = thinking.type
        found[semconv.THINKING_BUDGET] = thinking.budget_tokens
        found[semconv.THINKING_DISPLAY] = thinking.display
    if output := request.output_config:
        found[semconv.REQUEST_REASONING_LEVEL] = output.effort
        found[semconv.OUTPUT_TYPE] = "json" if output.format == "json_schema" else None
        found[semconv.TASK_BUDGET] = output.task_budget_tokens
    if cache := request.cache_control:
        found[semconv.CACHE_CONTROL_TYPE] = cache.type
        found[semconv.CACHE_CONTROL_TTL] = cache.ttl
    if request.provider:
        found |= _preferences(request.provider)
    return found


def _preferences(preferences: ProviderPreferences) -> dict[str, Value | None]:
    return {
        semconv.REQUEST_PROVIDER + field: getattr(preferences, field) for field in ProviderPreferences.__struct_fields__
    }


def response_attributes(response: MessageResponse) -> Attributes:
    """The answer, and what it used, as far as it is known."""
    reason = response.stop_reason
    return _known(
        {
            semconv.RESPONSE_ID: response.id,
            semconv.RESPONSE_MODEL: response.model,
            semconv.FINISH_REASONS: (semconv.FINISH_REASON.get(reason, reason),) if reason else None,
            semconv.STOP_REASON: reason,
            semconv.STOP_DETAILS: response.stop_details,
            semconv.RESPONSE_CONTENT_TYPES: response.content,
            semconv.CONTAINER_ID: response.container,
            semconv.UPSTREAM_PROVIDER: response.provider,
            semconv.APPLIED_EDITS: response.applied_edits,
            semconv.COMPACTED: True if reason == "compaction" or "compaction" in response.content else None,
            **_usage(response.usage),
        }
    )


def _usage(usage: Usage) -> dict[str, Value | None]:
    return {
        semconv.INPUT_TOKENS: input_tokens(usage),
        semconv.OUTPUT_TOKENS: usage.output_tokens,
        semconv.CACHE_READ_TOKENS: usage.cache_read_tokens or None,
        semconv.CACHE_WRITE_TOKENS: usage.cache_write_tokens or None,
        semconv.CACHE_WRITE_5M_TOKENS: usage.cache_write_5m_tokens or None,
        semconv.CACHE_WRITE_1H_TOKENS: usage.cache_write_1h_tokens or None,
        semconv.REASONING_TOKENS: usage.thinking_tokens or None,
        semconv.WEB_SEARCHES: usage.web_search_requests or None,
        semconv.WEB_FETCHES: usage.web_fetch_requests or None,
        semconv.ITERATIONS: len(usage.iterations) or None,
        semconv.RESPONSE_SERVICE_TIER: usage.service_tier,
        semconv.RESPONSE_SPEED: usage.speed,
        semconv.RESPONSE_GEO: usage.inference_geo,
        semconv.COST: usage.cost,
        semconv.UPSTREAM_COST: usage.upstream_cost,
        semconv.IS_BYOK: usage.is_byok,
    }


def input_tokens(usage: Usage) -> int | None:
    """All tokens that the model read: the conventions count the cached ones in, the wire does not."""
    if usage.input_tokens is None:
        return None
    return usage.input_tokens + (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)


def ending_attributes(record: CallRecord) -> Attributes:
    """How the call ended, and when things happened."""
    cut_short = record.output_expected and record.response.stop_reason is None
    return _known(
        {
            semconv.HTTP_STATUS: record.status,
            semconv.ERROR_TYPE: record.error_type,
            semconv.ENDED: record.ending.value if record.ending in _ENDED_EARLY else None,
            semconv.FINISH_REASONS: (semconv.FINISH_ERROR,) if cut_short else None,
            **_error(record.error),
            **_headers(record.headers),
            **(_rate_limits(record.headers) if record.error_type else {}),
            **_timing(record.timing),
        }
    )


def _error(error: ErrorBody | None) -> dict[str, Value | None]:
    if error is None:
        return {}
    return {
        semconv.OPENROUTER_ERROR_TYPE: error.error_type,
        semconv.ERROR_CODE: error.code,
        semconv.REQUEST_ID: error.request_id,
    }


def _headers(headers: ResponseHeaders) -> dict[str, Value | None]:
    found: dict[str, Value | None] = {
        semconv.ORGANIZATION_ID: headers.organization_id,
        semconv.GENERATION_ID: headers.generation_id,
        semconv.RETRY_AFTER: headers.retry_after,
        semconv.CACHE_STATUS: headers.cache_status,
    }
    # An error body may have named the request already; a missing header must not unsay it.
    return found | {semconv.REQUEST_ID: headers.request_id} if headers.request_id else found


def _rate_limits(headers: ResponseHeaders) -> dict[str, Value | None]:
    """What the limits were when a call failed; otherwise they would double the size of every span."""
    return {semconv.RATE_LIMIT + name: value for name, value in headers.rate_limits}


def _timing(timing: Timing) -> dict[str, Value | None]:
    return {
        semconv.DURATION: timing.duration,
        semconv.TIME_TO_HEADERS: timing.headers,
        semconv.TIME_TO_FIRST_CHUNK: timing.first_event,
        semconv.TIME_TO_FIRST_THINKING: timing.first_thinking,
        semconv.TIME_TO_FIRST_ANSWER: timing.first_answer,
        semconv.LONGEST_STALL: timing.longest_stall,
    }
