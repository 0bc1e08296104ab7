"""Every documented field: its place in the record, its attribute, and what becomes of it whatever is sent in it.

Each row of the three tables is sent by a real client over a real socket: valid, null, absent, of several wrong types,
wrong in part, and too large. The other fields are sent too, so that it shows what one wrong field costs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import httpx2
import msgspec
import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import msgtap
from msgtap import semconv, shield
from msgtap.correlation import bounded
from msgtap.record import (
    CacheControl,
    CallRecord,
    Correlation,
    Ending,
    Iteration,
    MessageRequest,
    MessageResponse,
    OutputConfig,
    ProviderPreferences,
    Thinking,
    ToolChoice,
    Trace,
    Usage,
)
from msgtap.testing import capture_calls
from msgtap.testing.endpoint import Endpoint, Received
from msgtap.testing.replies import Reply, sse
from msgtap.wire import request as wire_request

CONTENT = "words that are content and belong nowhere"
HUGE = "x" * 1_000_000
CUT = "x" * 255 + "…"
ABSENT: Any = object()
NO_SIZE = (ABSENT, None, None)
"""For a field whose values are all of one size."""

NOT_TEXT: tuple[object, ...] = (1, 1.5, True, [], {}, ["x"], {"x": "y"})
NOT_LIST: tuple[object, ...] = (1, 1.5, True, "x", {}, {"x": 1})
NOT_OBJECT: tuple[object, ...] = (1, 1.5, True, "x", [], ["x"])
NOT_BOOLEAN: tuple[object, ...] = (0, 1, 1.5, "true", [], {})
NOT_NUMBER: tuple[object, ...] = ("1", True, [], {}, math.nan)
NOT_INTEGER: tuple[object, ...] = (*NOT_NUMBER, 1.5, math.inf)
NOT_COUNT: tuple[object, ...] = (*NOT_INTEGER, -1)

Form = Callable[[Mapping[str, object]], Reply]
Attribute = str | bool | int | float | tuple[str, ...]


class Row(NamedTuple):
    """One field.

    ``facts`` are the places in the record with what they hold, ``attributes`` those of the span; ``why`` tells why
    there is none, or why it is no more than a number. ``partly`` and ``oversized`` pair what is sent with what the
    first place then holds; ``counted`` is the reason under which the excess is counted.
    """

    valid: object
    facts: Mapping[str, object]
    attributes: Mapping[str, Attribute]
    wrong: tuple[object, ...]
    partly: tuple[tuple[object, object], ...] = ()
    oversized: tuple[object, object, str | None] = NO_SIZE
    why: str = ""
    instead_of: str = ""
    """The other field that would speak for this one."""


def text_row(value: str, place: str, attribute: str) -> Row:
    """A field of bounded text."""
    return Row(value, {place: value}, {attribute: value}, NOT_TEXT, (("", None),), (HUGE, CUT, "cut_text"))


def number_row(value: float, place: str, attribute: str) -> Row:
    """A field of any number."""
    return Row(value, {place: float(value)}, {attribute: float(value)}, NOT_NUMBER, (), (math.inf, None, "wrong_type"))


def names_row(value: object, odd: object, name: str, place: str, attribute: str) -> Row:
    """A field that lists names, in objects perhaps; ``odd`` is an entry that has none."""
    assert isinstance(value, list)
    return Row(
        value,
        {place: (name,)},
        {attribute: (name,)},
        NOT_LIST,
        (([odd, 7, None, *value], (name,)), ([], ())),
        (value * 1000, (name,) * 32, "cut_list"),
    )


def count_row(value: object, odd: object, place: str, attribute: str) -> Row:
    """A field that lists content: only how much of it there is becomes known."""
    assert isinstance(value, list)
    return Row(
        value,
        {place: 1},
        {attribute: 1},
        NOT_LIST,
        (([odd, *value], 1), ([], 0)),
        (value * 10_000, 10_000, None),
        why="content: counted only",
    )


REQUEST: dict[str, Row] = {
    "model": text_row("claude-sonnet-5", "request.model", semconv.REQUEST_MODEL),
    "messages": count_row([{"role": "user", "content": CONTENT}], 1, "request.messages", semconv.REQUEST_MESSAGES),
    "system": Row(
        [{"type": "text", "text": CONTENT}],
        {"request.system": 1},
        {semconv.REQUEST_SYSTEM: 1},
        (1, 1.5, True, {}, {"x": 1}),
        ((CONTENT, 1), ([], 0), ([1, {}], 1)),
        ([{}] * 10_000, 10_000, None),
        why="content: counted only",
    ),
    "max_tokens": Row(
        800,
        {"request.max_tokens": 800},
        {semconv.REQUEST_MAX_TOKENS: 800},
        NOT_INTEGER,
        ((-1, -1), (2**63 - 1, 2**63 - 1)),
        (2**63, None, "wrong_type"),
    ),
    "stream": Row(True, {"request.stream": True}, {semconv.REQUEST_STREAM: True}, (*NOT_BOOLEAN, False)),
    "temperature": number_row(0.5, "request.temperature", semconv.REQUEST_TEMPERATURE),
    "top_p": number_row(0.9, "request.top_p", semconv.REQUEST_TOP_P),
    "top_k": number_row(40, "request.top_k", semconv.REQUEST_TOP_K),
    "stop_sequences": count_row([CONTENT], 1, "request.stop_sequences", semconv.REQUEST_STOP_SEQUENCES),
    "tools": count_row([{"name": CONTENT}], "x", "request.tools", semconv.REQUEST_TOOLS),
    "tool_choice": Row(
        {"type": "tool", "name": "lookup", "disable_parallel_tool_use": True},
        {"request.tool_choice": ToolChoice(type="tool", name="lookup", disable_parallel_tool_use=True)},
        {
            semconv.TOOL_CHOICE_TYPE: "tool",
            semconv.TOOL_CHOICE_NAME: "lookup",
            semconv.TOOL_CHOICE_NOT_PARALLEL: True,
        },
        NOT_OBJECT,
        (({"type": 1, "name": "n"}, ToolChoice(name="n")), ({}, ToolChoice())),
        ({"type": HUGE}, ToolChoice(type=CUT), "cut_text"),
    ),
    "thinking": Row(
        {"type": "enabled", "budget_tokens": 1024, "display": "omitted"},
        {"request.thinking": Thinking(type="enabled", budget_tokens=1024, display="omitted")},
        {semconv.THINKING_TYPE: "enabled", semconv.THINKING_BUDGET: 1024, semconv.THINKING_DISPLAY: "omitted"},
        NOT_OBJECT,
        (({"type": "enabled", "budget_tokens": "1"}, Thinking(type="enabled")),),
        ({"type": "enabled", "budget_tokens": 2**63}, Thinking(type="enabled"), "wrong_type"),
    ),
    "output_config": Row(
        {
            "effort": "high",
            "format": {"type": "json_schema", "schema": {"title": CONTENT}},
            "task_budget": {"type": "tokens", "total": 20000},
        },
        {"request.output_config": OutputConfig(effort="high", format="json_schema", task_budget_tokens=20000)},
        {semconv.REQUEST_REASONING_LEVEL: "high", semconv.OUTPUT_TYPE: "json", semconv.TASK_BUDGET: 20000},
        NOT_OBJECT,
        (({"effort": 3, "format": [], "task_budget": {"total": 5}}, OutputConfig(task_budget_tokens=5)),),
        ({"effort": HUGE}, OutputConfig(effort=CUT), "cut_text"),
        why="a schema is content",
    ),
    "cache_control": Row(
        {"type": "ephemeral", "ttl": "1h"},
        {"request.cache_control": CacheControl(type="ephemeral", ttl="1h")},
        {semconv.CACHE_CONTROL_TYPE: "ephemeral", semconv.CACHE_CONTROL_TTL: "1h"},
        NOT_OBJECT,
        (({"type": "ephemeral", "ttl": 3600}, CacheControl(type="ephemeral")),),
        ({"ttl": HUGE}, CacheControl(ttl=CUT), "cut_text"),
    ),
    "context_management": Row(
        {"edits": [{"type": "compact_20260112", "instructions": CONTENT}]},
        {"request.context_management": ("compact_20260112",)},
        {semconv.CONTEXT_EDITS: ("compact_20260112",)},
        NOT_OBJECT,
        (({"edits": [1, {}, {"type": "a"}]}, ("a",)), ({"edits": {}}, ())),
        ({"edits": [{"type": "a"}] * 1000}, ("a",) * 32, "cut_list"),
    ),
    "service_tier": text_row("priority", "request.service_tier", semconv.REQUEST_SERVICE_TIER),
    "speed": text_row("fast", "request.speed", semconv.REQUEST_SPEED),
    "models": names_row(["a/b"], {}, "a/b", "request.models", semconv.REQUEST_MODELS),
    "fallbacks": Row(
        [{"model": "a/b"}],
        {"request.fallbacks": ("a/b",)},
        {semconv.REQUEST_FALLBACKS: ("a/b",)},
        (1, 1.5, True, {}, {"model": "a/b"}),
        (("default", ("default",)), ([1, {}, {"model": 2}, {"model": "c"}], ("c",)), ([], ())),
        ([{"model": "m"}] * 1000, ("m",) * 32, "cut_list"),
    ),
    "plugins": names_row([{"id": "web"}], {"enabled": True}, "web", "request.plugins", semconv.REQUEST_PLUGINS),
    "provider": Row(
        {
            "order": ["anthropic"],
            "only": ["a"],
            "ignore": ["b"],
            "quantizations": ["fp8"],
            "sort": {"by": "price"},
            "allow_fallbacks": False,
            "require_parameters": True,
            "data_collection": "deny",
            "zdr": True,
            "max_price": {"prompt": "1"},
        },
        {
            "request.provider": ProviderPreferences(
                order=("anthropic",),
                only=("a",),
                ignore=("b",),
                quantizations=("fp8",),
                sort="price",
                allow_fallbacks=False,
                require_parameters=True,
                data_collection="deny",
                zdr=True,
            )
        },
        {
            f"{semconv.REQUEST_PROVIDER}order": ("anthropic",),
            f"{semconv.REQUEST_PROVIDER}only": ("a",),
            f"{semconv.REQUEST_PROVIDER}ignore": ("b",),
            f"{semconv.REQUEST_PROVIDER}quantizations": ("fp8",),
            f"{semconv.REQUEST_PROVIDER}sort": "price",
            f"{semconv.REQUEST_PROVIDER}allow_fallbacks": False,
            f"{semconv.REQUEST_PROVIDER}require_parameters": True,
            f"{semconv.REQUEST_PROVIDER}data_collection": "deny",
            f"{semconv.REQUEST_PROVIDER}zdr": True,
        },
        NOT_OBJECT,
        (({"order": "a", "sort": "price", "zdr": "no"}, ProviderPreferences(sort="price")),),
        ({"order": ["a"] * 1000}, ProviderPreferences(order=("a",) * 32), "cut_list"),
    ),
    "route": text_row("fallback", "request.route", semconv.REQUEST_ROUTE),
    "stop_server_tools_when": names_row(
        [{"type": "max_cost", "max_cost_in_dollars": 1}],
        {},
        "max_cost",
        "request.stop_server_tools_when",
        semconv.REQUEST_STOP_SERVER_TOOLS,
    ),
    "session_id": Row(
        "s-1",
        {"correlation.session_id": "s-1", "correlation.session_source": "body"},
        {semconv.SESSION_ID: "s-1", semconv.CONVERSATION_ID: "s-1"},
        (*NOT_TEXT, ""),
        (),
        (HUGE, bounded(HUGE), "cut_identifier"),
    ),
    "user": Row(
        "u-1",
        {"correlation.user_id": "u-1", "correlation.user_source": "body"},
        {semconv.USER_ID: "u-1"},
        (*NOT_TEXT, ""),
        (),
        (HUGE, bounded(HUGE), "cut_identifier"),
    ),
    "metadata": Row(
        {"user_id": "m-1", "other": CONTENT},
        {"correlation.user_id": "m-1", "correlation.user_source": "metadata"},
        {semconv.USER_ID: "m-1"},
        (*NOT_OBJECT, {}, {"user_id": 1}, {"user_id": None}),
        (),
        ({"user_id": HUGE}, bounded(HUGE), "cut_identifier"),
        why="other keys than user_id are nobody's business",
        instead_of="user",
    ),
    "trace": Row(
        {
            "trace_id": "t",
            "trace_name": "claims-intake",
            "span_name": "triage",
            "generation_name": "classify",
            "parent_span_id": "p",
            "attempt": 2,
        },
        {
            "correlation.trace": Trace(
                trace_id="t",
                trace_name="claims-intake",
                span_name="triage",
                generation_name="classify",
                parent_span_id="p",
                metadata=(("attempt", 2),),
            )
        },
        {
            semconv.TRACE_ID: "t",
            semconv.TRACE_NAME: "claims-intake",
            semconv.TRACE_SPAN_NAME: "triage",
            semconv.TRACE_GENERATION_NAME: "classify",
            semconv.TRACE_PARENT_SPAN_ID: "p",
            f"{semconv.TRACE_METADATA}attempt": 2,
        },
        NOT_OBJECT,
        (
            ({}, Trace()),
            ({"trace_id": 7, "span_name": [], "a": None, "b": {"c": 1}}, Trace(metadata=(("b", '{"c":1}'),))),
            ({"a": math.nan, "b": 2**64, "c": -0.5}, Trace(metadata=(("b", "18446744073709551616"), ("c", -0.5)))),
        ),
        ({"trace_name": HUGE, "a": HUGE}, Trace(trace_name=CUT, metadata=(("a", "x" * 1023 + "…"),)), "cut_text"),
    ),
}

RESPONSE: dict[str, Row] = {
    "id": text_row("msg_1", "response.id", semconv.RESPONSE_ID),
    "type": text_row("message", "response.type", "")._replace(attributes={}, why="always the same"),
    "role": text_row("assistant", "response.role", "")._replace(attributes={}, why="always the same"),
    "model": text_row("claude-sonnet-5-20260901", "response.model", semconv.RESPONSE_MODEL),
    "content": Row(
        [{"type": "thinking", "thinking": CONTENT}, {"type": "text", "text": CONTENT}],
        {"response.content": ("thinking", "text")},
        {semconv.RESPONSE_CONTENT_TYPES: ("thinking", "text")},
        (1, 1.5, True, "x", {}, {"x": 1}),
        (([{"text": CONTENT}, {"type": "text"}], ("", "text")), ([{"type": 1}], ("",)), ([], ())),
        ([{"type": "text"}] * 300, ("text",) * 256, "cut_list"),
        why="content: the types of its blocks only",
    ),
    "stop_reason": Row(
        "tool_use",
        {"response.stop_reason": "tool_use"},
        {semconv.STOP_REASON: "tool_use", semconv.FINISH_REASONS: ("tool_call",)},
        NOT_TEXT,
        (("", None), ("new_reason", "new_reason")),
        (HUGE, CUT, "cut_text"),
    ),
    "stop_sequence": text_row("END", "response.stop_sequence", "")._replace(
        attributes={}, why="content: text of the request that the model repeats"
    ),
    "stop_details": Row(
        {"type": "refusal", "category": "cyber", "explanation": CONTENT},
        {"response.stop_details": "cyber"},
        {semconv.STOP_DETAILS: "cyber"},
        (*NOT_OBJECT, {}, {"category": None}, {"category": 1}),
        (),
        ({"category": HUGE}, CUT, "cut_text"),
        why="its explanation is content",
    ),
    "container": Row(
        {"id": "container_1", "expires_at": "2026-11-24T12:00:00Z"},
        {"response.container": "container_1"},
        {semconv.CONTAINER_ID: "container_1"},
        (*NOT_OBJECT, {}, {"id": 1}),
        (),
        ({"id": HUGE}, CUT, "cut_text"),
    ),
    "provider": text_row("Amazon Bedrock", "response.provider", semconv.UPSTREAM_PROVIDER),
    "context_management": Row(
        {"applied_edits": [{"type": "compact_20260112", "summary": CONTENT}]},
        {"response.applied_edits": ("compact_20260112",)},
        {semconv.APPLIED_EDITS: ("compact_20260112",)},
        (*NOT_OBJECT, {}, {"applied_edits": 1}, {"applied_edits": []}),
        (({"applied_edits": [1, {}, {"type": "a"}]}, ("a",)),),
        ({"applied_edits": [{"type": "a"}] * 1000}, ("a",) * 32, "cut_list"),
    ),
}


def tokens_row(value: int, place: str, attribute: str, shown: int | None = None) -> Row:
    """A count of tokens, which stays within JSON's safe integers."""
    facts, attributes = {f"response.usage.{place}": value}, {attribute: shown or value}
    return Row(value, facts, attributes, NOT_COUNT, ((2**53 - 1, 2**53 - 1), (0, 0)), (2**53, None, "wrong_type"))


def usage_text_row(value: str, attribute: str, place: str) -> Row:
    """A word in the usage."""
    return text_row(value, f"response.usage.{place}", attribute)


USAGE: dict[str, Row] = {
    "input_tokens": tokens_row(412, "input_tokens", semconv.INPUT_TOKENS, 412 + 4900 + 1500),
    "output_tokens": tokens_row(188, "output_tokens", semconv.OUTPUT_TOKENS),
    "cache_read_input_tokens": tokens_row(4900, "cache_read_tokens", semconv.CACHE_READ_TOKENS),
    "cache_creation_input_tokens": tokens_row(1500, "cache_write_tokens", semconv.CACHE_WRITE_TOKENS),
    "cache_creation": Row(
        {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 500},
        {"response.usage.cache_write_5m_tokens": 1000, "response.usage.cache_write_1h_tokens": 500},
        {semconv.CACHE_WRITE_5M_TOKENS: 1000, semconv.CACHE_WRITE_1H_TOKENS: 500},
        (*NOT_OBJECT, {}, {"ephemeral_5m_input_tokens": -1}),
        (({"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 500}, 7),),
        ({"ephemeral_5m_input_tokens": 2**63, "ephemeral_1h_input_tokens": 500}, None, "wrong_type"),
    ),
    "output_tokens_details": Row(
        {"thinking_tokens": 96},
        {"response.usage.thinking_tokens": 96},
        {semconv.REASONING_TOKENS: 96},
        (*NOT_OBJECT, {}, {"thinking_tokens": "96"}),
        (),
        ({"thinking_tokens": 10**30}, None, "wrong_type"),
    ),
    "server_tool_use": Row(
        {"web_search_requests": 2, "web_fetch_requests": 1},
        {"response.usage.web_search_requests": 2, "response.usage.web_fetch_requests": 1},
        {semconv.WEB_SEARCHES: 2, semconv.WEB_FETCHES: 1},
        (*NOT_OBJECT, {}, {"web_search_requests": 1.5}),
        (({"web_search_requests": 9, "web_fetch_requests": 1}, 9),),
        ({"web_search_requests": 2**63, "web_fetch_requests": 1}, None, "wrong_type"),
    ),
    "service_tier": usage_text_row("priority", semconv.RESPONSE_SERVICE_TIER, "service_tier"),
    "speed": usage_text_row("fast", semconv.RESPONSE_SPEED, "speed"),
    "inference_geo": usage_text_row("us", semconv.RESPONSE_GEO, "inference_geo"),
    "iterations": Row(
        [
            {
                "type": "message",
                "model": "m",
                "input_tokens": 1,
                "output_tokens": 2,
                "cache_read_input_tokens": 3,
                "cache_creation_input_tokens": 11,
                "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 6},
            }
        ],
        {
            "response.usage.iterations": (
                Iteration(
                    type="message",
                    model="m",
                    input_tokens=1,
                    output_tokens=2,
                    cache_read_tokens=3,
                    cache_write_tokens=11,
                    cache_write_5m_tokens=5,
                    cache_write_1h_tokens=6,
                ),
            )
        },
        {semconv.ITERATIONS: 1},
        (*NOT_LIST, []),
        (([1, {"type": "message", "input_tokens": "1"}], (Iteration(type="message"),)),),
        ([{}] * 1000, (Iteration(),) * 256, "cut_list"),
        why="attributes are flat: counted only",
    ),
    "cost": Row(
        0.0055,
        {"response.usage.cost": 0.0055},
        {semconv.COST: 0.0055},
        (*NOT_NUMBER, -0.1),
        ((0, 0.0),),
        (math.inf, None, "wrong_type"),
    ),
    "cost_details": Row(
        {"upstream_inference_cost": 0.005},
        {"response.usage.upstream_cost": 0.005},
        {semconv.UPSTREAM_COST: 0.005},
        (*NOT_OBJECT, {}, {"upstream_inference_cost": "1"}),
        (),
        ({"upstream_inference_cost": 1e300}, None, "wrong_type"),
    ),
    "is_byok": Row(True, {"response.usage.is_byok": True}, {semconv.IS_BYOK: True}, NOT_BOOLEAN, ((False, False),)),
}

USED = msgspec.structs.replace(
    Usage(), **{place.rpartition(".")[2]: fact for row in USAGE.values() for place, fact in row.facts.items()}
)

RESPONSE["usage"] = Row(
    {name: row.valid for name, row in USAGE.items()},
    {"response.usage": USED},
    {name: value for row in USAGE.values() for name, value in row.attributes.items()},
    (*NOT_OBJECT, {}, {"unheard_of": 1}),
    (({"output_tokens": 9, "cost": "0.1"}, Usage(output_tokens=9)),),
)

# As the documentation of OpenRouter's endpoint lists them, whose fields are a superset of Anthropic's.
DOCUMENTED_REQUEST = [
    "messages",
    "model",
    "cache_control",
    "context_management",
    "max_tokens",
    "metadata",
    "models",
    "output_config",
    "plugins",
    "provider",
    "route",
    "service_tier",
    "session_id",
    "speed",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
    "trace",
    "user",
]
DOCUMENTED_RESPONSE = [
    "container",
    "content",
    "id",
    "model",
    "role",
    "stop_reason",
    "stop_sequence",
    "type",
    "provider",
    "usage",
]

TABLES = (REQUEST, RESPONSE, USAGE)
BASE_REQUEST = {name: row.valid for name, row in REQUEST.items() if not row.instead_of}
BASE_RESPONSE = {name: row.valid for name, row in RESPONSE.items()}

# The attributes that every such call has, whatever its fields.
COMMON = {
    semconv.OPERATION_NAME,
    semconv.PROVIDER_NAME,
    semconv.SERVER_ADDRESS,
    semconv.SERVER_PORT,
    semconv.HTTP_STATUS,
    semconv.CLIENT,
    semconv.DURATION,
    semconv.TIME_TO_HEADERS,
    semconv.TIME_TO_FIRST_CHUNK,
    semconv.LONGEST_STALL,
}


def changed(record: CallRecord, facts: Mapping[str, object]) -> CallRecord:
    """The record with other facts at these places."""
    for place, value in facts.items():
        *parents, name = place.split(".")
        structs: list[Any] = [record]
        for parent in parents:
            structs.append(getattr(structs[-1], parent))
        part = msgspec.structs.replace(structs.pop(), **{name: value})
        for parent in reversed(parents):
            part = msgspec.structs.replace(structs.pop(), **{parent: part})
        record = part
    return record


def default(place: str) -> object:
    """What a place holds where nothing was said."""
    shapes: dict[str, type[msgspec.Struct]] = {
        "request": MessageRequest,
        "correlation": Correlation,
        "response": MessageResponse,
        "response.usage": Usage,
    }
    shape, _, name = place.rpartition(".")
    return next(field.default for field in msgspec.structs.fields(shapes[shape]) if field.name == name)


def facts_of(rows: Mapping[str, Row], *, but: str = "") -> dict[str, object]:
    """What all places of these rows hold when all is valid, but for one row."""
    return {place: fact for name, row in rows.items() if name != but for place, fact in row.facts.items()}


def assert_facts(record: CallRecord, facts: Mapping[str, object]) -> None:
    """The record says this, and nothing else, of request, caller and response; and the call was a success."""
    blank = msgspec.structs.replace(
        record, request=MessageRequest(), correlation=Correlation(), response=MessageResponse()
    )
    assert changed(blank, facts) == record
    assert (Ending.COMPLETE, None, 200) == (record.ending, record.error_type, record.status)


def streamed(document: Mapping[str, object]) -> Reply:
    """A message as a stream that says the same."""
    late = {
        name: document[name]
        for name in ("stop_reason", "stop_sequence", "stop_details", "container")
        if name in document
    }
    rest = {
        name: value for name, value in document.items() if name not in {*late, "usage", "content", "context_management"}
    }
    last = {name: document[name] for name in ("usage", "context_management") if name in document}
    content = document.get("content")
    blocks = content if isinstance(content, list) else []
    events = [
        ("message_start", {"message": rest | {"usage": {"output_tokens": 1}}}),
        *(("content_block_start", {"index": 0, "content_block": block}) for block in blocks),
        ("message_delta", {"delta": late, **last}),
        ("message_stop", {"type": "message_stop"}),
    ]
    data = b"".join(sse(name, event) for name, event in events)
    return Reply(headers=(("content-type", "text/event-stream"),), body=(data,), framing="length")


class Wire:
    """One client and one endpoint, which answers what it is told to."""

    def __init__(self) -> None:
        self.reply = whole(BASE_RESPONSE)
        self.span_name = ""
        self.endpoint = Endpoint(respond=self._respond)

    def _respond(self, _: Received) -> Reply:
        return self.reply

    def send(self, client: httpx2.Client, body: bytes) -> tuple[CallRecord, dict[str, Any]]:
        """The record of a call, and the attributes of its span, once it is clear that it was left as it was."""
        spans, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(spans))
        failed = shield.counts().get("internal_error", 0)
        msgtap.instrument(tracer_provider=provider)
        with capture_calls() as calls:
            response = client.post(
                f"{self.endpoint.url}/v1/messages", content=body, headers={"content-type": "application/json"}
            )
        msgtap.uninstrument()
        assert failed == shield.counts().get("internal_error", 0)
        assert body == self.endpoint.received[-1].body
        assert b"".join(step for step in self.reply.body if isinstance(step, bytes)) == response.content
        (call,), (span,) = calls, spans.get_finished_spans()
        self.span_name = span.name
        attributes = dict(span.attributes or {})
        assert [] == [name for name, value in attributes.items() if not legal(value)]
        encode_spans([span]).SerializeToString()
        assert CONTENT not in repr((call, span.name, attributes))
        return call, attributes


def legal(value: object) -> bool:
    """Whether a value is one that OTLP carries."""
    if isinstance(value, str):
        return len(value) <= 1024 and not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, tuple):
        return all(isinstance(part, str) and legal(part) for part in value)
    return isinstance(value, int | float) and (
        -(2**63) <= value < 2**63 if isinstance(value, int) else math.isfinite(value)
    )


@pytest.fixture(scope="module")
def client() -> Iterator[httpx2.Client]:
    """A real client."""
    with httpx2.Client() as made:
        yield made


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """A real endpoint."""
    made = Wire()
    with made.endpoint:
        yield made


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MSGTAP_SESSION_ID", "MSGTAP_USER_ID", "MSGTAP_IDENTIFIERS"):
        monkeypatch.delenv(name, raising=False)


def written(document: Mapping[str, object]) -> bytes:
    """JSON as many programs write it, ``NaN`` and all."""
    return json.dumps(document, ensure_ascii=False).encode()


class Case(NamedTuple):
    """What is sent in a field, and what its first place then holds; ``ABSENT``: what all hold if nothing is said."""

    field: str
    how: str
    value: object
    fact: object


def cases(rows: Mapping[str, Row]) -> list[Any]:
    """Every row in every way, as parameters of a test."""
    found: list[Case] = []
    for name, row in rows.items():
        found += [
            Case(name, "valid", row.valid, next(iter(row.facts.values()))),
            Case(name, "null", None, ABSENT),
            Case(name, "absent", ABSENT, ABSENT),
            *(Case(name, f"wrong {number}", value, ABSENT) for number, value in enumerate(row.wrong)),
            *(Case(name, f"partly {number}", *pair) for number, pair in enumerate(row.partly)),
        ]
        if row.oversized is not NO_SIZE:
            found.append(Case(name, "oversized", *row.oversized[:2]))
    return [pytest.param(case, id=f"{case.field}-{case.how}") for case in found]


def with_field(document: Mapping[str, object], case: Case) -> dict[str, object]:
    """The document with the case's value in its field."""
    return {name: part for name, part in {**document, case.field: case.value}.items() if part is not ABSENT}


def expected_facts(row: Row, case: Case) -> dict[str, object]:
    """What the row's places hold."""
    if case.fact is ABSENT:
        return {place: default(place) for place in row.facts}
    return {**row.facts, next(iter(row.facts)): case.fact}


def check(row: Row, case: Case, attributes: Mapping[str, Any], before: Mapping[str, int]) -> None:
    """Attributes and counts are as the row says.

    Its attributes are there if the field is valid, and say nothing of it if it is absent; what is cut off is counted.
    """
    for name, value in row.attributes.items():
        if case.how == "valid":
            assert (name, value) == (name, attributes.get(name))
        elif case.fact is ABSENT:
            assert (name, value) != (name, attributes.get(name))
    if case.how == "oversized" and row.oversized[2]:
        assert before.get(row.oversized[2], 0) < shield.counts()[row.oversized[2]]
    if case.how in {"valid", "null", "absent"}:
        assert before == shield.counts()


def whole(document: Mapping[str, object]) -> Reply:
    """A message as a whole body."""
    return Reply(headers=(("content-type", "application/json"),), body=(written(document),), framing="length")


@pytest.mark.parametrize("case", cases(REQUEST))
def test_request_field(case: Case, wire: Wire, client: httpx2.Client) -> None:
    """A field of the request costs itself and nothing else, whatever is sent in it; what is cut off is counted."""
    row, before = REQUEST[case.field], shield.counts()
    base = {name: valid for name, valid in BASE_REQUEST.items() if name != row.instead_of}
    wire.reply = whole(BASE_RESPONSE)
    record, attributes = wire.send(client, written(with_field(base, case)))
    others = facts_of({name: REQUEST[name] for name in base}, but=case.field) | facts_of(RESPONSE)
    assert_facts(record, others | expected_facts(row, case))
    check(row, case, attributes, before)


@pytest.mark.parametrize("reply", [whole, streamed])
@pytest.mark.parametrize("case", cases(RESPONSE))
def test_response_field(case: Case, reply: Form, wire: Wire, client: httpx2.Client) -> None:
    """A field of the response costs itself and nothing else, whatever comes in it; what is cut off is counted."""
    row, before = RESPONSE[case.field], shield.counts()
    wire.reply = reply(with_field(BASE_RESPONSE, case))
    record, attributes = wire.send(client, written({"model": "m"}))
    others = {"request.model": "m"} | facts_of(RESPONSE, but=case.field)
    assert_facts(record, others | expected_facts(row, case))
    check(row, case, attributes, before)


@pytest.mark.parametrize("reply", [whole, streamed])
@pytest.mark.parametrize("case", cases(USAGE))
def test_usage_field(case: Case, reply: Form, wire: Wire, client: httpx2.Client) -> None:
    """A field of the usage costs itself and nothing else, whatever comes in it; what is cut off is counted."""
    row, before = USAGE[case.field], shield.counts()
    usage = with_field({name: other.valid for name, other in USAGE.items()}, case)
    wire.reply = reply({**BASE_RESPONSE, "usage": usage})
    record, attributes = wire.send(client, written({"model": "m"}))
    others = {"request.model": "m"} | facts_of(RESPONSE, but="usage") | facts_of(USAGE, but=case.field)
    assert_facts(record, others | expected_facts(row, case))
    check(row, case, attributes, before)


def test_every_documented_field_has_a_row() -> None:
    """The 25 fields of a request, the two newer ones, and the 10 of a response are all above."""
    assert (25, 10) == (len(DOCUMENTED_REQUEST), len(DOCUMENTED_RESPONSE))
    assert {*DOCUMENTED_REQUEST, "fallbacks", "stop_server_tools_when"} == set(REQUEST)
    assert {field.encode_name for field in msgspec.structs.fields(wire_request._Body)} == set(REQUEST)
    assert {*DOCUMENTED_RESPONSE, "stop_details", "context_management"} == set(RESPONSE)


@pytest.mark.parametrize(
    ("shape", "rows", "parent"),
    [
        (MessageRequest, REQUEST, "request"),
        (Correlation, REQUEST, "correlation"),
        (MessageResponse, RESPONSE, "response"),
        (Usage, USAGE, "response.usage"),
    ],
)
def test_every_place_has_a_row(shape: type[msgspec.Struct], rows: Mapping[str, Row], parent: str) -> None:
    """A field that is added to the record needs a row, which says where it comes from and what becomes of it."""
    places = {place for place in facts_of(rows) if place.rpartition(".")[0] == parent}
    assert {f"{parent}.{name}" for name in shape.__struct_fields__} == places


def test_every_part_of_a_place_is_sent() -> None:
    """The valid value of each row fills its places to the last part, so that a part that is added needs a value."""

    def empty(value: object, place: str) -> Iterator[str]:
        if isinstance(value, msgspec.Struct):
            for field in msgspec.structs.fields(value):
                part = getattr(value, field.name)
                yield from [f"{place}.{field.name}"] if part == field.default else empty(part, f"{place}.{field.name}")
        elif isinstance(value, tuple):
            for number, part in enumerate(value):
                yield from empty(part, f"{place}.{number}")

    facts = facts_of(REQUEST) | facts_of(RESPONSE) | facts_of(USAGE)
    assert [] == [name for place, value in facts.items() for name in empty(value, place)]


def test_every_row_has_an_attribute_or_a_reason() -> None:
    """A fact that is on no span is left off for a reason, which the row gives."""
    assert [] == [name for rows in TABLES for name, row in rows.items() if not row.attributes and not row.why]


def test_every_attribute_has_a_row(wire: Wire, client: httpx2.Client) -> None:
    """No attribute is on the span of a call but those of the rows, and those that every call has."""
    named = {name for rows in TABLES for row in rows.values() for name in row.attributes}
    for reply in (whole, streamed):
        wire.reply = reply(BASE_RESPONSE)
        _, attributes = wire.send(client, written(BASE_REQUEST))
        assert named == set(attributes) - COMMON


# Who calls, composed of what people really send; the last one is hostile.
SCENARIOS: dict[str, tuple[dict[str, object], Correlation, str]] = {
    "a trace of the program's own": (
        {
            "trace": {
                "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
                "parent_span_id": "00f067aa0ba902b7",
                "generation_name": "summarise-discharge",
                "environment": "staging",
                "ward": "7B",
            },
            "session_id": "encounter-88213",
            "user": "clinician-hash-19fa",
        },
        Correlation(
            session_id="encounter-88213",
            session_source="body",
            user_id="clinician-hash-19fa",
            user_source="body",
            trace=Trace(
                trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
                parent_span_id="00f067aa0ba902b7",
                generation_name="summarise-discharge",
                metadata=(("environment", "staging"), ("ward", "7B")),
            ),
        ),
        "summarise-discharge",
    ),
    "a free-form id": (
        {
            "trace": {
                "trace_id": "research-run-5512",
                "trace_name": "quarterly-brief",
                "span_name": "gather",
                "generation_name": "planner/outline",
                "agent_role": "planner",
                "round": 3,
                "budget_usd": 0.4,
            }
        },
        Correlation(
            trace=Trace(
                trace_id="research-run-5512",
                trace_name="quarterly-brief",
                span_name="gather",
                generation_name="planner/outline",
                metadata=(("agent_role", "planner"), ("round", 3), ("budget_usd", 0.4)),
            )
        ),
        "planner/outline",
    ),
    "session and user only": (
        {"session_id": "conv_01HX9", "user": "cust_4471"},
        Correlation(session_id="conv_01HX9", session_source="body", user_id="cust_4471", user_source="body"),
        "chat m",
    ),
    "hostile": (
        {
            "trace": {
                "trace_id": "",
                "parent_span_id": "not-hex",
                "generation_name": "x\ny",
                "ctx": {"a": {"b": {"c": {"d": 1}}}},
                "blob": HUGE,
                "gen_ai.system": "spoof",
                "n": None,
                "ok": True,
            },
            "session_id": "s\0id",
            "user": "person@example.com",
        },
        Correlation(
            session_id="s\0id",
            session_source="body",
            user_id="person@example.com",
            user_source="body",
            trace=Trace(
                parent_span_id="not-hex",
                generation_name="x\ny",
                metadata=(
                    ("ctx", '{"a":{"b":{"c":{"d":1}}}}'),
                    ("blob", "x" * 1023 + "…"),
                    ("gen_ai.system", "spoof"),
                    ("ok", True),
                ),
            ),
        ),
        "chat m",
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_who_calls(name: str, wire: Wire, client: httpx2.Client) -> None:
    """What people really send in ``trace``, ``session_id`` and ``user``; a name that is none is no span's name."""
    sent, correlation, span_name = SCENARIOS[name]
    wire.reply = whole(BASE_RESPONSE)
    record, attributes = wire.send(client, written({"model": "m", **sent}))
    assert (correlation, span_name) == (record.correlation, wire.span_name)
    metadata = correlation.trace.metadata if correlation.trace else ()
    assert {f"{semconv.TRACE_METADATA}{key}": value for key, value in metadata} == {
        name: value for name, value in attributes.items() if name.startswith(semconv.TRACE_METADATA)
    }
    assert "gen_ai.system" not in attributes  # nobody speaks for the conventions but us
