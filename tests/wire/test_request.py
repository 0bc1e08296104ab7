"""The request body, read once."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgtap import shield
from msgtap.record import MessageRequest, OutputConfig, ProviderPreferences, Thinking, ToolChoice, Trace
from msgtap.wire import request
from msgtap.wire.decoding import LIST_LIMIT, TEXT_LIMIT
from msgtap.wire.request import METADATA_LIMIT, Claims, read_request, read_trace

# What OpenRouter's documentation gives as a full example, with the remaining documented fields added.
EVERYTHING: dict[str, object] = {
    "model": "anthropic/claude-sonnet-4.6",
    "max_tokens": 800,
    "stream": True,
    "system": [{"type": "text", "text": "You triage claims.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [{"role": "user", "content": [{"type": "image", "source": {"data": "aGVsbG8="}}]}],
    "tools": [{"name": "lookup", "input_schema": {"type": "object"}}, {"type": "web_search_20250305"}],
    "temperature": 1,
    "top_p": 0.9,
    "top_k": 40,
    "stop_sequences": ["END", "STOP"],
    "tool_choice": {"type": "tool", "name": "lookup", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"},
    "output_config": {
        "effort": "high",
        "format": {"type": "json_schema", "schema": {"type": "object"}},
        "task_budget": {"type": "tokens", "total": 20000},
    },
    "context_management": {"edits": [{"type": "clear_tool_uses_20250919", "keep": {"type": "tool_uses", "value": 3}}]},
    "provider": {
        "order": ["anthropic", "amazon-bedrock"],
        "sort": {"by": "price", "partition": "model"},
        "allow_fallbacks": True,
        "zdr": True,
        "max_price": {"prompt": "1"},
    },
    "fallbacks": [{"model": "a/b"}, {"model": "c/d"}],
    "user": "adjuster-7781",
    "session_id": "claim-2026-004411",
    "metadata": {"user_id": "u-1", "api_key": "not ours"},
    "trace": {"trace_name": "claims-intake", "attempt": 2, "beta": False, "labels": ["glass", "gravel"], "none": None},
    "deferred_tools": ["unknown to us"],
}


def written(**fields: object) -> bytes:
    """A request body with these fields."""
    return json.dumps(fields).encode()


def test_everything_at_once() -> None:
    """A request with all that is documented is read in one go, and nothing is counted."""
    before = dict(shield.counts())
    asked, claims = read_request(json.dumps(EVERYTHING).encode())
    assert (
        MessageRequest(
            model="anthropic/claude-sonnet-4.6",
            messages=1,
            system=1,
            max_tokens=800,
            stream=True,
            temperature=1.0,
            top_p=0.9,
            top_k=40.0,
            stop_sequences=2,
            tools=2,
            tool_choice=ToolChoice(type="tool", name="lookup", disable_parallel_tool_use=True),
            thinking=Thinking(type="enabled", budget_tokens=1024, display="omitted"),
            output_config=OutputConfig(effort="high", format="json_schema", task_budget_tokens=20000),
            context_management=("clear_tool_uses_20250919",),
            fallbacks=("a/b", "c/d"),
            provider=ProviderPreferences(
                order=("anthropic", "amazon-bedrock"), sort="price", allow_fallbacks=True, zdr=True
            ),
        )
        == asked
    )
    assert (
        Claims(
            session_id="claim-2026-004411",
            user="adjuster-7781",
            metadata_user_id="u-1",
            trace=Trace(
                trace_name="claims-intake",
                metadata=(("attempt", 2), ("beta", False), ("labels", '["glass","gravel"]')),
            ),
        )
        == claims
    )
    assert before == shield.counts()


@pytest.mark.parametrize(
    ("field", "value", "name", "expected"),
    [
        ("system", "text", "system", 1),
        ("system", "", "system", 1),
        ("system", [], "system", 0),
        ("system", [{}, {}], "system", 2),
        ("fallbacks", "default", "fallbacks", ("default",)),
        ("fallbacks", [{"model": "a"}, {}, {"model": ""}], "fallbacks", ("a",)),
        ("plugins", [{"id": "web"}, {"enabled": True}], "plugins", ("web",)),
        ("stream", False, "stream", False),
        ("stream", None, "stream", False),
        ("stream", "yes", "stream", False),
        ("max_tokens", -5, "max_tokens", -5),
        ("model", "", "model", None),
        ("context_management", {}, "context_management", ()),
        ("context_management", {"edits": None}, "context_management", ()),
        (
            "stop_server_tools_when",
            [{"type": "step_count_is", "step_count": 3}],
            "stop_server_tools_when",
            ("step_count_is",),
        ),
        ("provider", {"sort": "price"}, "provider", ProviderPreferences(sort="price")),
        ("provider", {"sort": {"by": 1}}, "provider", ProviderPreferences()),
        ("provider", {"order": "anthropic", "zdr": True}, "provider", ProviderPreferences(zdr=True)),
        ("thinking", {"type": "adaptive"}, "thinking", Thinking(type="adaptive")),
        ("thinking", {"type": "enabled", "budget_tokens": -1}, "thinking", Thinking(type="enabled")),
    ],
)
def test_spellings_of_a_field(field: str, value: object, name: str, expected: object) -> None:
    """Each spelling that the documentation allows, and some that it does not."""
    assert expected == getattr(read_request(written(**{field: value}))[0], name)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"not json", b'{"model":', b"\xff\xfe"])
def test_no_object_is_an_empty_request(body: bytes) -> None:
    """What is no JSON object asks for nothing and claims nothing."""
    assert (MessageRequest(), Claims()) == read_request(body)


def test_content_is_skipped_not_built() -> None:
    """Messages with 20 MB of images cost no memory, since nothing of them is built."""
    image = {"type": "image", "source": {"type": "base64", "data": "A" * 2_000_000}}
    body = written(model="m", messages=[{"role": "user", "content": [image] * 10}])
    tracemalloc.start()
    try:
        asked, _ = read_request(body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert ("m", 1) == (asked.model, asked.messages)
    assert peak < 100_000


HOSTILE = {
    "trace_id": "",
    "parent_span_id": "not-hex",
    "generation_name": "x\ny",
    "ctx": {"a": {"b": {"c": {"d": 1}}}},
    "blob": "x" * 1_000_000,
    "gen_ai.system": "spoof",
    "n": None,
    "ok": True,
}


def test_hostile_trace() -> None:
    """Nested, huge, reserved-looking and null values: each is bounded text, and none is an error."""
    before = shield.counts().get("cut_text", 0)
    trace = read_request(written(trace=HOSTILE))[1].trace
    assert (
        Trace(
            parent_span_id="not-hex",
            generation_name="x\ny",
            metadata=(
                ("ctx", '{"a":{"b":{"c":{"d":1}}}}'),
                ("blob", "x" * (METADATA_LIMIT - 1) + "…"),
                ("gen_ai.system", "spoof"),
                ("ok", True),
            ),
        )
        == trace
    )
    assert before + 1 == shield.counts()["cut_text"]


@pytest.mark.parametrize("key", ["trace_id", "trace_name", "span_name", "generation_name", "parent_span_id"])
@pytest.mark.parametrize(
    ("value", "expected", "counted"),
    [
        ("a", "a", None),
        ("", None, None),
        (None, None, None),
        ("x" * TEXT_LIMIT, "x" * TEXT_LIMIT, None),
        ("x" * (TEXT_LIMIT + 1), "x" * (TEXT_LIMIT - 1) + "…", "cut_text"),
        (1, None, "wrong_type"),
        (True, None, "wrong_type"),
        ({"a": 1}, None, "wrong_type"),
        (["a"], None, "wrong_type"),
    ],
)
def test_known_keys_of_a_trace(key: str, value: object, expected: str | None, counted: str | None) -> None:
    """The five known keys hold bounded text; what is none is left out, counted, and no metadata either."""
    before = dict(shield.counts())
    rest = Trace(metadata=(("other", 1),))
    assert msgspec.structs.replace(rest, **{key: expected}) == read_trace({key: value, "other": 1})
    grown = {reason for reason, number in shield.counts().items() if number != before.get(reason, 0)}
    assert ({counted} if counted else set()) == grown


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        ("", ""),
        ("x" * METADATA_LIMIT, "x" * METADATA_LIMIT),
        ("x" * (METADATA_LIMIT + 1), "x" * (METADATA_LIMIT - 1) + "…"),
        (0, 0),
        (True, True),
        (-(2**63), -(2**63)),
        (2**63 - 1, 2**63 - 1),
        (2**63, "9223372036854775808"),
        (10**30, "1" + "0" * 30),
        (0.5, 0.5),
        (math.inf, None),
        (math.nan, None),
        ([], "[]"),
        ([1, "é", None], '[1,"é",null]'),
        ({"a": {"b": 1}}, '{"a":{"b":1}}'),
        (["x" * METADATA_LIMIT], '["' + "x" * (METADATA_LIMIT - 3) + "…"),
    ],
)
def test_other_keys_of_a_trace(value: object, expected: object) -> None:
    """Numbers and booleans stay what they are, if 64 bits hold them; all else is text, bounded."""
    assert (() if expected is None else (("key", expected),)) == read_trace({"key": value}).metadata


def test_metadata_is_bounded() -> None:
    """Too many keys, too long ones, empty ones: cut, counted, left out; null is absent, and takes no place."""
    before = dict(shield.counts())
    wire: dict[str, Any] = {
        "": 1,
        "k" * 1000: 2,
        **{f"null{n}": None for n in range(99)},
        **{f"k{n}": n for n in range(99)},
    }
    names = [name for name, _ in read_trace(wire).metadata]
    assert ["k" * (TEXT_LIMIT - 1) + "…", *(f"k{n}" for n in range(LIST_LIMIT - 2))] == names
    assert {"cut_list": 1, "cut_text": 1} == {
        reason: number - before.get(reason, 0)
        for reason, number in shield.counts().items()
        if number != before.get(reason, 0)
    }


def test_nesting_that_cannot_be_written() -> None:
    """A value nested deeper than JSON can be written is left out, and counted."""
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    before = shield.counts().get("wrong_type", 0)
    assert (("a", 1),) == read_trace({"deep": nested, "a": 1}).metadata
    assert before + 1 == shield.counts()["wrong_type"]


FIELDS = st.sampled_from([field.encode_name for field in msgspec.structs.fields(request._Body)])
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "id", "model", "edits", "user_id", "trace_id", "order", "sort", "by", "total", "x"]
            ),
            inner,
        )
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=16,
)


def facts(value: object) -> list[object]:
    """All leaves of a request's facts."""
    if isinstance(value, msgspec.Struct):
        return [leaf for name in value.__struct_fields__ for leaf in facts(getattr(value, name))]
    return [leaf for part in value for leaf in facts(part)] if isinstance(value, tuple) else [value]


@settings(deadline=None)
@given(st.dictionaries(FIELDS, JSON, max_size=6))
def test_any_json_gives_facts_that_can_be_exported(fields: dict[str, object]) -> None:
    """Whatever the fields hold, reading them raises nothing, and every number and text is one that OTLP carries."""
    asked, claims = read_request(json.dumps(fields).encode())
    for leaf in facts(asked) + facts(claims):
        if isinstance(leaf, str):
            leaf.encode()
            assert len(leaf) <= METADATA_LIMIT or leaf in {claims.session_id, claims.user, claims.metadata_user_id}
        elif isinstance(leaf, float):
            assert math.isfinite(leaf)
        else:
            assert leaf is None or (isinstance(leaf, int) and -(2**63) <= leaf < 2**63)


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(0, 900), st.integers(0, 900))
def test_any_bytes_raise_nothing(junk: bytes, start: int, end: int) -> None:
    """Whatever bytes stand in whatever place of a request, reading it raises nothing."""
    body = json.dumps(EVERYTHING).encode()
    read_request(junk)
    read_request(body[:start] + junk + body[end:])
