"""Who calls, in which session: the rules for ``session_id`` and ``user``, each seen through a real client."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import msgtap
from msgtap import semconv, shield
from msgtap.correlation import IDENTIFIER_LIMIT, Defaults, Identifiers, bounded, correlate, hashed, plain
from msgtap.record import Correlation, Trace
from msgtap.testing import capture_calls
from msgtap.testing.endpoint import Endpoint
from msgtap.wire.request import Claims

ABSENT = object()
LONG = "x" * 256
ASTRAL = "😀" * 256


def cut(identifier: str) -> str:
    """An over-long id as the rule has it: 239 code points, a tilde, 16 hexadecimal digits of the SHA-256 of it all."""
    return identifier[:239] + "~" + hashlib.sha256(identifier.encode()).hexdigest()[:16]


class Calls:
    """One client, one endpoint, and what was seen of the last call."""

    def __init__(self, client: httpx2.Client, url: str) -> None:
        self._client = client
        self._url = url

    def see(
        self, body: Mapping[str, object], headers: Mapping[str, str], identifiers: str | Identifiers | None = None
    ) -> tuple[Correlation, dict[str, Any]]:
        """The correlation of a call, and the attributes of its span."""
        spans = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(spans))
        msgtap.instrument(tracer_provider=provider, identifiers=identifiers)
        content = json.dumps({"model": "m", **{name: value for name, value in body.items() if value is not ABSENT}})
        with capture_calls() as calls:
            self._client.post(
                self._url, content=content.encode(), headers={"content-type": "application/json", **headers}
            )
        (call,), (span,) = calls, spans.get_finished_spans()
        return call.correlation, dict(span.attributes or {})


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Calls]:
    """A client and the endpoint that it calls."""
    with Endpoint() as served, httpx2.Client() as client:
        yield Calls(client, f"{served.url}/v1/messages")


@pytest.fixture
def calls(endpoint: Calls, monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    """The same, in an environment that says nothing; nothing is observed afterwards."""
    for name in ("MSGTAP_SESSION_ID", "MSGTAP_USER_ID", "MSGTAP_IDENTIFIERS"):
        monkeypatch.delenv(name, raising=False)
    yield endpoint
    msgtap.uninstrument()


# body, header, environment, the id that holds, and where it was found
SESSIONS: dict[str, tuple[object, str | None, str | None, str | None, str | None]] = {
    "body": ("s-1", None, None, "s-1", "body"),
    "body over header": ("s-1", "h-1", "e-1", "s-1", "body"),
    "header": (ABSENT, "h-1", None, "h-1", "header"),
    "header over environment": (ABSENT, "h-1", "e-1", "h-1", "header"),
    "environment": (ABSENT, None, "e-1", "e-1", "environment"),
    "nothing": (ABSENT, None, None, None, None),
    "empty body": ("", "h-1", None, "h-1", "header"),
    "empty body, no header": ("", None, None, None, None),
    "empty header": (ABSENT, "", "e-1", "e-1", "environment"),
    "empty environment": (ABSENT, None, "", None, None),
    "null": (None, "h-1", None, "h-1", "header"),
    "number": (123, "h-1", None, "h-1", "header"),
    "boolean": (True, "h-1", None, "h-1", "header"),
    "list": (["s-1"], "h-1", None, "h-1", "header"),
    "object": ({"id": "s-1"}, "h-1", None, "h-1", "header"),
    "number, no header": (123, None, None, None, None),
    "256 code points": (LONG, None, None, LONG, "body"),
    "257 code points": (LONG + "y", None, None, cut(LONG + "y"), "body"),
    "257 code points over header": (LONG + "y", "h-1", "e-1", cut(LONG + "y"), "body"),
    "a megabyte": ("x" * 1_000_000, "h-1", None, cut("x" * 1_000_000), "body"),
    "256 astral characters": (ASTRAL, None, None, ASTRAL, "body"),
    "257 astral characters": (ASTRAL + "😀", None, None, cut(ASTRAL + "😀"), "body"),
    "header of 256": (ABSENT, LONG, None, LONG, "header"),
    "header of 257": (ABSENT, LONG + "y", "e-1", cut(LONG + "y"), "header"),
    "environment of 257": (ABSENT, None, LONG + "y", cut(LONG + "y"), "environment"),
    "blank": (" ", "h-1", None, " ", "body"),
    "a null character": ("s\0id", None, None, "s\0id", "body"),
    "half a surrogate": ("s\ud800", None, None, "s�", "body"),
    "a byte of the environment that is no UTF-8": (ABSENT, None, "e\udcff", "e?", "environment"),
}


@pytest.mark.parametrize("name", SESSIONS)
def test_session(name: str, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """Body, then header, then environment; what is empty or no text is absent; an over-long one still wins."""
    body, header, environment, expected, source = SESSIONS[name]
    if environment is not None:
        monkeypatch.setenv("MSGTAP_SESSION_ID", environment)
    headers = {} if header is None else {"X-Session-Id": header}
    correlation, attributes = calls.see({"session_id": body}, headers)
    assert (expected, source) == (correlation.session_id, correlation.session_source)
    assert [expected] * 2 == [attributes.get(name) for name in (semconv.SESSION_ID, semconv.CONVERSATION_ID)]
    assert (None, None) == (correlation.user_id, attributes.get(semconv.USER_ID))


# body, metadata, environment, the id that holds, and where it was found
USERS: dict[str, tuple[object, object, str | None, str | None, str | None]] = {
    "body": ("u-1", ABSENT, None, "u-1", "body"),
    "body over metadata": ("u-1", {"user_id": "m-1"}, "e-1", "u-1", "body"),
    "metadata": (ABSENT, {"user_id": "m-1"}, None, "m-1", "metadata"),
    "metadata over environment": (ABSENT, {"user_id": "m-1"}, "e-1", "m-1", "metadata"),
    "environment": (ABSENT, ABSENT, "e-1", "e-1", "environment"),
    "nothing": (ABSENT, ABSENT, None, None, None),
    "empty body": ("", {"user_id": "m-1"}, None, "m-1", "metadata"),
    "null": (None, {"user_id": "m-1"}, None, "m-1", "metadata"),
    "number": (7, {"user_id": "m-1"}, None, "m-1", "metadata"),
    "list": (["u-1"], {"user_id": "m-1"}, None, "m-1", "metadata"),
    "object": ({"id": "u-1"}, {"user_id": "m-1"}, None, "m-1", "metadata"),
    "metadata without user": (ABSENT, {"other": "x"}, "e-1", "e-1", "environment"),
    "metadata empty": (ABSENT, {"user_id": ""}, "e-1", "e-1", "environment"),
    "metadata null": (ABSENT, {"user_id": None}, "e-1", "e-1", "environment"),
    "metadata number": (ABSENT, {"user_id": 7}, "e-1", "e-1", "environment"),
    "metadata no object": (ABSENT, "m-1", "e-1", "e-1", "environment"),
    "metadata a list": (ABSENT, [{"user_id": "m-1"}], "e-1", "e-1", "environment"),
    "257 code points": (LONG + "y", {"user_id": "m-1"}, None, cut(LONG + "y"), "body"),
    "257 astral characters": (ASTRAL + "😀", ABSENT, None, cut(ASTRAL + "😀"), "body"),
    "256 astral characters": (ASTRAL, ABSENT, None, ASTRAL, "body"),
    "metadata of 257": (ABSENT, {"user_id": LONG + "y"}, "e-1", cut(LONG + "y"), "metadata"),
    "an address": ("person@example.com", ABSENT, None, "person@example.com", "body"),
}


@pytest.mark.parametrize("name", USERS)
def test_user(name: str, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """Body, then ``metadata.user_id``, then environment, by the same rules; no header speaks for a user."""
    body, metadata, environment, expected, source = USERS[name]
    if environment is not None:
        monkeypatch.setenv("MSGTAP_USER_ID", environment)
    correlation, attributes = calls.see({"user": body, "metadata": metadata}, {"x-user-id": "nobody"})
    assert (expected, source) == (correlation.user_id, correlation.user_source)
    assert expected == attributes.get(semconv.USER_ID)
    assert (None, None) == (correlation.session_id, attributes.get(semconv.SESSION_ID))


def digest(identifier: str) -> str:
    """The first 32 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(identifier.encode()).hexdigest()[:32]


def broken(identifier: str) -> str:
    """A function of the program that fails."""
    raise LookupError(identifier)


def reversed_(identifier: str) -> str:
    """A function of the program."""
    return identifier[::-1]


WRITTEN: dict[str, tuple[str | Identifiers | None, str, str | None]] = {
    "default": (None, "s-1", "s-1"),
    "plain": ("plain", "s-1", "s-1"),
    "hash": ("hash", "s-1", digest("s-1")),
    "hash of an over-long one": ("hash", LONG + "y", digest(cut(LONG + "y"))),
    "function": (reversed_, "s-1", "1-s"),
    "function of an over-long one": (reversed_, LONG + "y", cut(LONG + "y")[::-1]),
    "function with a long answer": (lambda identifier: identifier * 500, "s-1", cut("s-1" * 500)),
    "function that fails": (broken, "s-1", None),
    "function that says nothing": (lambda identifier: "", "s-1", None),
    "function whose answer is no text": (len, "s-1", None),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", WRITTEN)
def test_identifiers(name: str, calls: Calls) -> None:
    """Ids are written as they came, hashed, or as a function of the program says; where it fails, not at all."""
    identifiers, identifier, expected = WRITTEN[name]
    correlation, attributes = calls.see({"session_id": identifier, "user": identifier}, {}, identifiers)
    assert (expected, expected) == (correlation.session_id, correlation.user_id)
    source = None if expected is None else "body"
    assert (source, source) == (correlation.session_source, correlation.user_source)
    names = (semconv.SESSION_ID, semconv.CONVERSATION_ID, semconv.USER_ID)
    assert [expected] * 3 == [attributes.get(name) for name in names]


def test_identifiers_from_the_environment(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """``MSGTAP_IDENTIFIERS`` does what the argument does; ids of the environment are hashed too."""
    monkeypatch.setenv("MSGTAP_IDENTIFIERS", "hash")
    monkeypatch.setenv("MSGTAP_USER_ID", "e-1")
    correlation, _ = calls.see({}, {"x-session-id": "h-1"})
    assert (digest("h-1"), digest("e-1")) == (correlation.session_id, correlation.user_id)


def test_what_is_cut_is_counted_and_stays_two() -> None:
    """Two over-long ids that differ in their last character stay two, and each is counted once."""
    before = shield.counts().get("cut_identifier", 0)
    first, second = bounded(LONG + "a"), bounded(LONG + "b")
    assert (first[:240], IDENTIFIER_LIMIT, IDENTIFIER_LIMIT) == (second[:240], len(first), len(second))
    assert first != second
    assert before + 2 == shield.counts()["cut_identifier"]


def test_a_function_that_fails_is_counted() -> None:
    """A failing function of the program costs the ids, and is counted as our failures are."""
    before = shield.counts().get("internal_error", 0)
    claims = Claims(session_id="s-1", user="u-1", trace=Trace(trace_name="t"))
    assert Correlation(trace=Trace(trace_name="t")) == correlate(claims, {}, Defaults(), broken)
    assert before + 2 == shield.counts()["internal_error"]


IDS = st.none() | st.text(st.characters(), max_size=5) | st.integers(250, 260).map("x".__mul__)


@settings(deadline=None)
@given(st.lists(IDS, min_size=6, max_size=6), st.sampled_from([plain, hashed, reversed_]))
def test_any_ids(ids: list[str | None], identifiers: Identifiers) -> None:
    """Whatever the sources say, an id is absent or bounded text that can be exported, and its source is named."""
    session, header, user, metadata, *environment = ids
    correlation = correlate(
        Claims(session_id=session, user=user, metadata_user_id=metadata),
        {} if header is None else {"x-session-id": header},
        Defaults(session_id=environment[0], user_id=environment[1]),
        identifiers,
    )
    found = ((correlation.session_id, correlation.session_source), (correlation.user_id, correlation.user_source))
    for identifier, source in found:
        assert (identifier is None) == (source is None)
        assert identifier is None or (identifier.encode() and len(identifier) <= IDENTIFIER_LIMIT)
    said = [any(group) for group in ((session, header, environment[0]), (user, metadata, environment[1]))]
    assert said == [identifier is not None for identifier, _ in found]
