"""Providers that keep in memory what they are given, and a watch over our own failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import msgtap
from msgtap import shield, tap
from msgtap.exporting import build
from msgtap.testing.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def memory() -> Memory:
    """What the providers of this test were given."""
    return Memory()


@pytest.fixture
def providers(memory: Memory) -> Iterator[dict[str, Any]]:
    """OpenTelemetry's three providers, as arguments of `msgtap.instrument`; afterwards nothing is observed any more."""
    pipelines = build([memory.exporter], "test", {})
    yield {
        "tracer_provider": pipelines.tracer_provider,
        "meter_provider": pipelines.meter_provider,
        "logger_provider": pipelines.logger_provider,
    }
    tap.drain()
    msgtap.uninstrument()
    for provider in (pipelines.tracer_provider, pipelines.meter_provider, pipelines.logger_provider):
        provider.shutdown()


@pytest.fixture(autouse=True)
def _nothing_failed() -> Iterator[None]:
    before = shield.counts().get("internal_error", 0)
    yield
    assert before == shield.counts().get("internal_error", 0)
