"""The log record of a call, read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from msgtap import semconv as names
from msgtap.record import MessageResponse, Usage
from msgtap.telemetry.attributes import response_attributes
from msgtap.telemetry.metrics import token_classes as true_classes
from msgtap_sqlite import calls
from msgtap_sqlite.entries import Entry, Log

Make = Callable[..., list[Entry]]


@pytest.mark.parametrize(
    "usage",
    [
        Usage(),
        Usage(input_tokens=10, output_tokens=5),
        Usage(input_tokens=10, output_tokens=0),
        Usage(input_tokens=0, cache_read_tokens=90, output_tokens=5),
        Usage(input_tokens=10, cache_write_tokens=30, output_tokens=5),
        Usage(input_tokens=10, cache_write_tokens=30, cache_write_1h_tokens=10, cache_write_5m_tokens=20),
        Usage(input_tokens=10, cache_write_tokens=30, cache_write_1h_tokens=40, output_tokens=5),
        Usage(input_tokens=10, output_tokens=50, thinking_tokens=20),
        Usage(input_tokens=10, output_tokens=5, thinking_tokens=20),
    ],
)
def test_token_classes(usage: Usage) -> None:
    """Attributes give the classes that the metrics have from the record itself."""
    attributes: dict[str, Any] = dict(response_attributes(MessageResponse(usage=usage)))
    assert true_classes(usage) == tuple(zip(calls.TOKEN_CLASSES, calls.token_classes(attributes), strict=True))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, {"model": "claude-sonnet-5", "first_token": None, "status": None, "attempt": 0, "cost": None}),
        ({"response_model": "claude-opus-5"}, {"model": "claude-opus-5", "request_model": "claude-sonnet-5"}),
        ({"time_to_first_answer": 0.5}, {"first_token": 500_000}),
        ({"time_to_first_answer": 0.5, "time_to_first_thinking": 0.25}, {"first_token": 250_000}),
        ({"duration": 0.0000014}, {"duration": 1}),
        ({"error_type": "overloaded_error", "http_status": 529}, {"error": "overloaded_error", "status": 529}),
        ({"ended": "closed"}, {"ending": "closed"}),
        ({"cost": 0.0}, {"cost": 0.0}),
        ({"session_id": "s", "conversation_id": "s", "user_id": "u"}, {"session": "s", "user": "u"}),
        ({"http_resend_count": 2}, {"attempt": 2}),
    ],
)
def test_read_call(make: Make, facts: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each fact has its place."""
    (_, log) = make(**facts)
    assert isinstance(log, Log)
    call = calls.read_call(log)
    assert expected == {name: getattr(call, name) for name in expected}


def test_rest(make: Make) -> None:
    """What has no column is kept; times to the microsecond."""
    (_, log) = make(longest_stall=0.123456789, request_messages=3, request_stream=True)
    assert isinstance(log, Log)
    assert {
        names.OPERATION_NAME: "chat",
        names.RESPONSE_ID: "msg-1",
        names.LONGEST_STALL: 0.123457,
        names.REQUEST_MESSAGES: 3,
        names.REQUEST_STREAM: True,
    } == calls.read_call(log).rest


@pytest.mark.parametrize(("field", "value"), [("event", None), ("event", "other"), ("scope", "theirs")])
def test_other_log_records(make: Make, field: str, value: str | None) -> None:
    """Only msgtap's own record of a call is one."""
    (_, log) = make()
    assert isinstance(log, Log)
    assert calls.is_call(log)
    changed = {name: getattr(log, name) for name in log.__struct_fields__} | {field: value}
    assert not calls.is_call(Log(**changed))
