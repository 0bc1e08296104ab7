"""The one event of a call: as an OpenTelemetry log record, and as text where the program asks for it."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import structlog
from opentelemetry._logs import SeverityNumber

import msgtap
from msgtap.telemetry.logs import text_writer
from msgtap.testing import capture_calls, replies
from msgtap.testing.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msgtap.telemetry.logs import LogStyle
    from msgtap.testing.memory import Memory
    from msgtap.testing.replies import Reply

BODY: dict[str, Any] = {"model": "claude-sonnet-5", "messages": [], "session_id": "s-1"}


@pytest.fixture(autouse=True)
def _off() -> Iterator[None]:
    yield
    text_writer("off")


def ask(endpoint: Endpoint, **more: Any) -> None:
    """One call by httpx."""
    httpx.post(endpoint.url + "/v1/messages", json={**BODY, **more})


@pytest.fixture
def root_text() -> Iterator[io.StringIO]:
    """What a handler of the root logger writes, as a program has one."""
    root = logging.getLogger()
    handler = logging.StreamHandler(stream := io.StringIO())
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)


CALLS: list[tuple[str, Reply, SeverityNumber]] = [
    ("whole", replies.message(), SeverityNumber.INFO),
    ("stream", replies.stream(), SeverityNumber.INFO),
    ("failure", replies.rate_limited(), SeverityNumber.ERROR),
    ("failing stream", replies.stream_error_after(4), SeverityNumber.ERROR),
]


@pytest.mark.parametrize(("reply", "severity"), [case[1:] for case in CALLS], ids=[case[0] for case in CALLS])
def test_log_record(reply: Reply, severity: SeverityNumber, memory: Memory, providers: dict[str, Any]) -> None:
    """One log record a call: named, graded, timed at the call's end, in its span, with that span's attributes."""
    msgtap.instrument(**providers)
    with Endpoint([reply]) as endpoint, capture_calls() as calls:
        ask(endpoint, stream=True)
    (span,), (log,), (call,) = memory.spans, memory.logs, calls
    record = log.log_record
    assert ("messages.call", "messages.call") == (record.event_name, record.body)
    assert (severity, severity.name) == (record.severity_number, record.severity_text)
    assert call.timing.ended_at == record.timestamp
    assert (span.context.trace_id, span.context.span_id) == (record.trace_id, record.span_id)
    assert span.context.trace_flags == record.trace_flags
    assert dict(span.attributes or {}) == dict(record.attributes)
    assert "s-1" == record.attributes["session.id"]
    assert "msgtap" == log.instrumentation_scope.name


def test_log_record_on_an_existing_span(memory: Memory, providers: dict[str, Any]) -> None:
    """A call without a span of its own has the same log record, in the span that was there."""
    msgtap.instrument(**providers)
    tracer = providers["tracer_provider"].get_tracer("another")
    chat = tracer.start_as_current_span("theirs", attributes={"gen_ai.operation.name": "chat"})
    with Endpoint([replies.message()]) as endpoint, chat:
        ask(endpoint)
    (span,), (log,) = memory.spans, memory.logs
    assert (span.context.trace_id, span.context.span_id) == (log.log_record.trace_id, log.log_record.span_id)
    assert dict(span.attributes or {}) == dict(log.log_record.attributes)


def test_off(
    root_text: io.StringIO, memory: Memory, providers: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """Unless it was asked for, no text is written anywhere, not even for failures."""
    msgtap.instrument(**providers)
    with Endpoint([replies.message(), replies.overloaded()]) as endpoint:
        ask(endpoint)
        ask(endpoint)
    assert 2 == len(memory.logs)
    assert "" == root_text.getvalue()
    assert ("", "") == capfd.readouterr()


SILENT = """
import httpx, msgtap
from msgtap.testing import replies
from msgtap.testing.endpoint import Endpoint

msgtap.instrument()
with Endpoint([replies.message(), replies.overloaded()]) as endpoint:
    for _ in range(2):
        httpx.post(endpoint.url + "/v1/messages", json={"model": "m", "messages": []})
"""


def test_a_program_without_logging() -> None:
    """In a program that has not set up logging nothing is printed either, by logging's last resort."""
    done = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True, check=True)
    assert ("", "") == (done.stdout, done.stderr)


def test_json(memory: Memory, providers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """``json``: one line of JSON a call on standard error, with the facts and the span's ids."""
    msgtap.instrument(**providers, logs="json")
    with Endpoint([replies.message(), replies.overloaded()]) as endpoint:
        ask(endpoint, trace={"note": "two\nlines\u2028 and \x1b[31mred"})
        ask(endpoint)
    out, err = capsys.readouterr()
    assert "" == out
    first, second = map(json.loads, err.split("\n")[:-1])
    assert ["messages.call"] * 2 == [first["event"], second["event"]]
    assert ["info", "error"] == [first["level"], second["level"]]
    assert (188, "s-1", ["stop"]) == (
        first["gen_ai.usage.output_tokens"],
        first["session.id"],
        first["gen_ai.response.finish_reasons"],
    )
    assert "two\nlines\u2028 and \x1b[31mred" == first["trace.metadata.note"]
    assert "overloaded_error" == second["error.type"]
    assert [(f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}") for span in memory.spans] == [
        (event["trace_id"], event["span_id"]) for event in (first, second)
    ]
    assert all(event["timestamp"].endswith("Z") for event in (first, second))


def test_console(providers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """``console``: one line a call on standard error for eyes, without colours where that is no terminal."""
    msgtap.instrument(**providers, logs="console")
    with Endpoint([replies.message()]) as endpoint:
        ask(endpoint, trace={"note": "two\nlines\u2028\x1b[31m", "k\n": "é"})
    out, err = capsys.readouterr()
    assert "" == out
    (line,) = err.splitlines()
    for part in (
        "[info     ]",
        "messages.call",
        "gen_ai.usage.output_tokens=188",
        "session.id=s-1",
        r"trace.metadata.note=two\nlines\u2028\x1b[31m",
        r"trace.metadata.k\n=é",
    ):
        assert part in line
    assert line.isprintable()


def test_stdlib(memory: Memory, providers: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """``stdlib``: one line a call in the program's own logging, by its level; nothing on standard error."""
    msgtap.instrument(**providers, logs="stdlib")
    with Endpoint([replies.message(), replies.message(), replies.overloaded()]) as endpoint:
        ask(endpoint)
        with caplog.at_level("INFO"):
            ask(endpoint, trace={"note": "two\nlines"})
        ask(endpoint)
    heard = [record for record in caplog.records if record.name == "msgtap.calls"]
    assert [logging.INFO, logging.ERROR] == [record.levelno for record in heard]
    message = heard[0].getMessage()
    assert 1 == len(message.splitlines())
    for part in (
        "event='messages.call'",
        "gen_ai.usage.output_tokens=188",
        "session.id='s-1'",
        r"'two\nlines'",
        f"span_id='{memory.spans[1].context.span_id:016x}'",
    ):
        assert part in message


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK's handler has moved to another distribution
@pytest.mark.parametrize("style", ["off", "stdlib", "json", "console"])
def test_exported_once(style: LogStyle, root_text: io.StringIO, memory: Memory, providers: dict[str, Any]) -> None:
    """Where the program's logging is exported by OpenTelemetry, the event is exported once all the same."""
    from opentelemetry.sdk._logs import LoggingHandler

    msgtap.instrument(**providers, logs=style)
    handler = LoggingHandler(logger_provider=providers["logger_provider"])
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with Endpoint([replies.overloaded()]) as endpoint:
            ask(endpoint)
        logging.getLogger("program").error("its own")
    finally:
        root.removeHandler(handler)
    assert ["messages.call", "its own"] == [log.log_record.body for log in memory.logs]
    assert (1 if style == "stdlib" else 0) == root_text.getvalue().count("messages.call")


def test_propagation_is_the_program_s(providers: dict[str, Any]) -> None:
    """``stdlib`` keeps to what the program has set: a handler's level, and a logger that hands nothing on."""
    msgtap.instrument(**providers, logs="stdlib")
    ours, root = logging.getLogger("msgtap"), logging.getLogger()
    near, fussy, far = (logging.StreamHandler(io.StringIO()) for _ in range(3))
    fussy.setLevel(logging.CRITICAL)
    ours.addHandler(near)
    ours.addHandler(fussy)
    root.addHandler(far)
    ours.propagate = False
    try:
        with Endpoint([replies.overloaded()]) as endpoint:
            ask(endpoint)
    finally:
        ours.propagate = True
        ours.removeHandler(near)
        ours.removeHandler(fussy)
        root.removeHandler(far)
    assert [1, 0, 0] == [handler.stream.getvalue().count("messages.call") for handler in (near, fussy, far)]


@pytest.mark.parametrize("style", ["json", "console"])
def test_style_changes(style: LogStyle, providers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """The style may be changed while the program runs; it never writes a line twice."""
    with Endpoint([replies.message()]) as endpoint:
        for logs in (style, "json", "console", style, "stdlib", style):
            msgtap.instrument(**providers, logs=logs)
        ask(endpoint)
        assert 1 == len(capsys.readouterr().err.splitlines())
        msgtap.instrument(**providers, logs="off")
        ask(endpoint)
        assert "" == capsys.readouterr().err


def test_text_without_providers(capsys: pytest.CaptureFixture[str]) -> None:
    """Text needs no provider; there are no ids then, as there is no span."""
    msgtap.instrument(logs="json")
    try:
        with Endpoint([replies.message()]) as endpoint:
            ask(endpoint)
    finally:
        msgtap.uninstrument()
    event = json.loads(capsys.readouterr().err)
    assert 188 == event["gen_ai.usage.output_tokens"]
    assert not {"trace_id", "span_id"} & set(event)


def test_add_call_ids(memory: Memory, providers: dict[str, Any]) -> None:
    """The structlog processor gives the program's own events the ids of the call in progress; its own ids stay."""
    msgtap.instrument(**providers)
    log = structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=[msgtap.add_call_ids, structlog.processors.KeyValueRenderer(sort_keys=True)],
    )
    said: list[str] = []

    class Talking(httpx.HTTPTransport):
        """Logs while a request is on its way."""

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            said.append(log.info("sending"))
            said.append(log.info("sending", trace_id="mine"))
            return super().handle_request(request)

    with Endpoint() as endpoint, httpx.Client(transport=Talking()) as client:
        client.post(endpoint.url + "/v1/messages", json=BODY)
    context = memory.spans[0].context
    assert [
        f"event='sending' span_id='{context.span_id:016x}' trace_id='{context.trace_id:032x}'",
        f"event='sending' span_id='{context.span_id:016x}' trace_id='mine'",
    ] == said
    assert "event='idle'" == log.info("idle")
