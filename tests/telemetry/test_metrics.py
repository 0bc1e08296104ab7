"""The points of a call."""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import Histogram, Sum

import msgtap
from msgtap import shield
from msgtap.record import Usage
from msgtap.telemetry.metrics import token_classes
from msgtap.testing import replies
from msgtap.testing.endpoint import Endpoint
from msgtap.testing.replies import USAGE, Answer, OpenRouterAnswer

if TYPE_CHECKING:
    from msgtap.testing.memory import Memory
    from msgtap.testing.replies import Reply

BODY: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "messages": [],
    "session_id": "s-1",
    "user": "u-7",
    "trace": {"trace_id": "t-1", "tenant": "acme"},
}
MODEL = "claude-sonnet-5-20260901"
SECONDS = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36,
)  # fmt: skip
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)


def ask(endpoint: Endpoint, path: str = "/v1/messages", **more: Any) -> None:
    """One call by httpx."""
    httpx.post(endpoint.url + path, json={**BODY, **more})


def metrics(memory: Memory) -> dict[str, Any]:
    """Every metric that has points, by name."""
    read = memory.metrics  # once: reading takes the exemplars away
    resources = read.resource_metrics if read else []
    return {
        metric.name: metric for resource in resources for scope in resource.scope_metrics for metric in scope.metrics
    }


def points(memory: Memory, name: str) -> list[Any]:
    """The points of a metric."""
    found = metrics(memory).get(name)
    return list(found.data.data_points) if found else []


def values(memory: Memory, name: str, label: str) -> dict[object, object]:
    """A metric's values, or (count, sum), by one of its labels."""
    return {
        point.attributes.get(label): (point.count, point.sum) if hasattr(point, "count") else point.value
        for point in points(memory, name)
    }


INSTRUMENTS = [
    ("gen_ai.client.operation.duration", Histogram, "s", SECONDS),
    ("gen_ai.client.operation.time_to_first_chunk", Histogram, "s", SECONDS),
    ("gen_ai.client.token.usage", Histogram, "{token}", TOKENS),
    ("msgtap.tokens", Sum, "{token}", None),
    ("msgtap.cost", Sum, "{USD}", None),
    ("msgtap.calls.active", Sum, "{call}", None),
    ("msgtap.dropped", Sum, "{item}", None),
]


def test_instruments(memory: Memory, providers: dict[str, Any]) -> None:
    """Each metric's kind, unit and bucket boundaries; there are no others."""
    msgtap.instrument(**providers)
    with Endpoint([replies.openrouter_stream()]) as endpoint:
        ask(endpoint, stream=True, session_id="s" * 257)
    found = metrics(memory)
    assert {name for name, *_ in INSTRUMENTS} == set(found)
    for name, kind, unit, boundaries in INSTRUMENTS:
        metric = found[name]
        assert (kind, unit) == (type(metric.data), metric.unit)
        assert metric.description.endswith(".")
        for point in metric.data.data_points:
            assert boundaries == getattr(point, "explicit_bounds", None)
        if kind is Sum:
            assert (name != "msgtap.calls.active") == metric.data.is_monotonic


def test_json(memory: Memory, providers: dict[str, Any]) -> None:
    """A call answered at once: how long it took, what it used; no first chunk, no cost that nobody named."""
    msgtap.instrument(**providers)
    with Endpoint([replies.message()]) as endpoint:
        ask(endpoint)
        labels = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-5",
            "gen_ai.response.model": MODEL,
            "server.address": "127.0.0.1",
            "server.port": endpoint.port,
        }
    (duration,) = points(memory, "gen_ai.client.operation.duration")
    assert labels == duration.attributes
    assert 1 == duration.count
    assert (memory.spans[0].attributes or {})["msgtap.duration"] == duration.sum
    usage = points(memory, "gen_ai.client.token.usage")
    assert [labels | {"gen_ai.token.type": kind} for kind in ("input", "output")] == [
        dict(one.attributes) for one in usage
    ]
    assert [412 + 1500 + 4900, 188] == [one.sum for one in usage]
    own = points(memory, "msgtap.tokens")
    assert {("anthropic", MODEL)} == {
        (one.attributes["gen_ai.provider.name"], one.attributes["gen_ai.response.model"]) for one in own
    }
    assert [{"gen_ai.provider.name", "gen_ai.response.model", "msgtap.token.class"}] * len(own) == [
        set(one.attributes) for one in own
    ]
    assert {"input": 412, "cache_read": 4900, "cache_write_5m": 1000, "cache_write_1h": 500, "output": 188} == values(
        memory, "msgtap.tokens", "msgtap.token.class"
    )
    assert [] == points(memory, "gen_ai.client.operation.time_to_first_chunk")
    assert [] == points(memory, "msgtap.cost")


def test_stream(memory: Memory, providers: dict[str, Any]) -> None:
    """A stream: the same, its thinking apart, and the time to its first event as on the span."""
    msgtap.instrument(**providers)
    usage = {**USAGE, "output_tokens_details": {"thinking_tokens": 96}}
    with Endpoint([replies.stream(Answer(thinking="A window.", usage=usage))]) as endpoint:
        ask(endpoint, stream=True)
    attributes = memory.spans[0].attributes or {}
    (first_chunk,) = points(memory, "gen_ai.client.operation.time_to_first_chunk")
    (duration,) = points(memory, "gen_ai.client.operation.duration")
    assert (1, attributes["gen_ai.response.time_to_first_chunk"]) == (first_chunk.count, first_chunk.sum)
    assert duration.attributes == first_chunk.attributes
    expected = {
        "input": 412,
        "cache_read": 4900,
        "cache_write_5m": 1000,
        "cache_write_1h": 500,
        "output": 188 - 96,
        "thinking": 96,
    }
    assert expected == values(memory, "msgtap.tokens", "msgtap.token.class")
    assert {"input": (1, 6812), "output": (1, 188)} == values(memory, "gen_ai.client.token.usage", "gen_ai.token.type")


FAILURES: list[tuple[str, Reply, str]] = [
    ("envelope", replies.rate_limited(), "rate_limit_error"),
    ("status", replies.html_error(502), "502"),
    ("stream", replies.stream_error_after(4), "overloaded_error"),
    ("truncated", replies.truncated_stream(3), "stream_truncated"),
    ("exception", replies.silent(replies.CUT), "httpx.RemoteProtocolError"),
]


@pytest.mark.parametrize(("reply", "error_type"), [case[1:] for case in FAILURES], ids=[case[0] for case in FAILURES])
def test_failure(reply: Reply, error_type: str, memory: Memory, providers: dict[str, Any]) -> None:
    """A failed call is one duration with its ``error.type``, which no other metric has; tokens only as far as told."""
    msgtap.instrument(**providers)
    with Endpoint([reply]) as endpoint:
        try:
            ask(endpoint, stream=True)
        except httpx.RemoteProtocolError:
            assert "httpx.RemoteProtocolError" == error_type
    (duration,) = points(memory, "gen_ai.client.operation.duration")
    assert (1, error_type) == (duration.count, duration.attributes["error.type"])
    others = {name: metric for name, metric in metrics(memory).items() if name != "gen_ai.client.operation.duration"}
    labels = [set(point.attributes) for metric in others.values() for point in metric.data.data_points]
    assert not any("error.type" in names for names in labels)
    assert not {"output", "thinking"} & set(values(memory, "msgtap.tokens", "msgtap.token.class"))
    assert "output" not in values(memory, "gen_ai.client.token.usage", "gen_ai.token.type")


def test_a_success_has_no_error_type(memory: Memory, providers: dict[str, Any]) -> None:
    """A success, and a program that stops reading, are durations without ``error.type``."""
    msgtap.instrument(**providers)
    with Endpoint([replies.message(), replies.stream()]) as endpoint:
        ask(endpoint)
        with httpx.stream("POST", endpoint.url + "/v1/messages", json={**BODY, "stream": True}) as response:
            next(response.iter_raw())
    (duration,) = points(memory, "gen_ai.client.operation.duration")
    assert 2 == duration.count
    assert "error.type" not in duration.attributes


def test_cost(memory: Memory, providers: dict[str, Any]) -> None:
    """Cost adds up, as billed, by provider and the model that answered."""
    msgtap.instrument(**providers, endpoints=[msgtap.Endpoint(path="/api/v1/messages", provider="openrouter")])
    cheap = OpenRouterAnswer(model="a/cheap", usage={**replies.OPENROUTER_USAGE, "cost": 0.25})
    free = OpenRouterAnswer(model="a/free", usage={**replies.OPENROUTER_USAGE, "cost": 0})
    answers = [replies.openrouter_message(cheap), replies.openrouter_stream(cheap), replies.openrouter_message(free)]
    with Endpoint(answers) as endpoint:
        for stream in (False, True, False):
            ask(endpoint, "/api/v1/messages", stream=stream)
    (cost,) = points(memory, "msgtap.cost")
    assert 0.5 == cost.value
    assert {"gen_ai.provider.name": "openrouter", "gen_ai.response.model": "a/cheap"} == cost.attributes


def test_no_identity_on_a_metric(memory: Memory, providers: dict[str, Any]) -> None:
    """Session, user, trace and ids of any kind are on no metric, neither as name nor as value."""
    msgtap.instrument(**providers)
    with Endpoint([replies.message(), replies.openrouter_stream(), replies.rate_limited()]) as endpoint:
        for _ in range(3):
            ask(endpoint, stream=True)
    span = memory.spans[0].attributes or {}
    assert "s-1" == span["session.id"]
    labels: set[tuple[str, object]] = {
        pair
        for metric in metrics(memory).values()
        for point in metric.data.data_points
        for pair in point.attributes.items()
    }
    allowed = {
        "error.type",
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "gen_ai.token.type",
        "msgtap.reason",
        "msgtap.token.class",
        "server.address",
        "server.port",
    }
    assert {name for name, _ in labels} <= allowed
    written = json.dumps(sorted(str(value) for _, value in labels))
    assert not [
        told
        for told in ("s-1", "u-7", "t-1", "acme", span["gen_ai.response.id"], span["anthropic.request.id"])
        if str(told) in written
    ]


def test_active_calls(memory: Memory, providers: dict[str, Any]) -> None:
    """A call counts as active until it ends, however it ends: read, refused, given up, dropped or cut."""
    msgtap.instrument(**providers)
    ends: list[Reply] = [replies.message(), replies.overloaded(), replies.cut_stream(), replies.silent(replies.CUT)]
    with Endpoint([*ends, replies.stream()]) as endpoint, httpx.Client() as client:
        for reply in ends:
            try:
                client.post(endpoint.url + "/v1/messages", json={**BODY, "stream": True})
            except httpx.RemoteProtocolError:
                assert reply in ends[2:]
        assert {"anthropic": 0} == values(memory, "msgtap.calls.active", "gen_ai.provider.name")
        request = client.build_request("POST", endpoint.url + "/v1/messages", json={**BODY, "stream": True})
        closed, dropped = client.send(request, stream=True), client.send(request, stream=True)
        assert {"anthropic": 2} == values(memory, "msgtap.calls.active", "gen_ai.provider.name")
        closed.close()
        assert {"anthropic": 1} == values(memory, "msgtap.calls.active", "gen_ai.provider.name")
        del dropped
        gc.collect()
        msgtap.flush()
    assert {"anthropic": 0} == values(memory, "msgtap.calls.active", "gen_ai.provider.name")


def test_a_dropped_record(memory: Memory, providers: dict[str, Any]) -> None:
    """Of a call whose record a processor drops, only that it was active is known, and no longer."""
    msgtap.instrument(**providers, processors=[lambda _: None])
    with Endpoint() as endpoint:
        ask(endpoint)
    assert {"anthropic": 0} == values(memory, "msgtap.calls.active", "gen_ai.provider.name")
    assert {"msgtap.calls.active"} == set(metrics(memory)) - {"msgtap.dropped"}
    assert () == memory.logs


def test_dropped(memory: Memory, providers: dict[str, Any]) -> None:
    """What was cut or left out is reported as it stands in the shield's counts, by reason."""
    msgtap.instrument(**providers)
    before = shield.counts().get("cut_identifier", 0)
    with Endpoint() as endpoint:
        for length in (256, 257, 300):
            ask(endpoint, session_id="s" * length)
    assert before + 2 == shield.counts()["cut_identifier"]
    assert shield.counts() == values(memory, "msgtap.dropped", "msgtap.reason")


def test_instrumented_twice(memory: Memory, providers: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Changing the settings of a running program makes no second instrument, and counts nothing twice."""
    for _ in range(3):
        msgtap.instrument(**providers)
    with Endpoint([replies.message()]) as endpoint:
        ask(endpoint, session_id="s" * 257)
    assert {"input": (1, 6812), "output": (1, 188)} == values(memory, "gen_ai.client.token.usage", "gen_ai.token.type")
    assert shield.counts() == values(memory, "msgtap.dropped", "msgtap.reason")
    assert [] == caplog.messages


def test_exemplars(memory: Memory, providers: dict[str, Any]) -> None:
    """A point leads to the span of its call."""
    msgtap.instrument(**providers)
    with Endpoint() as endpoint:
        ask(endpoint)
    (span,) = memory.spans
    (duration,) = points(memory, "gen_ai.client.operation.duration")
    assert [(span.context.trace_id, span.context.span_id)] == [
        (exemplar.trace_id, exemplar.span_id) for exemplar in duration.exemplars
    ]


SPLITS: list[tuple[dict[str, Any], dict[str, int]]] = [
    ({}, {}),
    ({"input_tokens": 7, "output_tokens": 0}, {"input": 7}),
    ({"output_tokens": 9, "thinking_tokens": 4}, {"output": 5, "thinking": 4}),
    ({"output_tokens": 9, "thinking_tokens": 9}, {"thinking": 9}),
    ({"output_tokens": 3, "thinking_tokens": 9}, {"thinking": 3}),  # more thinking than output: the total holds
    ({"thinking_tokens": 9}, {}),  # a total that never came
    ({"cache_write_tokens": 8}, {"cache_write_5m": 8}),  # the lifetime is not told: five minutes is the default
    ({"cache_write_tokens": 8, "cache_write_1h_tokens": 3}, {"cache_write_5m": 5, "cache_write_1h": 3}),
    (
        {"cache_write_tokens": 8, "cache_write_5m_tokens": 5, "cache_write_1h_tokens": 3},
        {"cache_write_5m": 5, "cache_write_1h": 3},
    ),
    ({"cache_write_tokens": 2, "cache_write_1h_tokens": 3}, {"cache_write_1h": 2}),
    ({"cache_read_tokens": 6, "input_tokens": 1}, {"cache_read": 6, "input": 1}),
]


@pytest.mark.parametrize(("counts", "classes"), SPLITS)
def test_token_classes(counts: dict[str, Any], classes: dict[str, int]) -> None:
    """Each token is in one class."""
    assert classes == {name: number for name, number in token_classes(Usage(**counts)) if number}


COUNTS = st.none() | st.integers(min_value=0, max_value=2**40)


@given(
    usage=st.builds(
        Usage,
        input_tokens=COUNTS,
        output_tokens=COUNTS,
        cache_read_tokens=COUNTS,
        cache_write_tokens=COUNTS,
        cache_write_5m_tokens=COUNTS,
        cache_write_1h_tokens=COUNTS,
        thinking_tokens=COUNTS,
    )
)
def test_token_classes_add_up(usage: Usage) -> None:
    """Whatever the counts say, no class is negative, and together they are all tokens read, cached and written."""
    classes = dict(token_classes(usage))
    assert all(number >= 0 for number in classes.values())
    read = (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens)
    assert sum(number or 0 for number in (*read, usage.output_tokens)) == sum(classes.values())
