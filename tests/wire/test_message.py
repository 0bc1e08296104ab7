"""One response by two roads: a whole body, or a stream of events."""

from __future__ import annotations

import functools
import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgtap import shield
from msgtap.record import ErrorBody, Iteration, MessageResponse, Usage
from msgtap.wire.decoding import TEXT_LIMIT
from msgtap.wire.message import BLOCK_LIMIT, event_name, fold, is_whole, read_body, read_error

USAGE: dict[str, object] = {
    "input_tokens": 412,
    "output_tokens": 188,
    "cache_read_input_tokens": 4900,
    "cache_creation_input_tokens": 1500,
    "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 500},
    "output_tokens_details": {"thinking_tokens": 96},
    "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
    "service_tier": "priority",
    "speed": "fast",
    "inference_geo": "us",
    "iterations": [
        {"type": "message", "input_tokens": 400, "output_tokens": 100, "cache_read_input_tokens": 4900},
        {
            "type": "advisor_message",
            "model": "claude-opus-5",
            "input_tokens": 12,
            "output_tokens": 88,
            "cache_creation_input_tokens": 1500,
            "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 500},
        },
    ],
    "cost": 0.0055,
    "cost_details": {"upstream_inference_cost": 0.005, "upstream_inference_prompt_cost": 0.002},
    "is_byok": True,
    "fallback_credit": {"type": "redeemed"},
}
MESSAGE: dict[str, object] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5",
    "content": [{"type": "thinking", "thinking": "…", "signature": "…"}, {"type": "text", "text": "Hello"}],
    "stop_reason": "refusal",
    "stop_sequence": "END",
    "stop_details": {"type": "refusal", "category": "cyber", "explanation": "words of the model"},
    "container": {"id": "container_1", "expires_at": "2026-11-24T12:00:00Z", "skills": []},
    "provider": "Amazon Bedrock",
    "context_management": {"applied_edits": [{"type": "clear_tool_uses_20250919", "cleared_tool_uses": 3}]},
    "usage": USAGE,
    "openrouter_metadata": {"attempt": 1},
}
RESPONSE = MessageResponse(
    id="msg_1",
    type="message",
    role="assistant",
    model="claude-sonnet-5",
    content=("thinking", "text"),
    stop_reason="refusal",
    stop_sequence="END",
    stop_details="cyber",
    container="container_1",
    provider="Amazon Bedrock",
    applied_edits=("clear_tool_uses_20250919",),
    usage=Usage(
        input_tokens=412,
        output_tokens=188,
        cache_read_tokens=4900,
        cache_write_tokens=1500,
        cache_write_5m_tokens=1000,
        cache_write_1h_tokens=500,
        thinking_tokens=96,
        web_search_requests=2,
        web_fetch_requests=1,
        service_tier="priority",
        speed="fast",
        inference_geo="us",
        iterations=(
            Iteration(type="message", input_tokens=400, output_tokens=100, cache_read_tokens=4900),
            Iteration(
                type="advisor_message",
                model="claude-opus-5",
                input_tokens=12,
                output_tokens=88,
                cache_write_tokens=1500,
                cache_write_5m_tokens=1000,
                cache_write_1h_tokens=500,
            ),
        ),
        cost=0.0055,
        upstream_cost=0.005,
        is_byok=True,
    ),
)


def folded(*events: tuple[str, dict[str, Any]]) -> MessageResponse:
    """What these events fold into."""
    pairs = [(name, json.dumps(data).encode()) for name, data in events]
    return functools.reduce(lambda response, pair: fold(response, *pair), pairs, MessageResponse())


def delta(usage: dict[str, object] | None = None, **said: object) -> tuple[str, dict[str, Any]]:
    """A ``message_delta`` event."""
    return "message_delta", {"type": "message_delta", "delta": said, "usage": usage}


def start(**said: object) -> tuple[str, dict[str, Any]]:
    """A ``message_start`` event."""
    return "message_start", {"type": "message_start", "message": said}


def test_every_field_of_a_body() -> None:
    """A body with all that is documented is read in one go, and nothing is counted; its text is left out."""
    before = dict(shield.counts())
    assert read_body(json.dumps(MESSAGE).encode()) == RESPONSE
    assert before == shield.counts()
    assert "words of the model" not in repr(RESPONSE)


def test_every_field_is_tested() -> None:
    """No field of a response or of its usage is left at its default above, so that a new one shows here."""
    for facts in (RESPONSE, RESPONSE.usage):
        fields = msgspec.structs.fields(facts)
        assert [] == [field.name for field in fields if getattr(facts, field.name) == field.default]


def test_a_stream_folds_into_the_same() -> None:
    """The facts of a body, spread over a stream as they are in reality, fold into the same response."""
    late = ("stop_reason", "stop_sequence", "stop_details", "container")
    once = ("cache_creation", "service_tier", "inference_geo", "speed")
    first = {**MESSAGE, "content": [], **dict.fromkeys(late), "usage": {name: USAGE[name] for name in once}}
    last = {name: value for name, value in USAGE.items() if name not in once}
    name, ending = delta(last, **{name: MESSAGE[name] for name in late})
    events = [
        start(**first),
        ("content_block_start", {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}}),
        ("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta"}}),
        ("content_block_stop", {"type": "content_block_stop", "index": 0}),
        ("content_block_start", {"type": "content_block_start", "index": 1, "content_block": {"type": "text"}}),
        (name, {**ending, "context_management": MESSAGE["context_management"]}),
        ("message_stop", {"type": "message_stop", "openrouter_metadata": {}}),
    ]
    assert RESPONSE == folded(*events)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        # what is only a placeholder is not a count
        ([start(usage={"input_tokens": 5, "output_tokens": 1})], Usage(input_tokens=5)),
        # a later count replaces an earlier one, also by a smaller one, and by zero
        ([delta({"output_tokens": 5}), delta({"output_tokens": 9})], Usage(output_tokens=9)),
        ([delta({"output_tokens": 5}), delta({"output_tokens": 0})], Usage(output_tokens=0)),
        ([start(usage={"input_tokens": 0}), delta({"input_tokens": 7})], Usage(input_tokens=7)),
        # absent or null keeps what was known
        ([delta({"output_tokens": 5}), delta({"output_tokens": None})], Usage(output_tokens=5)),
        ([delta({"output_tokens": 5}), delta({})], Usage(output_tokens=5)),
        ([delta({"output_tokens": 5}), delta()], Usage(output_tokens=5)),
        ([delta({"output_tokens": 5}), ("message_delta", {})], Usage(output_tokens=5)),
        # so do the parts of what is split up
        (
            [
                start(usage={"cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2}}),
                delta({"cache_creation": {"ephemeral_1h_input_tokens": 3}}),
            ],
            Usage(cache_write_5m_tokens=1, cache_write_1h_tokens=3),
        ),
        # but the rounds of sampling are one fact
        (
            [
                delta({"iterations": [{"type": "message"}, {"type": "message"}]}),
                delta({"iterations": [{"type": "compaction"}]}),
            ],
            Usage(iterations=(Iteration(type="compaction"),)),
        ),
        # the cost comes at the end only
        ([start(usage={"cost": 1}), delta({"cost": 0.5, "is_byok": False})], Usage(cost=0.5, is_byok=False)),
        # and what is wrong is as if it were absent
        ([delta({"output_tokens": 5}), delta({"output_tokens": "9"})], Usage(output_tokens=5)),
        (
            [delta({"output_tokens": 5, "cost": 0.1}), delta({"output_tokens": 6, "cost": -1})],
            Usage(output_tokens=6, cost=0.1),
        ),
        ([("message_start", {}), ("message_start", {"message": 1})], Usage()),
    ],
)
def test_counts_overwrite(events: list[tuple[str, dict[str, Any]]], expected: Usage) -> None:
    """A later count replaces an earlier one; absent, null or wrong keeps what was known; nothing is added up."""
    assert expected == folded(*events).usage


def test_stop_reason_comes_late() -> None:
    """The null of ``message_start`` is replaced by what ``message_delta`` says, which a later null leaves."""
    assert (
        "end_turn"
        == folded(start(stop_reason=None), delta(stop_reason="end_turn"), delta(stop_reason=None)).stop_reason
    )


def test_events_of_no_interest_change_nothing() -> None:
    """Any other event leaves the very object as it was."""
    for name in (
        "content_block_delta",
        "content_block_stop",
        "message_stop",
        "ping",
        "error",
        "data",
        "unheard_of",
        "",
    ):
        assert fold(RESPONSE, name, b'{"message": {"id": "other"}, "usage": {"input_tokens": 1}}') is RESPONSE
        assert fold(RESPONSE, "message_delta", b"nonsense") is RESPONSE


def test_blocks_are_counted_up_to_a_limit() -> None:
    """The types of the blocks are listed, of a body as of a stream, up to a limit; the rest is counted."""
    many = [{"type": "text"}] * (BLOCK_LIMIT + 1)
    before = shield.counts().get("cut_list", 0)
    body = read_body(json.dumps({"content": many}).encode())
    stream = folded(*[("content_block_start", {"content_block": block}) for block in many])
    assert body == stream == MessageResponse(content=("text",) * BLOCK_LIMIT)
    assert before + 2 == shield.counts()["cut_list"]


@pytest.mark.parametrize(
    ("block", "expected"), [({"type": "text"}, "text"), ({"type": 1}, ""), ({}, ""), (None, ""), ("text", "")]
)
def test_odd_blocks_keep_their_place(block: object, expected: str) -> None:
    """In a stream a block of unknown type is one all the same."""
    text = ("content_block_start", {"content_block": {"type": "text"}})
    assert ("text", expected, "text") == folded(text, ("content_block_start", {"content_block": block}), text).content


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", ErrorBody()),
        (b'{"error": null}', ErrorBody()),
        (b'{"error": "text"}', ErrorBody()),
        (b'{"error": {"message": "sk-ant-echoed"}}', ErrorBody()),
        (b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}', ErrorBody(type="overloaded_error")),
        (b'{"error": {"type": "sk-ant-echoed", "error_type": "Sk", "details": {"error_code": "a b"}}}', ErrorBody()),
        (b'{"error": {"type": "api_error", "error_type": "server"}}', ErrorBody(type="api_error", error_type="server")),
        (
            b'{"error": {"type": "a", "details": {"error_code": "model_not_found"}}, "request_id": "req_1"}',
            ErrorBody(type="a", code="model_not_found", request_id="req_1"),
        ),
        (b'{"error": {"type": 5, "details": []}, "request_id": null}', ErrorBody()),
        (b'{"error": {"code": 401, "message": "No auth"}, "user_id": "u"}', ErrorBody()),
        (b"[]", None),
        (b"", None),
        (b"<html>", None),
    ],
)
def test_error_bodies(body: bytes, expected: ErrorBody | None) -> None:
    """Of an error only its machine-readable words are kept; never its text."""
    assert expected == read_error(body)


def test_long_request_id_of_an_error_is_cut() -> None:
    """An id is bounded as every text is."""
    error = read_error(json.dumps({"request_id": "x" * 1000}).encode())
    assert error == ErrorBody(request_id="x" * (TEXT_LIMIT - 1) + "…")


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("ping", b"", "ping"),
        ("ping", b'{"type":"message_start"}', "ping"),
        ("", b"", ""),
        ("", b"[DONE]", ""),
        ("", b'{"type":"message_start"}', "message_start"),
        ("", b' \n{ "type" : "message_start", "x": 1}', "message_start"),
        ("", b'{"index": 0, "type": "message_start"}', "message_start"),
        ("", b'{"type": "Odd-Name"}', "Odd-Name"),
        ("", b'{"type": 1}', ""),
        ("", b"{}", ""),
        ("", b"{nonsense", ""),
    ],
)
def test_name_of_an_event(name: str, data: bytes, expected: str) -> None:
    """The frame's name, else the type in the data, wherever it stands."""
    assert expected == event_name(name, data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"{}", True), (b'{"type": "x"}', True), (b'{"type": "x', False), (b"", False), (b"[DONE]", False)],
)
def test_whole_or_a_part(data: bytes, expected: bool) -> None:
    """A JSON object is whole; a part of one, or nothing, is not."""
    assert expected == is_whole(data)


KEYS = st.sampled_from(
    [*MESSAGE, *USAGE, "message", "delta", "content_block", "usage", "error", "category", "applied_edits"]
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=16,
)
# One wrong field in a message that is right otherwise reaches places that wholly random JSON seldom does.
MESSAGES = st.dictionaries(st.sampled_from([*MESSAGE]), JSON, max_size=3).map(lambda odd: {**MESSAGE, **odd})
USAGES = st.dictionaries(st.sampled_from([*USAGE]), JSON, max_size=3).map(
    lambda odd: {**MESSAGE, "usage": {**USAGE, **odd}}
)


def assert_exportable(value: object) -> None:
    """Every number and text of these facts is one that OTLP carries."""
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            assert_exportable(getattr(value, name))
    elif isinstance(value, tuple):
        for part in value:
            assert_exportable(part)
    elif isinstance(value, str):
        assert len(value.encode()) < 4096
    elif isinstance(value, float):
        assert math.isfinite(value)
        assert value >= 0
    else:
        assert value is None or (isinstance(value, int) and 0 <= value < 2**53)


@settings(deadline=None)
@given(MESSAGES | USAGES | JSON, st.sampled_from(["message_start", "content_block_start", "message_delta"]))
def test_any_json_gives_facts_that_can_be_exported(value: object, name: str) -> None:
    """Whatever JSON a body or an event is, reading it raises nothing, and every fact is sound."""
    data = json.dumps(value).encode()
    assert_exportable(read_body(data) or MessageResponse())
    assert_exportable(read_error(data) or ErrorBody())
    for wrapped in (value, {"message": value, "delta": value, "content_block": value, "usage": value}):
        assert_exportable(fold(RESPONSE, name, json.dumps(wrapped).encode()))


@settings(deadline=None)
@given(
    st.binary(max_size=40),
    st.integers(0, 1500),
    st.integers(0, 1500),
    st.sampled_from(["message_start", "message_delta"]),
)
def test_any_bytes_raise_nothing(junk: bytes, begin: int, end: int, name: str) -> None:
    """Whatever bytes stand in whatever place of a body, reading it raises nothing."""
    body = json.dumps(MESSAGE).encode()
    for data in (junk, body[:begin] + junk + body[end:]):
        assert_exportable(read_body(data) or MessageResponse())
        read_error(data)
        fold(RESPONSE, name, data)
        event_name("", data)
        is_whole(data)
