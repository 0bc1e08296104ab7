"""No secret: keys are planted wherever a program or a server may put them, and looked for in all that is emitted.

All of them share one word, which is searched for in spans, metrics and log records (as objects and as OTLP's bytes), in
the three kinds of text logs, on standard output and error, and in the program's own logging at its lowest level.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import pytest
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

import msgtap
from msgtap import CallRecord, shield, tap
from msgtap.exporting import build
from msgtap.telemetry.logs import LogStyle
from msgtap.testing import capture_calls, replies
from msgtap.testing.endpoint import Endpoint
from msgtap.testing.memory import Memory
from msgtap.testing.replies import Reply, json_reply, sse

WORD = "planted7f3a"
KEY = f"sk-ant-api03-{WORD}-AbC_dEf"
ROUTER_KEY = f"sk-or-v1-{WORD}0123456789abcdef"
PASSWORD = f"pass{WORD}"
BASIC = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
ECHO = f"invalid x-api-key {KEY} for Bearer {ROUTER_KEY}"

REQUEST_HEADERS = {
    "x-api-key": KEY,
    "authorization": f"Bearer {ROUTER_KEY}",
    "proxy-authorization": f"Basic {KEY}",
    "cookie": f"session={KEY}",
    "x-goog-api-key": KEY,
    "x-amz-security-token": KEY,
    "user-agent": f"program/1.0 ({KEY})",
    "http-referer": f"https://user:{PASSWORD}@app.example/?key={KEY}",
    "x-session-id": "session-in-clear",
    "anthropic-beta": "fast-mode-2026-02-01",
}
RESPONSE_HEADERS = (
    ("set-cookie", f"key={KEY}"),
    ("www-authenticate", f'Bearer realm="{KEY}"'),
    ("x-api-key", KEY),
    ("location", f"https://user:{PASSWORD}@elsewhere.example/v1/messages?key={KEY}"),
    ("server", KEY),
    ("x-request-headers", KEY),
)
BODY: dict[str, object] = {
    "model": "claude-sonnet-5",
    "max_tokens": 5,
    "messages": [{"role": "user", "content": f"my key is {KEY}"}],
    "system": KEY,
    "stop_sequences": [KEY],
    "tools": [{"name": KEY, "description": KEY, "input_schema": {"default": KEY}}],
    "metadata": {"user_id": "user-in-clear", "api_key": KEY, KEY: KEY},
    "mcp_servers": [{"type": "url", "url": f"https://x.example/?key={KEY}", "authorization_token": KEY}],
    "output_config": {"format": {"type": "json_schema", "schema": {"const": KEY}}},
    "api_key": KEY,
    KEY: KEY,
}
ENVELOPE: dict[str, object] = {
    "type": "error",
    "error": {"type": KEY, "message": ECHO, "error_type": KEY, "details": {"error_code": KEY, "key": KEY}, "code": KEY},
    "metadata": {"raw": ECHO},
    "openrouter_metadata": {"summary": ECHO},
}


def events(*more: bytes) -> tuple[bytes, ...]:
    """The events of a stream whose content repeats a key, up to its middle, and then these."""
    told = replies.Answer(text=f"Your key is {KEY}", tool=("call", {"key": KEY}), stop_sequence=KEY)
    return (*replies.events(told)[:6], *more) if more else replies.events(told)


def streamed(*chunks: bytes) -> Reply:
    """A stream of these events."""
    return Reply(headers=(("content-type", "text/event-stream"), *RESPONSE_HEADERS), body=chunks)


def told(status: int, document: Mapping[str, object]) -> Reply:
    """JSON of this status."""
    return json_reply(status, document, headers=RESPONSE_HEADERS)


MESSAGE: dict[str, object] = json.loads(
    b"".join(step for step in replies.message(replies.Answer(text=ECHO)).body if isinstance(step, bytes))
)
PAGE = Reply(status=401, headers=(("content-type", "text/html"),), body=(f"<p>{ECHO}</p>".encode(),), framing="length")

REPLIES: dict[str, Reply] = {
    "a message": told(200, {**MESSAGE, "stop_sequence": KEY, "stop_details": {"category": None, "explanation": KEY}}),
    "a stream": streamed(*events()),
    "an error that echoes": told(401, ENVELOPE),
    "an error that echoes, with its own type": told(401, {"error": {"type": "authentication_error", "message": ECHO}}),
    "an error whose type is a key": told(401, {"error": {"type": f"key_{WORD}", "error_type": WORD, "message": KEY}}),
    "a page that echoes": PAGE,
    "a text that echoes": Reply(status=500, body=(ECHO.encode(),), framing="length"),
    "an error that echoes in a stream": streamed(*events(sse("error", ENVELOPE))),
    "an error that echoes as a success": told(200, ENVELOPE),
    "a stream that is cut short": streamed(*events(b'event: error\ndata: {"error": "' + KEY.encode())),
    "a connection that is cut": replies.cut(told(200, MESSAGE), 30),
    "a stream in no coding": Reply(
        headers=(("content-type", "text/event-stream"), ("content-encoding", KEY)), body=(KEY.encode(),)
    ),
    "a body in no coding": Reply(
        headers=(("content-type", "application/json"), ("content-encoding", "gzip")), body=(KEY.encode(),)
    ),
    "events with keys for names": streamed(f"event: {KEY}\nid: {KEY}\n: {KEY}\ndata: {KEY}\n\n".encode()),
    "no answer": replies.silent(replies.RESET),
}


def log_text(log: Any) -> str:
    """A log record as text."""
    record = log.log_record
    return repr((record.body, record.severity_text, dict(record.attributes or {}), record.trace_id, record.span_id))


class Program:
    """A program that keeps what msgtap emits, of every kind."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self.memory = Memory()
        self.pipelines = build(["console", self.memory.exporter], "test", {})
        self.logged: list[str] = []
        self._capture = capture

    def instrument(self, **settings: Any) -> None:
        """Observe calls, with all three signals."""
        msgtap.instrument(
            tracer_provider=self.pipelines.tracer_provider,
            meter_provider=self.pipelines.meter_provider,
            logger_provider=self.pipelines.logger_provider,
            **settings,
        )

    def send(
        self, url: str, reply: Reply | None = None, headers: Mapping[str, str] = REQUEST_HEADERS
    ) -> list[CallRecord]:
        """The records of one call, whatever becomes of it."""
        stream = reply is not None and ("content-type", "text/event-stream") in reply.headers
        content = json.dumps({**BODY, "stream": stream}).encode()
        with capture_calls() as calls, httpx2.Client() as client, contextlib.suppress(httpx2.HTTPError):
            client.post(url, content=content, headers=headers)
        return calls

    def emitted(self) -> str:
        """Everything, as text."""
        for provider in (self.pipelines.tracer_provider, self.pipelines.meter_provider, self.pipelines.logger_provider):
            provider.force_flush()
        metrics = self.memory.metrics
        assert metrics is not None
        objects = [span.to_json() for span in self.memory.spans]
        objects += [metrics.to_json(), *map(log_text, self.memory.logs)]
        messages = (encode_spans(self.memory.spans), encode_metrics(metrics), encode_logs(self.memory.logs))
        encoded = [str(message.SerializeToString()) for message in messages]
        return "\n".join([*objects, *encoded, *self.logged, *self._capture.readouterr()])

    def shutdown(self) -> None:
        """End the exporters."""
        for provider in (self.pipelines.tracer_provider, self.pipelines.meter_provider, self.pipelines.logger_provider):
            provider.shutdown()


class Collected(logging.Handler):
    """The program's own logging, at its lowest level: what msgtap, or OpenTelemetry because of it, says there."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._texts = texts
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Format the record as handlers do, traceback and all."""
        if record.name.partition(".")[0] in {"msgtap", "opentelemetry", "structlog", "py"}:
            self._texts.append(self.format(record))


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """The program; afterwards nothing is observed any more."""
    made = Program(capfd)
    monkeypatch.setattr(shield, "_logged", set())  # so that each failure is said here
    handler, root = Collected(made.logged), logging.getLogger()
    levels = {logger: logger.level for logger in (root, shield.LOGGER)}
    root.addHandler(handler)
    for logger in levels:
        logger.setLevel(logging.DEBUG)
    yield made
    msgtap.uninstrument()
    tap.drain()
    msgtap.instrument(logs="off")
    msgtap.uninstrument()
    root.removeHandler(handler)
    for logger, level in levels.items():
        logger.setLevel(level)
    made.shutdown()


def url_of(endpoint: Endpoint) -> str:
    """The URL of the endpoint with a key in each part that may have one."""
    return f"http://user:{PASSWORD}@127.0.0.1:{endpoint.port}/v1/messages?beta=true&api_key={KEY}&{KEY}=1"


def assert_clean(program: Program, *, sent: bool = True) -> None:
    """Not a byte of a key has been emitted, although there was something to emit."""
    emitted = program.emitted()
    assert WORD not in emitted.lower()
    assert BASIC not in emitted
    if sent:  # the search finds what is there to be found
        assert 2 <= emitted.count("session-in-clear")
        assert 2 <= emitted.count("user-in-clear")


STYLES: list[LogStyle] = ["off", "stdlib", "json", "console"]


@pytest.mark.parametrize("logs", STYLES)
@pytest.mark.parametrize("name", REPLIES)
def test_no_key_in_what_a_call_emits(name: str, logs: LogStyle, program: Program) -> None:
    """Keys in headers, URL, body and reply stay where they are, however the call ends."""
    program.instrument(logs=logs)
    with Endpoint([REPLIES[name]]) as endpoint:
        calls = program.send(url_of(endpoint), REPLIES[name])
        (received,) = endpoint.received
    assert KEY == received.header("x-api-key")
    assert WORD in received.target
    assert 1 == len(calls)
    assert_clean(program)
    said = "\n".join(program.logged) if logs == "stdlib" else ""
    assert (logs == "stdlib") == ("messages.call" in said)


@pytest.mark.parametrize("logs", STYLES)
def test_no_key_where_nobody_listens(logs: LogStyle, program: Program) -> None:
    """A refused connection, whose exception the program gets, leaves no key in what is emitted."""
    program.instrument(logs=logs)
    with Endpoint() as endpoint:
        url = url_of(endpoint)
    (call,) = program.send(url)
    assert "httpx2.ConnectError" == call.error_type
    assert_clean(program)


def test_no_key_in_a_header_that_cannot_be_sent(program: Program) -> None:
    """A key with a line end, which the client's exception repeats, is not repeated by us."""
    program.instrument(logs="json")
    with Endpoint() as endpoint:
        texts = []
        with capture_calls() as calls, httpx2.Client() as client:
            try:
                client.post(url_of(endpoint), json=BODY, headers={**REQUEST_HEADERS, "x-api-key": f"{KEY}\n"})
            except httpx2.HTTPError as error:
                texts.append(str(error))
    assert WORD in texts[0]
    assert ["httpx2.LocalProtocolError"] == [call.error_type for call in calls]
    assert_clean(program)


def failing(*_: object, **__: object) -> Any:
    """A fault whose text repeats a key, raised from another and while a third is being handled."""
    try:
        raise ConnectionError(ECHO)  # noqa: TRY301
    except ConnectionError as cause:
        raise ValueError(ECHO, {"key": KEY}) from cause


FAULTS = [
    "msgtap.adapters.httpx.watch",
    "msgtap.tap.read_request",
    "msgtap.tap.correlate",
    "msgtap.exchange.Exchange.receive_headers",
    "msgtap.exchange.Exchange.receive_data",
    "msgtap.exchange.Exchange.close",
    "msgtap.wire.body.read_event",
    "msgtap.telemetry.spans.start_attributes",
    "msgtap.telemetry.spans.call_attributes",
    "msgtap.telemetry.metrics.CallMetrics.begin",
    "msgtap.telemetry.metrics.CallMetrics.finish",
    "msgtap.telemetry.logs.CallLog.emit",
]


@pytest.mark.parametrize("reply", ["a stream", "an error that echoes"])
@pytest.mark.parametrize("place", FAULTS)
def test_no_key_in_what_a_fault_of_ours_says(
    place: str, reply: str, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in our code is told by its place, not by its text, nor by what the program was handling meanwhile."""
    before = shield.counts().get("internal_error", 0)
    program.instrument(logs="json")
    monkeypatch.setattr(place, failing)
    with Endpoint([REPLIES[reply]]) as endpoint:
        try:
            raise PermissionError(ECHO)  # noqa: TRY301  # the program is handling an exception of its own
        except PermissionError:
            program.send(url_of(endpoint), REPLIES[reply])
    if place != "msgtap.wire.body.read_event" or reply == "a stream":
        assert before < shield.counts()["internal_error"]
        assert any("msgtap failed in" in text and "ValueError" in text for text in program.logged)
    assert_clean(program, sent=False)


def drop(_: CallRecord) -> CallRecord:
    """A processor of the program that fails, and says a key."""
    raise LookupError(ECHO)


@pytest.mark.parametrize(
    "settings",
    [{"processors": [drop]}, {"identifiers": failing}, {"processors": [failing]}],
    ids=["drop", "ids", "chain"],
)
def test_no_key_in_what_a_fault_of_the_programs_says(settings: dict[str, Any], program: Program) -> None:
    """A function of the program that fails within ours is told by its place too."""
    before = shield.counts().get("internal_error", 0)
    program.instrument(logs="console", **settings)
    with Endpoint([REPLIES["a message"]]) as endpoint:
        calls = program.send(url_of(endpoint), REPLIES["a message"])
    assert 1 == len(calls)
    assert before < shield.counts()["internal_error"]
    assert_clean(program, sent=False)


@pytest.mark.parametrize("style", STYLES)
def test_a_key_that_is_an_id_can_be_hashed(style: LogStyle, program: Program) -> None:
    """A program that uses a key as its user's id finds it hashed where it asks for that, in every signal."""
    program.instrument(logs=style, identifiers="hash")
    with Endpoint([REPLIES["a message"]]) as endpoint, capture_calls() as calls, httpx2.Client() as client:
        client.post(f"{endpoint.url}/v1/messages", json={"model": "m", "user": KEY, "session_id": ROUTER_KEY})
    assert 1 == len(calls)
    assert_clean(program, sent=False)


def test_the_search_would_find_a_key(program: Program) -> None:
    """Planted where it must show, as an id in clear, a key is found in every signal and in every kind of text."""
    program.instrument(logs="json")
    with Endpoint([REPLIES["a message"]]) as endpoint, httpx2.Client() as client:
        client.post(f"{endpoint.url}/v1/messages", json={"model": WORD, "user": KEY})
    metrics = program.memory.metrics
    assert metrics is not None
    texts = [program.memory.spans[0].to_json(), metrics.to_json(), log_text(program.memory.logs[0]), program.emitted()]
    assert [True] * 4 == [WORD in text for text in texts]
    assert 6 <= texts[-1].count(KEY)  # span and log, as objects and as bytes, and on standard error twice
