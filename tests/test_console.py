"""The exporter for eyes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter
from opentelemetry.trace import Status, StatusCode

import msgtap
from msgtap import console
from msgtap.exporting import build
from msgtap.testing import replies
from msgtap.testing.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msgtap.exporting import Pipelines


@pytest.fixture
def pipelines() -> Iterator[Pipelines]:
    """Pipelines to the console."""
    made = build(["console"], "test", {})
    yield made
    for provider in (made.tracer_provider, made.meter_provider, made.logger_provider):
        provider.shutdown()


def test_a_call(pipelines: Pipelines, capsys: pytest.CaptureFixture[str]) -> None:
    """A call is a span with its attributes, and a line for its event, at once; a line a point when asked for."""
    msgtap.instrument(
        tracer_provider=pipelines.tracer_provider,
        meter_provider=pipelines.meter_provider,
        logger_provider=pipelines.logger_provider,
    )
    try:
        with Endpoint([replies.message()]) as endpoint:
            body = {"model": "claude-sonnet-5", "messages": [], "session_id": "s-1"}
            httpx.post(endpoint.url + "/v1/messages", json=body)
    finally:
        msgtap.uninstrument()
    out, err = capsys.readouterr()
    assert "" == out
    span, *facts, log = err.splitlines()
    ids = r"trace [0-9a-f]{32} span [0-9a-f]{16}"
    assert re.fullmatch(rf"span     chat claude-sonnet-5  [\d.]+ ms  UNSET  {ids}", span)
    for fact in ("session.id = 's-1'", "gen_ai.usage.output_tokens = 188", "gen_ai.response.finish_reasons = ['stop']"):
        assert f"         {fact}" in facts
    assert all(fact.startswith("         ") for fact in facts)
    assert re.match(rf"log      messages\.call  INFO  {ids}  gen_ai\.operation\.name=chat ", log)
    assert " gen_ai.usage.output_tokens=188 " in log
    pipelines.meter_provider.force_flush()
    points = capsys.readouterr().err.splitlines()
    assert "metric   msgtap.calls.active 0 {call}  gen_ai.provider.name=anthropic" in points
    labels = "gen_ai.provider.name=anthropic gen_ai.response.model=claude-sonnet-5-20260901"
    assert f"metric   msgtap.tokens 188 {{token}}  {labels} msgtap.token.class=output" in points
    assert any(
        re.match(r"metric   gen_ai\.client\.operation\.duration count=1 sum=[\d.e-]+ s  ", one) for one in points
    )


def test_one_line_each(pipelines: Pipelines, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that others have chosen breaks a line or steers the terminal."""
    odd = "two\nlines\u2028\x1b[31mred\x07é"
    escaped = r"two\nlines\u2028\x1b[31mred\x07é"
    span = pipelines.tracer_provider.get_tracer("t").start_span(odd, attributes={odd: odd, "list": [odd]})
    span.set_status(Status(StatusCode.ERROR))
    span.end()
    pipelines.logger_provider.get_logger("t").emit(body=odd, attributes={odd: odd})
    pipelines.meter_provider.get_meter("t").create_counter("c").add(1.5, {odd: odd})
    pipelines.meter_provider.force_flush()
    lines = capsys.readouterr().err.splitlines()
    assert 5 == len(lines)
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith(f"span     {escaped}  ")
    assert "  ERROR  " in lines[0]
    assert [f"         {escaped} = '{escaped}'", f"         list = ['{escaped}']"] == lines[1:3]
    assert f"log      {escaped}      {escaped}={escaped}" == lines[3]
    assert f"metric   c 1.5   {escaped}={escaped}" == lines[4]


def test_an_event_without_a_body(pipelines: Pipelines, capsys: pytest.CaptureFixture[str]) -> None:
    """A log record that has only a name is shown by it."""
    pipelines.logger_provider.get_logger("t").emit(event_name="an.event", severity_text="WARN")
    assert "log      an.event  WARN    \n" == capsys.readouterr().err


def test_kinds_of_points(pipelines: Pipelines, capsys: pytest.CaptureFixture[str]) -> None:
    """Histograms are told by count and sum, all else by value; counts in full, fractions by six digits."""
    meter = pipelines.meter_provider.get_meter("t")
    meter.create_histogram("h", unit="s").record(0.123456789)
    meter.create_up_down_counter("u").add(-3)
    meter.create_gauge("g", unit="{token}").set(2**40)
    pipelines.meter_provider.force_flush()
    assert [
        "metric   h count=1 sum=0.123457 s  ",
        "metric   u -3   ",
        "metric   g 1099511627776 {token}  ",
    ] == capsys.readouterr().err.splitlines()


def test_parts() -> None:
    """It carries all three signals at once, and has the methods of the SDK's own console exporters."""
    made = console.exporter()
    assert made.immediate
    assert made.metrics.force_flush(1)
    assert made.logs.force_flush(1)
    for part in (made.traces, made.metrics, made.logs):
        part.shutdown()
    own = ConsoleMetricExporter()
    assert own._preferred_temporality == made.metrics._preferred_temporality
