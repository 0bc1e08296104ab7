"""Headers as an allow-list."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgtap import shield
from msgtap.record import ResponseHeaders, Scalar
from msgtap.testing import replies
from msgtap.wire import headers
from msgtap.wire.headers import read_attempt, read_betas, read_response_headers, select

SECRET = "sk-ant-api03-planted"
ALL = {
    "Request-Id": "req_1",
    "X-Generation-Id": "gen-1",
    "Anthropic-Organization-Id": "org-1",
    "Retry-After": "7",
    "X-OpenRouter-Cache-Status": "HIT",
    "Anthropic-RateLimit-Requests-Limit": "4000",
    "anthropic-ratelimit-requests-remaining": "3999",
    "anthropic-ratelimit-requests-reset": "2026-11-24T12:00:01Z",
    "anthropic-priority-input-tokens-limit": "10",
    "anthropic-fast-output-tokens-remaining": "9",
    "X-RateLimit-Limit": "20",
    "Content-Type": "application/json",
    "Content-Encoding": "gzip",
}
OTHERS = {
    "Set-Cookie": SECRET,
    "Authorization": f"Bearer {SECRET}",
    "x-api-key": SECRET,
    "Location": f"https://u:{SECRET}@x.example/?key={SECRET}",
    "anthropic-ratelimit-secret-limit": SECRET,
    "request-id-of-others": SECRET,
    "": SECRET,
}
FACTS = ResponseHeaders(
    request_id="req_1",
    generation_id="gen-1",
    organization_id="org-1",
    retry_after=7.0,
    cache_status="HIT",
    rate_limits=(
        ("requests.limit", 4000),
        ("requests.remaining", 3999),
        ("requests.reset", "2026-11-24T12:00:01Z"),
        ("priority.input_tokens.limit", 10),
        ("fast.output_tokens.remaining", 9),
        ("limit", 20),
    ),
)


def response(**named: str) -> ResponseHeaders:
    """The facts of a response with these headers, whose names have an underscore for each hyphen."""
    pairs = [(name.replace("_", "-"), value) for name, value in named.items()]
    return read_response_headers(select(pairs, headers.RESPONSE))


def test_every_fact_of_a_response() -> None:
    """Each header that is a fact has its place, whatever its case, as text or as bytes; no other is looked at."""
    pairs = list((ALL | OTHERS).items())
    selected = select(pairs, headers.RESPONSE)
    assert FACTS == read_response_headers(selected)
    as_bytes = [(name.encode(), value.encode()) for name, value in pairs]
    assert selected == select(as_bytes, headers.RESPONSE)
    assert SECRET not in repr(selected | {"location": None})
    assert SECRET not in repr(read_response_headers(selected))


def test_anthropics_twelve() -> None:
    """All rate-limit headers that Anthropic sends are read."""
    facts = dict(read_response_headers(select(replies.rate_limit_headers(used=1), headers.RESPONSE)).rate_limits)
    kinds = ("requests", "tokens", "input_tokens", "output_tokens")
    assert {f"{kind}.{fact}" for kind in kinds for fact in ("limit", "remaining", "reset")} == set(facts)
    assert {0} == {facts[f"{kind}.remaining"] for kind in kinds}


def test_request_headers() -> None:
    """Of a request the session, the betas and the attempt are read, and nothing that could be a key."""
    pairs = [*OTHERS.items(), ("X-Session-Id", "s-1"), ("anthropic-beta", "a,b"), ("X-Stainless-Retry-Count", "2")]
    selected = select(pairs, headers.REQUEST)
    assert {"x-session-id": "s-1", "anthropic-beta": "a,b", "x-stainless-retry-count": "2"} == selected
    assert (("a", "b"), 2) == (read_betas(selected), read_attempt(selected))
    assert ((), None) == (read_betas({}), read_attempt({}))


@pytest.mark.parametrize(
    ("name", "expected"), [("anthropic-beta", "a,b,c"), ("x-session-id", "c"), ("x-stainless-retry-count", "c")]
)
def test_repeated_header(name: str, expected: str) -> None:
    """A list may come in several lines, which are one list; of any other header the last holds."""
    assert expected == select([(name, "a,b"), (name.upper(), "c")], headers.REQUEST)[name]
    assert (
        "gzip,br"
        == select([("content-encoding", "gzip"), ("Content-Encoding", "br")], headers.RESPONSE)["content-encoding"]
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("0.25", 0.25),
        (" 7 ", 7.0),
        ("-1", None),
        ("", None),
        ("soon", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("inf", None),
        ("nan", None),
        ("1e999", None),
        ("9" * 5000, None),
    ],
)
def test_retry_after(value: str, expected: float | None) -> None:
    """Seconds, or in the Anthropic SDK's own header milliseconds, which come first; a date is left out."""
    assert expected == response(retry_after=value).retry_after
    assert (None if expected is None else expected / 1000) == response(retry_after_ms=value).retry_after
    assert 0.5 == response(retry_after=value, retry_after_ms="500").retry_after


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ""),
        ("0", 0),
        ("4000", 4000),
        ("9" * 18, int("9" * 18)),
        ("9" * 19, "9" * 19),
        ("-1", "-1"),
        ("1.5", "1.5"),
        ("²", "²"),
        ("2026-11-24T12:00:01Z", "2026-11-24T12:00:01Z"),
        ("x" * 300, "x" * 255 + "…"),
    ],
)
def test_rate_limit_values(value: str, expected: Scalar) -> None:
    """A number that 64 bits hold is one; all else is text, bounded and counted."""
    before = shield.counts().get("cut_text", 0)
    assert (("requests.limit", expected),) == response(anthropic_ratelimit_requests_limit=value).rate_limits
    assert (len(value) > 256) == shield.counts().get("cut_text", 0) - before


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0", 0), ("2", 2), ("", None), ("-1", None), ("two", None), ("1.0", None), ("²", None), ("9" * 10, None)],
)
def test_attempt(value: str, expected: int | None) -> None:
    """The attempt is a small number, or unknown."""
    assert expected == read_attempt({"x-stainless-retry-count": value})


def test_values_that_are_no_text() -> None:
    """Bytes are Latin-1, as HTTP has it; half a surrogate, which some clients put for a bad byte, is none of text."""
    assert "é" == select([(b"x-session-id", b"\xe9")], headers.REQUEST)["x-session-id"]
    assert "é😀?" == select([("x-session-id", "é😀\udcff")], headers.REQUEST)["x-session-id"]


NAMES = st.sampled_from([*ALL, *OTHERS, "retry-after-ms", "x-session-id"])


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, st.text(st.characters(), max_size=8)), max_size=8))
def test_any_headers_raise_nothing(pairs: list[tuple[str, str]]) -> None:
    """Whatever the headers hold, reading them raises nothing, and every text can be exported."""
    encoded = [(name.encode(), value.encode("utf-8", "replace")) for name, value in pairs]
    for selected in (select(pairs, headers.RESPONSE), select(encoded, headers.RESPONSE)):
        facts = read_response_headers(selected)
        texts = [facts.request_id, facts.generation_id, facts.organization_id, facts.cache_status]
        texts += [value for _, value in facts.rate_limits if isinstance(value, str)]
        "".join(text for text in texts if text).encode()
    "".join(read_betas(select(pairs, headers.REQUEST))).encode()
