"""Latencies as counts in buckets that can be added up: 16 buckets for each power of two, of microseconds.

A value is told as the geometric middle of its bucket, so it is off by at most a factor of ``2 ** (1/32)``: 2.2 %.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

Histogram = Mapping[int, int]
"""How many values fell into which bucket."""

PER_OCTAVE = 16

_decode = msgspec.json.Decoder(dict[int, int]).decode


def bucket(microseconds: int) -> int:
    """Where a duration belongs; what is shorter than a microsecond counts as one."""
    return int(math.log2(microseconds) * PER_OCTAVE) if microseconds > 1 else 0


def seconds(index: int) -> float:
    """What a bucket stands for."""
    return 2 ** ((index + 0.5) / PER_OCTAVE) / 1e6


def written(histogram: Histogram) -> str:
    """As JSON, ``{"320": 2}``: the form in which the store keeps it."""
    return msgspec.json.encode(histogram).decode()


def read(text: str) -> dict[int, int]:
    """What `written` wrote."""
    return _decode(text)


def merged(one: str, other: str) -> str:
    """Both of them added up, all three as written; SQL knows this function as ``merged``."""
    return written(added((one, other)))


def added(texts: Iterable[str]) -> Counter[int]:
    """Written histograms added up."""
    total: Counter[int] = Counter()
    for text in texts:
        for index, number in _decode(text).items():
            total[index] += number
    return total


def quantiles(histogram: Histogram, wanted: Sequence[float]) -> tuple[float | None, ...]:
    """The smallest value that at least such a part of all values does not exceed, in seconds, for each part wanted."""
    total = sum(histogram.values())
    if not total:
        return (None,) * len(wanted)
    ranks = [max(1, math.ceil(part * total)) for part in wanted]
    return tuple(seconds(_at(histogram, rank)) for rank in ranks)


def _at(histogram: Histogram, rank: int) -> int:
    seen = 0
    for index in sorted(histogram):
        seen += histogram[index]
        if seen >= rank:
            return index
    raise AssertionError("a rank is at most the number of values")
