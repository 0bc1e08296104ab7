"""Which requests are ours."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from msgtap.wire.endpoint import Endpoint, EndpointTable

ANTHROPIC = "api.anthropic.com"


def provider(table: EndpointTable, host: str, target: str, port: int = 443) -> str | None:
    """Whose request this is; None if it is none of ours. The cheap look never says no to what is one of ours."""
    row = table.match(host, port, target)
    assert row is None or table.candidate(target.encode())
    return row.provider if row else None


@pytest.mark.parametrize(
    ("host", "target", "expected"),
    [
        (ANTHROPIC, "/v1/messages", "anthropic"),
        (ANTHROPIC, "/v1/messages?beta=true", "anthropic"),
        (ANTHROPIC, "/v1/messages/", "anthropic"),
        (ANTHROPIC, "/v1/messages/?beta=true", "anthropic"),
        ("openrouter.ai", "/api/v1/messages", "openrouter"),
        ("eu.openrouter.ai", "/api/v1/messages?beta=true", "openrouter"),
        ("notopenrouter.ai", "/api/v1/messages", "anthropic"),
        ("127.0.0.1", "/v1/messages", "anthropic"),
        ("gateway.example", "/team/claude/v1/messages", "anthropic"),
        (ANTHROPIC, "/v1/messages/count_tokens", None),
        (ANTHROPIC, "/v1/messages/count_tokens?beta=true", None),
        (ANTHROPIC, "/v1/messages/batches", None),
        (ANTHROPIC, "/v1/messages/batches/msgbatch_1/results", None),
        ("openrouter.ai", "/api/v1/presets/mine/messages", None),
        ("openrouter.ai", "/presets/mine/messages", None),
        ("gateway.example", "/presets/v1/messages", None),
        (ANTHROPIC, "/v1/complete", None),
        (ANTHROPIC, "/v1/models", None),
        (ANTHROPIC, "/v1/messagesx", None),
        (ANTHROPIC, "/xv1/messages", None),
        (ANTHROPIC, "/v2/messages", None),
        (ANTHROPIC, "/search?next=/v1/messages", None),
        (ANTHROPIC, "/", None),
        (ANTHROPIC, "", None),
        (ANTHROPIC, "/v1/chat/completions", None),
        (ANTHROPIC, "/V1/Messages", None),
    ],
)
def test_built_in_table(host: str, target: str, expected: str | None) -> None:
    """A path that ends in ``/v1/messages``, whatever the query; none of its sub-resources, and no presets."""
    assert expected == provider(EndpointTable(), host, target)


@pytest.mark.parametrize(
    ("row", "host", "port", "target", "expected"),
    [
        (Endpoint(provider="acme"), "any.example", 443, "/v1/messages", "acme"),
        (Endpoint(host="llm.example", provider="acme"), "llm.example", 443, "/v1/messages", "acme"),
        (Endpoint(host="LLM.Example", provider="acme"), "llm.example", 443, "/v1/messages", "acme"),
        (Endpoint(host="llm.example", provider="acme"), "llm.example", 8080, "/v1/messages", "acme"),
        (Endpoint(host="llm.example", provider="acme"), "x.llm.example", 443, "/v1/messages", "anthropic"),
        (Endpoint(host="*.example", provider="acme"), "a.b.example", 443, "/v1/messages", "acme"),
        (Endpoint(host="llm?.example", provider="acme"), "llm7.example", 443, "/v1/messages", "acme"),
        (Endpoint(host="llm.example:8080", provider="acme"), "llm.example", 8080, "/v1/messages", "acme"),
        (Endpoint(host="llm.example:8080", provider="acme"), "llm.example", 443, "/v1/messages", "anthropic"),
        (Endpoint(host="*:8080", provider="acme"), "llm.example", 8080, "/v1/messages", "acme"),
        (Endpoint(path="/llm/*/messages", provider="acme"), "a.example", 443, "/llm/x/messages", "acme"),
        (Endpoint(path="/llm/*/messages", provider="acme"), "a.example", 443, "/llm/messages", None),
        (Endpoint(path="/llm/messages/", provider="acme"), "a.example", 443, "/llm/messages", "acme"),
        (Endpoint(path="/llm/messages", provider="acme"), "a.example", 443, "/llm/messages/?x=1", "acme"),
        (Endpoint(path="*:rawPredict", provider="gcp"), "a.example", 443, "/v1/m/claude:rawPredict?alt=sse", "gcp"),
        (Endpoint(path="/model/*/invoke*", provider="aws"), "a.example", 443, "/model/x/invoke-with-stream", "aws"),
        (Endpoint(path="/v[12]/msg", provider="acme"), "a.example", 443, "/v2/msg", "acme"),
        (Endpoint(path="/v[12]/msg", provider="acme"), "a.example", 443, "/v3/msg", None),
        (Endpoint(path="*/messages", provider="acme"), "openrouter.ai", 443, "/api/v1/presets/mine/messages", None),
        (Endpoint(host="llm.example", path="*", provider="acme"), "llm.example", 443, "/anything", "acme"),
        (Endpoint(host="llm.example", path="*", provider="acme"), "other.example", 443, "/anything", None),
    ],
)
def test_rows_of_users_come_first(row: Endpoint, host: str, port: int, target: str, expected: str | None) -> None:
    """A row names hosts, with or without a port, and paths, with or without a slash at their end, by shell patterns."""
    assert expected == provider(EndpointTable([row]), host, target, port)


def test_first_row_wins() -> None:
    """Rows are tried in order, those of users before the built-in ones."""
    rows = [Endpoint(host="a.*", provider="first"), Endpoint(host="*.openrouter.ai", provider="second")]
    table = EndpointTable(rows)
    assert "first" == provider(table, "a.openrouter.ai", "/v1/messages")
    assert "second" == provider(table, "b.openrouter.ai", "/v1/messages")
    assert "openrouter" == provider(table, "openrouter.ai", "/v1/messages")


@pytest.mark.parametrize(
    ("pattern", "host", "port", "target", "excluded"),
    [
        ("localhost", "localhost", 80, "/v1/messages", True),
        ("LocalHost", "localhost", 80, "/v1/messages", True),
        ("localhost", "localhost.example", 80, "/v1/messages", False),
        ("localhost:8080", "localhost", 8080, "/v1/messages", True),
        ("localhost:8080", "localhost", 80, "/v1/messages", False),
        ("*.internal", "llm.internal", 443, "/v1/messages", True),
        ("*:80*", "a.example", 8080, "/v1/messages", True),
        ("/mock/*", "a.example", 443, "/mock/v1/messages", True),
        ("/mock/*", "a.example", 443, "/real/v1/messages", False),
        ("/v1/messages/", "a.example", 443, "/v1/messages?x=1", True),
        ("/v1/messages", "a.example", 443, "/x/v1/messages", False),
        ("*", "a.example", 443, "/v1/messages", True),
    ],
)
def test_exclusions(pattern: str, host: str, port: int, target: str, excluded: bool) -> None:
    """A host, with or without a port, or a path may be left alone, whichever row it fits."""
    table = EndpointTable([Endpoint(host="a.example", provider="acme")], [pattern, "never.example"])
    assert excluded == (provider(table, host, target, port) is None)


@pytest.mark.parametrize("target", [b"/v1/complete", b"/v1/models", b"/", b"", b"/v1/message", b"/\xff"])
def test_traffic_of_others_is_no_candidate(target: bytes) -> None:
    """The cheap look says no to what is clearly not ours; to be wrong the other way costs only time."""
    assert not EndpointTable().candidate(target)


PIECES = st.sampled_from(
    ["*", "?", "[ab]", "[!a]", "[a-c]", "[", "]", "/", "a", "b", "v1", "/messages", "-", "!", ":", "."]
)
FITTING = {"*": ["", "a", "/a/b", "]"], "?": ["a", "["], "[ab]": ["b"], "[!a]": ["b", "/"], "[a-c]": ["c"]}
PATHS = st.lists(
    PIECES.flatmap(lambda piece: st.tuples(st.just(piece), st.sampled_from(FITTING.get(piece, [piece])))), max_size=6
)


@settings(deadline=None, max_examples=200)
@given(PATHS, st.sampled_from(["", "?", "?beta=true", "/", "//?x=/v1"]), st.lists(PIECES, max_size=4))
@example([("*", ""), ("/messages", "/messages"), ("[", "["), ("a", "a")], "", [])
@example([("[", "["), ("*", "a"), ("]", "b")], "", [])
def test_candidate_never_says_no_to_what_matches(path: list[tuple[str, str]], end: str, more: list[str]) -> None:
    """Whatever a pattern is made of, what `match` accepts the cheap look has accepted."""
    pattern, target = "".join(piece for piece, _ in path), "".join(part for _, part in path) + end
    table = EndpointTable([Endpoint(path="".join(more), provider="more"), Endpoint(path=pattern, provider="acme")])
    found = provider(table, "a.example", target)
    bare = target.partition("?")[0].rstrip("/")
    if fnmatch.fnmatchcase(bare, pattern.rstrip("/")) and "/presets/" not in bare:
        assert found is not None
