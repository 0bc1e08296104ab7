"""JSON to typed values, whatever arrives: one wrong type costs one field, never the rest.

Three roads. The typed one is fast and nearly always taken: what a type does not name is skipped at C speed. Where a
value has the wrong type, the fields are converted one by one. Where the text is no strict JSON (lone surrogates,
``NaN``, bytes that are no UTF-8), it is mended, or read by the standard library, first. No text that comes out holds
half of a surrogate pair: an exporter would refuse the whole batch for it.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from msgtap import shield

T = TypeVar("T", bound=Struct)
V = TypeVar("V")

# OTLP carries 64-bit integers; a larger one would make an exporter refuse the whole batch. Counts are added up, so they
# stay within JSON's safe integers; and an amount of money is neither less than nothing nor more than there is.
Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Number = Annotated[float, Meta(ge=-1.7e308, le=1.7e308)]
Cost = Annotated[float, Meta(ge=0, le=1e15)]

TEXT_LIMIT = 256
"""Longest text in characters of a model name, an id or an enumerated value."""
LENIENT_LIMIT = 1024 * 1024
"""Most bytes of a text that is read although it is no strict JSON: that takes a tenth of a second for each MiB."""
LIST_LIMIT = 32
"""Most entries of a list of names in a request."""

# A pair of surrogates, else a lone one, else any other escape: a backslash that is itself escaped begins none.
_ESCAPE = re.compile(
    r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(?P<lone>\\ud[89a-f][0-9a-f]{2})|\\.", re.IGNORECASE | re.DOTALL
)
_DIGITS = 1000
UNREADABLE = (ValueError, msgspec.MsgspecError, RecursionError)
"""What reading or writing JSON raises; msgspec's own errors are ValueErrors only since 0.21."""
_WORDS = re.compile(r"[a-z]{1,24}(?:_(?:[a-z]{1,24}|[0-9]{1,3})){0,7}")


def decoder(shape: type[T]) -> Callable[[bytes], T | None]:
    """A function from JSON text to ``shape``, or to `None` where the text is no JSON object.

    Every field of ``shape`` needs a default: that is what a missing, null or wrongly typed value becomes.
    """
    typed = msgspec.json.Decoder(shape)

    def decode(data: bytes) -> T | None:
        try:
            return typed.decode(data)
        except UNREADABLE:
            return _salvage(_read_leniently(data), shape)

    return decode


def _read_leniently(data: bytes) -> object:
    slow = (_decode_mended, _decode_loosely) if len(data) <= LENIENT_LIMIT else ()
    for attempt in (msgspec.json.decode, *slow):
        try:
            return attempt(data)
        except UNREADABLE:
            continue
    shield.count("undecodable_json")
    return None


def _decode_mended(data: bytes) -> object:
    return msgspec.json.decode(_mended(data))


def _decode_loosely(data: bytes) -> object:
    return json.loads(_mended(data), parse_int=_integer)


def _mended(data: bytes) -> str:
    """``data`` as text, without a byte order mark and with U+FFFD for what is no character."""
    written = data.decode(json.detect_encoding(data), "replace")
    return _ESCAPE.sub(lambda escape: r"\ufffd" if escape["lone"] else escape[0], written)


def _integer(digits: str) -> int | float:
    """A number that Python would refuse to read for its length becomes infinite, which no field takes."""
    return int(digits) if len(digits) <= _DIGITS else float(digits)


def _salvage(value: object, shape: type[T]) -> T | None:
    """``value`` as ``shape``, leaving out each field that does not convert."""
    if not isinstance(value, dict):
        return None
    fields = msgspec.structs.fields(shape)
    found = {field.name: value[field.encode_name] for field in fields if field.encode_name in value}
    shapes = {field.name: field.type for field in fields}
    kept = {name: _convert(part, shapes[name]) for name, part in found.items()}
    return shape(**{name: part for name, part in kept.items() if part is not None})


def _convert(value: object, shape: Any) -> Any:  # noqa: ANN401  # a type is a value here
    try:
        return msgspec.convert(value, shape)
    except UNREADABLE:
        pass
    for option in get_args(shape) if isinstance(shape, types.UnionType) else (shape,):
        if isinstance(option, type) and issubclass(option, Struct) and isinstance(value, dict):
            return _salvage(value, option)
        if get_origin(option) is list and isinstance(value, list):
            (inner,) = get_args(option)
            return [part for part in (_convert(entry, inner) for entry in value) if part is not None]
    shield.count("wrong_type")
    return None


def sound(value: str) -> str:
    """``value`` without half a surrogate pair, which clients and ``os.environ`` put for a byte that is no UTF-8."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def text(value: str | None) -> str | None:
    """``value`` without its excess over `TEXT_LIMIT`; `None` for an empty one."""
    if not value:
        return None
    if len(value) <= TEXT_LIMIT:
        return value
    shield.count("cut_text")
    return value[: TEXT_LIMIT - 1] + "…"


def texts(values: list[str] | None) -> tuple[str, ...]:
    """The first `LIST_LIMIT` of ``values``, each bounded; empty ones left out."""
    return tuple(bounded for value in first(values or [], LIST_LIMIT) if (bounded := text(value)))


def first(values: list[V], limit: int) -> list[V]:
    """``values`` without its excess over ``limit``."""
    if len(values) > limit:
        shield.count("cut_list")
    return values[:limit]


def identifier(value: str | None) -> str | None:
    """``value`` if it looks like words of a machine's (``rate_limit_error``, ``error_529``), as no credential does."""
    if value is None or _WORDS.fullmatch(value):
        return value
    shield.count("odd_identifier")
    return None


def identifier_list(value: str | None) -> tuple[str, ...]:
    """The names in a comma-separated header."""
    return texts([name for part in value.split(",") if (name := part.strip())]) if value else ()
