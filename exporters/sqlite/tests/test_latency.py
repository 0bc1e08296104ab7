"""Latencies in buckets."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgtap_sqlite import latency


@given(st.integers(2, 10**12))
def test_error(microseconds: int) -> None:
    """What a bucket stands for is within 2.2 % of what was put into it."""
    assert 0.0219 > abs(latency.seconds(latency.bucket(microseconds)) / (microseconds / 1e6) - 1)


@pytest.mark.parametrize("microseconds", [-5, 0, 1])
def test_nothing_is_shorter_than_a_microsecond(microseconds: int) -> None:
    """A clock that went backwards counts as the shortest time there is."""
    assert latency.bucket(microseconds) == 0


@given(st.lists(st.integers(0, 10**9)), st.lists(st.integers(0, 10**9)))
def test_merged(one: list[int], other: list[int]) -> None:
    """Histograms added up are the histogram of all their values."""
    parts = [latency.written(Counter(map(latency.bucket, values))) for values in (one, other)]
    assert Counter(map(latency.bucket, one + other)) == latency.read(latency.merged(*parts))


@pytest.mark.parametrize("number", [1, 2, 3, 100, 10_000])
def test_quantiles(number: int) -> None:
    """A quantile is within 2.2 % of the exact one, by nearest rank."""
    rolled = random.Random(number)
    values = sorted(rolled.lognormvariate(1, 1) for _ in range(number))
    histogram = Counter(latency.bucket(round(value * 1e6)) for value in values)
    for part, found in zip((0.5, 0.95, 0.99), latency.quantiles(histogram, (0.5, 0.95, 0.99)), strict=True):
        exact = values[math.ceil(part * number) - 1]
        assert pytest.approx(exact, rel=0.022) == found


def test_quantiles_of_nothing() -> None:
    """Where there are no values, there is no quantile."""
    assert (None, None) == latency.quantiles({}, (0.5, 0.95))
