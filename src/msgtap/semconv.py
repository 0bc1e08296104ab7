"""Every attribute and metric name that msgtap writes, one constant each, with its source.

OpenTelemetry: the GenAI conventions as OpenTelemetry's own instrumentations emit them in November 2026 (``gen_ai.*``,
in development) and the stable general ones. Anthropic: names of the spans that ``anthropic`` >= 1.14 opens itself.
OpenRouter: names of its Broadcast export. All others are our own, under ``anthropic.*``, ``openrouter.*`` and
``msgtap.*``: nothing is invented under ``gen_ai.*``.
"""

from __future__ import annotations

from typing import Final

SCOPE: Final = "msgtap"

# Operation and server, as OpenTelemetry names them
OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
HTTP_STATUS: Final = "http.response.status_code"
HTTP_RESEND_COUNT: Final = "http.request.resend_count"
ERROR_TYPE: Final = "error.type"

OPERATION_CHAT: Final = "chat"

# Who and where (OpenTelemetry; OpenRouter for trace.metadata)
SESSION_ID: Final = "session.id"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
USER_ID: Final = "user.id"
TRACE_ID: Final = "openrouter.trace.trace_id"
TRACE_NAME: Final = "openrouter.trace.trace_name"
TRACE_SPAN_NAME: Final = "openrouter.trace.span_name"
TRACE_GENERATION_NAME: Final = "openrouter.trace.generation_name"
TRACE_PARENT_SPAN_ID: Final = "openrouter.trace.parent_span_id"
TRACE_METADATA: Final = "trace.metadata."

# Request, as OpenTelemetry names it
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_TOP_K: Final = "gen_ai.request.top_k"
REQUEST_REASONING_LEVEL: Final = "gen_ai.request.reasoning.level"
OUTPUT_TYPE: Final = "gen_ai.output.type"

# Request, as Anthropic names it
REQUEST_SERVICE_TIER: Final = "anthropic.request.service_tier"
THINKING_TYPE: Final = "anthropic.thinking.type"
THINKING_BUDGET: Final = "anthropic.thinking.budget_tokens"
BETA: Final = "anthropic.beta"

# Request: our own names
REQUEST_MESSAGES: Final = "anthropic.request.messages.count"
REQUEST_SYSTEM: Final = "anthropic.request.system.count"
REQUEST_TOOLS: Final = "anthropic.request.tools.count"
REQUEST_STOP_SEQUENCES: Final = "anthropic.request.stop_sequences.count"
TOOL_CHOICE_TYPE: Final = "anthropic.tool_choice.type"
TOOL_CHOICE_NAME: Final = "anthropic.tool_choice.name"
TOOL_CHOICE_NOT_PARALLEL: Final = "anthropic.tool_choice.disable_parallel_tool_use"
THINKING_DISPLAY: Final = "anthropic.thinking.display"
TASK_BUDGET: Final = "anthropic.request.task_budget_tokens"
CACHE_CONTROL_TYPE: Final = "anthropic.cache_control.type"
CACHE_CONTROL_TTL: Final = "anthropic.cache_control.ttl"
CONTEXT_EDITS: Final = "anthropic.context_management.edits"
REQUEST_SPEED: Final = "anthropic.request.speed"
REQUEST_MODELS: Final = "openrouter.request.models"
REQUEST_FALLBACKS: Final = "openrouter.request.fallbacks"
REQUEST_PLUGINS: Final = "openrouter.request.plugins"
REQUEST_ROUTE: Final = "openrouter.request.route"
REQUEST_STOP_SERVER_TOOLS: Final = "openrouter.request.stop_server_tools_when"
REQUEST_PROVIDER: Final = "openrouter.request.provider."

# Response, as OpenTelemetry names it
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
COMPACTED: Final = "gen_ai.conversation.compacted"

# Response, as Anthropic names it
STOP_REASON: Final = "anthropic.message.stop_reason"
CACHE_WRITE_5M_TOKENS: Final = "anthropic.usage.cache_creation.ephemeral_5m_input_tokens"
CACHE_WRITE_1H_TOKENS: Final = "anthropic.usage.cache_creation.ephemeral_1h_input_tokens"
RESPONSE_SERVICE_TIER: Final = "anthropic.response.service_tier"
REQUEST_ID: Final = "anthropic.request.id"
ORGANIZATION_ID: Final = "anthropic.organization.id"

# Response: our own names
RESPONSE_CONTENT_TYPES: Final = "anthropic.message.content.types"
STOP_DETAILS: Final = "anthropic.message.stop_details.category"
CONTAINER_ID: Final = "anthropic.container.id"
RESPONSE_SPEED: Final = "anthropic.response.speed"
RESPONSE_GEO: Final = "anthropic.response.inference_geo"
APPLIED_EDITS: Final = "anthropic.context_management.applied_edits"
ITERATIONS: Final = "anthropic.usage.iterations.count"
WEB_SEARCHES: Final = "anthropic.usage.server_tool_use.web_search_requests"
WEB_FETCHES: Final = "anthropic.usage.server_tool_use.web_fetch_requests"
RATE_LIMIT: Final = "anthropic.ratelimit."
RETRY_AFTER: Final = "anthropic.retry_after"
ERROR_CODE: Final = "anthropic.error.code"
UPSTREAM_PROVIDER: Final = "openrouter.provider.name"
GENERATION_ID: Final = "openrouter.generation.id"
CACHE_STATUS: Final = "openrouter.cache.status"
OPENROUTER_ERROR_TYPE: Final = "openrouter.error.type"
UPSTREAM_COST: Final = "openrouter.usage.cost_details.upstream_inference_cost"
IS_BYOK: Final = "openrouter.usage.is_byok"

# De facto: OpenLIT and others; OpenTelemetry has no convention for cost yet. USD.
COST: Final = "gen_ai.usage.cost"

# The call as msgtap saw it (ours); times in seconds since its start
CLIENT: Final = "msgtap.client"
ENDED: Final = "msgtap.ended"
DURATION: Final = "msgtap.duration"
TIME_TO_HEADERS: Final = "msgtap.time_to_headers"
TIME_TO_FIRST_THINKING: Final = "msgtap.time_to_first_thinking"
TIME_TO_FIRST_ANSWER: Final = "msgtap.time_to_first_answer"
LONGEST_STALL: Final = "msgtap.longest_stall"

# Metrics (OpenTelemetry), with the attribute that only token usage has
METRIC_DURATION: Final = "gen_ai.client.operation.duration"
METRIC_TOKEN_USAGE: Final = "gen_ai.client.token.usage"  # noqa: S105  # tokens of a model
METRIC_TIME_TO_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105  # tokens of a model

# Metrics: our own names
METRIC_TOKENS: Final = "msgtap.tokens"
METRIC_COST: Final = "msgtap.cost"
METRIC_ACTIVE: Final = "msgtap.calls.active"
METRIC_DROPPED: Final = "msgtap.dropped"
TOKEN_CLASS: Final = "msgtap.token.class"  # noqa: S105  # tokens of a model
REASON: Final = "msgtap.reason"

# The one log event (ours)
EVENT_CALL: Final = "messages.call"

# The span of an attempt that failed, below a span that somebody else opened around all attempts (ours)
SPAN_ATTEMPT: Final = "messages.attempt"

# OpenTelemetry's advice for both, extended: thinking models answer later than its last 81.92 s.
DURATION_BUCKETS: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36,
)  # fmt: skip
TOKEN_BUCKETS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)

# Anthropic's stop reasons as the finish reasons of OpenTelemetry's own instrumentations; others stay as they are.
FINISH_REASON: Final = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_call"}
FINISH_ERROR: Final = "error"
