"""Which requests are ours: a table of hosts and paths, first match wins, that users extend at its head.

A request counts when it is a ``POST`` whose path ends in ``/v1/messages``. Its sub-resources (``count_tokens``,
``batches``) do not, nor does OpenRouter's ``/presets/{slug}/messages``, which stores a preset.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from msgspec import Struct

MESSAGES_PATH = "*/v1/messages"

_PRESET = re.compile(r"/presets/[^/]+/messages$")


class Endpoint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row: where a Messages endpoint is served, and by whom.

    ``host`` and ``path`` are shell patterns (``*.example.com``, ``/llm/*/messages``); ``host`` may end in ``:port``.
    The case of ``host`` does not matter, nor does a slash at the end of ``path``. ``provider`` becomes
    ``gen_ai.provider.name``.
    """

    host: str = "*"
    path: str = MESSAGES_PATH
    provider: str = "anthropic"


# Provider names are OpenTelemetry's well-known values where there is one. A host that nobody has named is given the
# name of the format it speaks, as the Anthropic SDK's own spans do.
KNOWN = (
    Endpoint(host="openrouter.ai", provider="openrouter"),
    Endpoint(host="*.openrouter.ai", provider="openrouter"),
    Endpoint(),
)


class EndpointTable:
    """The rows in force: `candidate` is the cheap first look at any request, `match` the decision."""

    def __init__(self, rows: Iterable[Endpoint] = (), exclude: Iterable[str] = ()) -> None:
        table = (*rows, *KNOWN)
        self._rows = tuple((_host_matcher(row.host), _path_matcher(row.path), row) for row in table)
        self._excluded = tuple((_host_matcher(pattern), _path_matcher(pattern)) for pattern in exclude)
        # A user's path pattern, too, ends where the query begins; what is no pattern at its end is enough to look for.
        self._candidate = re.compile("|".join({_tail(row.path) for row in table}).encode()).search
        self._matched = lru_cache(maxsize=256)(self._match)

    def candidate(self, target: bytes) -> bool:
        """Whether a request for ``target``, the path and query as sent, may be one of ours."""
        return self._candidate(target) is not None

    def match(self, host: str, port: int, target: str) -> Endpoint | None:
        """The row for a request for ``target``, or `None` if it is none of ours."""
        return self._matched(host, port, target.partition("?")[0].rstrip("/"))

    def _match(self, host: str, port: int, path: str) -> Endpoint | None:
        names = (host, f"{host}:{port}")
        if _PRESET.search(path) or any(paths(path) or any(map(hosts, names)) for hosts, paths in self._excluded):
            return None
        return next((row for hosts, paths, row in self._rows if paths(path) and any(map(hosts, names))), None)


def _host_matcher(pattern: str) -> Callable[[str], object]:
    return re.compile(fnmatch.translate(pattern.lower())).match


def _path_matcher(pattern: str) -> Callable[[str], object]:
    return re.compile(fnmatch.translate(pattern.rstrip("/"))).match


def _tail(pattern: str) -> str:
    """What every path that fits ``pattern`` contains: its last part that holds no wildcard, as a regular expression."""
    return re.escape(re.split(r"[*?\]]", pattern.rstrip("/"))[-1])
