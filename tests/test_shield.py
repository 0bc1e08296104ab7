"""The one place where our exceptions end."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections.abc import Callable, Iterator

import pytest

from msgtap import shield

NUMBERS = itertools.count()
KEY = "sk-ant-api03-planted-Xq7"
FAILURES = [
    ValueError(KEY),
    KeyError(KEY),
    RecursionError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, KEY),
    ExceptionGroup(KEY, [OSError(KEY)]),
]
PASSING = [
    KeyboardInterrupt(),
    SystemExit(3),
    GeneratorExit(),
    asyncio.CancelledError(),
    BaseExceptionGroup("", [SystemExit()]),
]


class Collected(logging.Handler):
    """A handler of the program that keeps the text of what it gets."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Format the record as handlers do, traceback and all."""
        self.texts.append(self.format(record))


@pytest.fixture
def collected() -> Iterator[Collected]:
    """What the logger ``msgtap`` says at any level while the test runs."""
    handler, level = Collected(), shield.LOGGER.level
    shield.LOGGER.addHandler(handler)
    shield.LOGGER.setLevel(logging.DEBUG)
    yield handler
    shield.LOGGER.removeHandler(handler)
    shield.LOGGER.setLevel(level)


def fresh(name: str) -> str:
    """A name under which nothing has failed yet: what has been said once is not said again."""
    return f"{name}_{next(NUMBERS)}"


def failing(error: BaseException) -> Callable[..., int]:
    """A function that raises ``error``, under a name of its own."""

    def fail(*_: object) -> int:
        raise error

    fail.__qualname__ = fresh("fail")
    return fail


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_an_exception_ends_here(error: Exception) -> None:
    """Whatever `Exception` our code raises, the program sees none, gets a default, and it is counted."""
    before = shield.counts().get("internal_error", 0)
    assert shield.attempt(failing(error), 1, "two") is None
    assert 7 == shield.attempt(failing(error), default=7)
    assert shield.shielded(failing(error))(1) is None
    assert before + 3 == shield.counts()["internal_error"]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_is_no_exception_passes(error: BaseException) -> None:
    """Cancellation, interruption and exit belong to the program."""
    before = dict(shield.counts())
    for function in (shield.shielded(failing(error)), functools.partial(shield.attempt, failing(error))):
        with pytest.raises(type(error)) as caught:
            function()
        assert error is caught.value
    assert before == shield.counts()


def test_success_passes() -> None:
    """A function that succeeds is called with what it was given, and its result is the result, `None` too."""

    def same(first: int, *, second: int) -> tuple[int, int]:
        """Both."""
        return first, second

    guarded, empty = shield.shielded(same), dict[str, int]()
    assert (2, 3) == guarded(2, second=3)
    assert (same.__qualname__, "Both.") == (guarded.__qualname__, guarded.__doc__)
    assert "a-b" == shield.attempt("-".join, ["a", "b"])
    assert shield.attempt(empty.get, "absent", default=7) is None


def test_a_failure_is_logged_once(collected: Collected) -> None:
    """The first failure of a place is logged with where it was; the next of the same kind is only counted."""
    first, other = failing(ValueError()), failing(KeyError())
    other.__qualname__ = first.__qualname__
    for function in (first, first, other, first):
        shield.attempt(function)
    assert 2 == len(collected.texts)
    message, *frames = collected.texts[0].split("\n")
    assert f"msgtap failed in {first.__qualname__}: ValueError and let the call pass (said once)" == message
    assert [", in attempt", ", in fail"] == ["," + frame.rpartition(",")[2] for frame in frames]
    assert all(frame.startswith('  File "') for frame in frames)
    assert __file__ in frames[1]


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_no_text_of_an_exception_is_logged(error: Exception, collected: Collected) -> None:
    """Neither its text, nor what it was raised from or during, nor a line of source, is in what is logged."""

    def wrapped() -> None:
        try:
            failing(ConnectionError(KEY))()
        except ConnectionError:
            try:
                failing(error)()
            except type(error) as cause:
                raise RuntimeError("sk-ant-api03-planted-Xq7") from cause

    wrapped.__qualname__ = fresh("wrapped")
    shield.shielded(failing(error))()
    try:
        failing(PermissionError(KEY))()  # the program is handling an exception of its own meanwhile
    except PermissionError:
        shield.shielded(wrapped)()
    assert 2 == len(collected.texts)
    assert KEY not in "".join(collected.texts)


def test_a_logger_that_fails_is_nobodys_business() -> None:
    """A handler of the program that raises changes nothing."""

    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise OSError("disk full")

    handler, before = Broken(), shield.counts().get("internal_error", 0)
    shield.LOGGER.addHandler(handler)
    try:
        assert shield.attempt(failing(ValueError())) is None
    finally:
        shield.LOGGER.removeHandler(handler)
    assert before + 1 == shield.counts()["internal_error"]


def test_what_has_no_name_can_fail_too(collected: Collected) -> None:
    """A callable without a name is called by its type's."""

    class Nameless:
        def __call__(self) -> int:
            raise ValueError

    assert shield.attempt(Nameless()) is None
    assert "Nameless" in collected.texts[0]


def test_nothing_is_printed_into_a_program_without_logging(capfd: pytest.CaptureFixture[str]) -> None:
    """A program that has configured no logging sees nothing on its standard error."""
    handlers, propagate = list(shield.LOGGER.handlers), shield.LOGGER.propagate
    shield.LOGGER.propagate = False  # pytest's own handlers are above
    try:
        assert any(isinstance(handler, logging.NullHandler) for handler in handlers)
        shield.attempt(failing(ValueError()))
    finally:
        shield.LOGGER.propagate = propagate
    assert ("", "") == capfd.readouterr()


def test_counts_are_a_copy() -> None:
    """What has been counted is told as it stood; reading it changes nothing."""
    before = shield.counts()
    shield.count("test_reason")
    shield.count("test_reason")
    assert before.get("test_reason", 0) + 2 == shield.counts()["test_reason"]
