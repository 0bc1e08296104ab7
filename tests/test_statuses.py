"""Every documented error, in every form that endpoints, gateways and proxies give it, through a real client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import msgtap
from msgtap import semconv, shield
from msgtap.record import CallRecord, Ending, ErrorBody, MessageResponse
from msgtap.testing import capture_calls, replies
from msgtap.testing.endpoint import Endpoint, Received
from msgtap.testing.replies import Reply, json_reply, sse

ECHO = "the text of an error, which is content: sk-ant-api03-echoed"
RETRY = (("retry-after", "7"),)

# status: Anthropic's type, OpenRouter's type for the same, and its own word for it
ERRORS = {
    400: ("invalid_request_error", "invalid_request_error", "context_length_exceeded"),
    401: ("authentication_error", "authentication_error", "authentication"),
    402: ("billing_error", "billing_error", "payment_required"),
    403: ("permission_error", "permission_error", "permission_denied"),
    404: ("not_found_error", "not_found_error", "image_not_found"),
    408: ("timeout_error", "timeout_error", "timeout"),
    409: ("conflict_error", "invalid_request_error", "unmapped"),
    413: ("request_too_large", "invalid_request_error", "payload_too_large"),
    422: ("invalid_request_error", "invalid_request_error", "unprocessable"),
    429: ("rate_limit_error", "rate_limit_error", "rate_limit_exceeded"),
    500: ("api_error", "api_error", "server"),
    502: ("api_error", "api_error", "provider_unavailable"),
    503: ("overloaded_error", "overloaded_error", "provider_overloaded"),
    504: ("timeout_error", "timeout_error", "timeout"),
    529: ("overloaded_error", "overloaded_error", "provider_overloaded"),
}


def anthropic(status: int) -> tuple[Reply, str | None, ErrorBody | None]:
    """Anthropic's envelope, with its fine-grained code."""
    kind, _, _ = ERRORS[status]
    error = {"type": kind, "message": ECHO, "details": {"error_code": "model_not_found"}}
    document = {"type": "error", "error": error, "request_id": "req_1"}
    headers = (("request-id", "req_1"), *RETRY)
    return (
        json_reply(status, document, headers=headers),
        kind,
        ErrorBody(type=kind, code="model_not_found", request_id="req_1"),
    )


def openrouter(status: int, request_id: str | None = "gen-1") -> tuple[Reply, str | None, ErrorBody | None]:
    """OpenRouter's envelope, from behind its router."""
    _, kind, error_type = ERRORS[status]
    error = {
        "type": kind,
        "message": ECHO,
        "error_type": error_type,
        "availability": {"code": "capacity_exhausted", "retryable": True, "retry_after": 40},
    }
    metadata = {"requested": "m", "strategy": "direct", "attempt": 2, "endpoints": {"total": 2, "available": []}}
    document = {"type": "error", "error": error, "request_id": request_id, "openrouter_metadata": metadata}
    headers = (*((("X-Generation-Id", request_id),) if request_id else ()), *RETRY)
    reply = json_reply(status, document, headers=headers)
    return reply, kind, ErrorBody(type=kind, error_type=error_type, request_id=request_id)


def before_the_router(status: int) -> tuple[Reply, str | None, ErrorBody | None]:
    """The same, refused before it got there: no id."""
    return openrouter(status, None)


def numbered(status: int) -> tuple[Reply, str | None, ErrorBody | None]:
    """An error by number, as OpenRouter's other endpoints give it, and no type."""
    document = {"error": {"code": status, "message": ECHO}, "user_id": "user_1"}
    return json_reply(status, document, headers=RETRY), None, ErrorBody()


def unlike_any(status: int) -> tuple[Reply, str | None, ErrorBody | None]:
    """JSON that is no envelope."""
    return json_reply(status, {"detail": ECHO}, headers=RETRY), None, ErrorBody()


def odd_type(status: int) -> tuple[Reply, str | None, ErrorBody | None]:
    """An envelope whose type is no word of a machine, but a text that echoes a key."""
    return json_reply(status, {"type": "error", "error": {"type": ECHO}}, headers=RETRY), None, ErrorBody()


def html(status: int) -> tuple[Reply, str | None, ErrorBody | None]:
    """The page of a proxy."""
    page = replies.html_error(status)
    return Reply(status=status, headers=(*page.headers, *RETRY), body=page.body, framing="length"), None, None


def plain(status: int) -> tuple[Reply, str | None, ErrorBody | None]:
    """A line of text, until the connection ends."""
    text = Reply(
        status=status, headers=(("content-type", "text/plain"), *RETRY), body=(ECHO.encode(),), framing="close"
    )
    return text, None, None


def empty(status: int) -> tuple[Reply, str | None, ErrorBody | None]:
    """No body, and no type of it."""
    return Reply(status=status, headers=RETRY, framing="length"), None, None


def stream(status: int) -> tuple[Reply, str | None, ErrorBody | None]:
    """An event of a stream, although the status says it all."""
    event = sse("error", {"type": "error", "error": {"type": "api_error", "message": ECHO}})
    reply = Reply(status=status, headers=(("content-type", "text/event-stream"), *RETRY), body=(event,))
    return reply, None, None


def packed(status: int) -> tuple[Reply, str | None, ErrorBody | None]:
    """Anthropic's envelope, compressed."""
    reply, kind, error = anthropic(status)
    bare = Reply(status=status, headers=reply.headers, body=reply.body, framing="chunked")
    return replies.encoded(bare, "gzip"), kind, error


FORMS = [anthropic, openrouter, before_the_router, numbered, unlike_any, odd_type, html, plain, empty, stream, packed]


class Wire:
    """One client and one endpoint, which answers what it is told to."""

    def __init__(self, client: httpx2.Client) -> None:
        self.reply = replies.message()
        self.endpoint = Endpoint(respond=self._respond)
        self._client = client

    def _respond(self, _: Received) -> Reply:
        return self.reply

    def send(self, reply: Reply, *, streamed: bool) -> tuple[CallRecord, ReadableSpan, httpx2.Response]:
        """The record of a call, its span, and what the program got."""
        self.reply = reply
        spans, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(spans))
        failed = shield.counts().get("internal_error", 0)
        msgtap.instrument(tracer_provider=provider)
        with capture_calls() as calls:
            body = json.dumps({"model": "m", "stream": streamed}).encode()
            url, headers = f"{self.endpoint.url}/v1/messages", {"content-type": "application/json"}
            if streamed:
                with self._client.stream("POST", url, content=body, headers=headers) as response:
                    response.read()
            else:
                response = self._client.post(url, content=body, headers=headers)
        msgtap.uninstrument()
        assert failed == shield.counts().get("internal_error", 0)
        (call,), (span,) = calls, spans.get_finished_spans()
        assert ECHO not in repr((call, span.name, span.to_json(), span.events, span.status.description))
        return call, span, response


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """A real client and a real endpoint."""
    with httpx2.Client() as client:
        made = Wire(client)
        with made.endpoint:
            yield made


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("status", ERRORS)
def test_every_status_in_every_form(
    status: int, form: Callable[[int], tuple[Reply, str | None, ErrorBody | None]], streamed: bool, wire: Wire
) -> None:
    """The type of the envelope, else the status; what else it says in machine's words; and when to try again."""
    reply, kind, error = form(status)
    record, span, response = wire.send(reply, streamed=streamed)
    assert (status, kind or str(status), error) == (record.status, record.error_type, record.error)
    assert (Ending.COMPLETE, MessageResponse(), False) == (record.ending, record.response, record.output_expected)
    assert 7.0 == record.headers.retry_after
    attributes: dict[str, Any] = dict(span.attributes or {})
    assert {
        semconv.HTTP_STATUS: status,
        semconv.ERROR_TYPE: kind or str(status),
        semconv.OPENROUTER_ERROR_TYPE: error.error_type if error else None,
        semconv.ERROR_CODE: error.code if error else None,
        semconv.REQUEST_ID: error.request_id if error else None,
        semconv.RETRY_AFTER: 7.0,
        semconv.ENDED: None,
        semconv.FINISH_REASONS: None,
    } == {
        name: attributes.get(name)
        for name in (
            semconv.HTTP_STATUS,
            semconv.ERROR_TYPE,
            semconv.OPENROUTER_ERROR_TYPE,
            semconv.ERROR_CODE,
            semconv.REQUEST_ID,
            semconv.RETRY_AFTER,
            semconv.ENDED,
            semconv.FINISH_REASONS,
        )
    }
    assert (StatusCode.ERROR, None, ()) == (span.status.status_code, span.status.description, tuple(span.events))
    assert status == response.status_code
    if form is not packed:
        assert b"".join(step for step in reply.body if isinstance(step, bytes)) == response.content


EVENTS = replies.events()
INSIDE: dict[str, tuple[tuple[bytes, ...], bool]] = {
    "the only event": ((), False),
    "after a comment and a ping": ((b": hello\n\n", sse("ping", {"type": "ping"})), False),
    "before content": (EVENTS[:1], True),
    "after content": (EVENTS[:5], True),
    "after the stop reason": (EVENTS[:-1], True),
}


@pytest.mark.parametrize("router", [False, True], ids=["Anthropic", "OpenRouter"])
@pytest.mark.parametrize("end", [b"\n\n", b"\n", b""], ids=["blank line", "line end", "nothing"])
@pytest.mark.parametrize("where", INSIDE)
def test_error_inside_a_stream_of_status_200(where: str, end: bytes, router: bool, wire: Wire) -> None:
    """An ``error`` event makes the call a failure of that type, whatever came before it; what was known stays known."""
    before, began = INSIDE[where]
    told = {"type": "overloaded_error", "message": ECHO, **({"error_type": "provider_overloaded"} if router else {})}
    document = {"type": "error", "error": told, **({} if router else {"request_id": "req_1"})}
    reply = Reply(
        headers=(("content-type", "text/event-stream"),), body=(*before, sse("error", document).strip() + end)
    )
    record, span, response = wire.send(reply, streamed=True)
    assert (200, "overloaded_error", Ending.COMPLETE) == (record.status, record.error_type, record.ending)
    expected = ErrorBody(type="overloaded_error", error_type="provider_overloaded" if router else None)
    assert (expected.type, expected.error_type) == (
        record.error and record.error.type,
        record.error and record.error.error_type,
    )
    assert began == record.output_expected == (record.response.id is not None)
    attributes = dict(span.attributes or {})
    reasons = ("stop",) if where == "after the stop reason" else ("error",) if began else None
    assert ("overloaded_error", reasons) == (
        attributes[semconv.ERROR_TYPE],
        attributes.get(semconv.FINISH_REASONS),
    )
    assert StatusCode.ERROR == span.status.status_code
    assert b"".join(step for step in reply.body if isinstance(step, bytes)) == response.content


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_error_as_a_whole_body_of_status_200(streamed: bool, wire: Wire) -> None:
    """An error that a gateway sends as a success is a failure all the same, also where a stream was asked for."""
    reply, kind, error = anthropic(529)
    reply = Reply(status=200, headers=reply.headers, body=reply.body, framing="length")
    record, span, _ = wire.send(reply, streamed=streamed)
    assert (200, kind, error, Ending.COMPLETE) == (record.status, record.error_type, record.error, record.ending)
    assert (StatusCode.ERROR, kind) == (span.status.status_code, (span.attributes or {}).get(semconv.ERROR_TYPE))


@pytest.mark.parametrize("status", [200, 201, 299])
def test_success_of_any_status(status: int, wire: Wire) -> None:
    """Any status below 400 that brings a message is a success."""
    whole = replies.message()
    reply = Reply(status=status, headers=whole.headers, body=whole.body, framing="length")
    record, span, _ = wire.send(reply, streamed=False)
    assert (status, None, "end_turn") == (record.status, record.error_type, record.response.stop_reason)
    assert StatusCode.UNSET == span.status.status_code
