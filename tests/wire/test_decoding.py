"""JSON to typed values, whatever arrives."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from msgtap import shield
from msgtap.wire import decoding
from msgtap.wire.decoding import LENIENT_LIMIT, LIST_LIMIT, TEXT_LIMIT, Count, Integer, Number


class Inner(Struct):
    """An object below the top."""

    name: str | None = None
    size: Count | None = None


class Shape(Struct):
    """One field of each kind that the wire's types have."""

    word: str | None = None
    number: Number | None = None
    whole: Integer | None = None
    count: Count | None = None
    flag: bool | None = None
    inner: Inner | None = None
    inners: list[Inner] | None = None
    words: list[str] | None = None
    either: str | Inner | None = None
    several: list[Inner] | str | None = None
    open: dict[str, Any] | None = None


read = decoding.decoder(Shape)

VALID = Shape(
    word="a",
    number=0.5,
    whole=-1,
    count=2,
    flag=True,
    inner=Inner(name="b", size=3),
    inners=[Inner(name="c")],
    words=["d"],
    either=Inner(name="e"),
    several=[Inner(size=4)],
    open={"f": [1]},
)


def written(**fields: object) -> bytes:
    """The valid object with some of its fields replaced."""
    return json.dumps({**msgspec.to_builtins(VALID), **fields}).encode()


def with_raw(field: str, raw: bytes) -> bytes:
    """The valid object with one field as these bytes, which may be no JSON."""
    return written(**{field: None}).replace(b'"%s": null' % field.encode(), b'"%s": %s' % (field.encode(), raw), 1)


def counted(reason: str, before: dict[str, int]) -> int:
    """How often ``reason`` has been counted since."""
    return shield.counts().get(reason, 0) - before.get(reason, 0)


def without(*names: str) -> Shape:
    """The valid object as it should be read, less these fields."""
    return msgspec.structs.replace(VALID, **dict.fromkeys(names))


def test_strict_json_takes_the_fast_road() -> None:
    """What is valid is read as it is, and nothing is counted."""
    before = dict(shield.counts())
    assert VALID == read(written())
    assert before == shield.counts()


@pytest.mark.parametrize("field", Shape.__struct_fields__)
def test_null_is_absent(field: str) -> None:
    """A field that is null is as if it were not there, and costs nothing."""
    before = dict(shield.counts())
    assert without(field) == read(written(**{field: None}))
    assert before == shield.counts()


WRONG: list[tuple[str, object]] = [
    ("word", 1),
    ("word", ["a"]),
    ("word", {"a": 1}),
    ("word", True),
    ("number", "0.5"),
    ("number", []),
    ("number", True),
    ("whole", "1"),
    ("whole", 1.5),
    ("whole", 2**63),
    ("whole", -(2**63) - 1),
    ("whole", 10**400),
    ("count", -1),
    ("count", 2**53),
    ("count", False),
    ("flag", 1),
    ("flag", "true"),
    ("inner", []),
    ("inner", "b"),
    ("inners", {}),
    ("inners", "c"),
    ("words", "d"),
    ("words", {"d": 1}),
    ("either", 1),
    ("either", []),
    ("several", 1),
    ("several", {}),
    ("open", []),
    ("open", "f"),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_wrong_type_costs_one_field(field: str, value: object) -> None:
    """A value of a wrong type, or out of range, is left out and counted; all other fields are read."""
    before = dict(shield.counts())
    assert without(field) == read(written(**{field: value}))
    assert counted("wrong_type", before) == 1


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("inner", {"name": 1, "size": 3}, Inner(size=3)),
        ("inners", [1, {"name": "c"}, None, "x"], [Inner(name="c")]),
        ("inners", [{"name": [], "size": 1}], [Inner(size=1)]),
        ("words", ["d", 1, None, "e"], ["d", "e"]),
        ("either", {"name": {}, "size": 9}, Inner(size=9)),
        ("several", [{"size": "x"}, {"size": 4}], [Inner(), Inner(size=4)]),
    ],
)
def test_wrong_type_inside_costs_what_it_is_in(field: str, value: object, expected: object) -> None:
    """Inside an object one wrong field is left out, inside a list one wrong entry."""
    assert msgspec.structs.replace(VALID, **{field: expected}) == read(written(**{field: value}))


@pytest.mark.parametrize("raw", [b"NaN", b"-Infinity", b"1e999", b"-1e999", b"1" * 5000])
def test_number_that_is_none_costs_one_field(raw: bytes) -> None:
    """``NaN``, an infinity and a number of thousands of digits are no numbers for us, wherever they stand."""
    for field in ("number", "whole", "count", "word", "inner"):
        assert without(field) == read(with_raw(field, raw))


def test_skipped_values_may_be_anything() -> None:
    """Fields that nobody asked for are not looked at, however odd."""
    odd = b'{"unknown": ["\\ud800", -1e999, {"a": {"b": []}}], "word": "a"}'
    assert Shape(word="a") == read(odd)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (rb'"\ud83d\ude00"', "😀"),
        (rb'"\uD83D\uDE00"', "😀"),
        (rb'"\ud83d"', "�"),
        (rb'"\ude00"', "�"),
        (rb'"\ud83d\ud83d\ude00"', "�😀"),
        (rb'"\ud83d\ude00\ude00"', "😀�"),
        (rb'"\\ud83d"', "\\ud83d"),
        (rb'"\\ud83d\ude00"', "\\ud83d�"),
        (rb'"\\\ud83d"', "\\�"),
        (rb'"\n\ud800\""', '\n�"'),
        (b'"a\xed\xa0\x80"', "a���"),
        (b'"a\xff"', "a�"),
        (b'"\xf0\x9f\x98"', "�"),
    ],
)
@pytest.mark.parametrize("also_loose", [False, True])
def test_half_a_character_becomes_a_replacement(raw: bytes, expected: str, also_loose: bool) -> None:
    """Lone surrogates and bytes that are no UTF-8 become U+FFFD, also where the text is no strict JSON besides."""
    number = b"NaN" if also_loose else b"1"
    assert Shape(word=expected, count=None if also_loose else 1, flag=True) == read(
        b'{"word": %s, "count": %s, "flag": true}' % (raw, number)
    )


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_are_read(coding: str) -> None:
    """A byte order mark is no part of the text, and UTF-16 is read."""
    assert Shape(word="é😀") == read('{"word": "é😀"}'.encode(coding))


def test_last_of_duplicate_keys_holds() -> None:
    """As with every JSON parser of the clients: the last of two equal keys counts."""
    assert Shape(word="b") == read(b'{"word": "a", "word": "b"}')
    assert Shape(word="b") == read(b'{"word": 1, "word": "b"}')
    assert Shape() == read(b'{"word": "b", "word": 1}')
    assert Shape(word="b") == read(b'{"word": "a", "word": "b", "number": NaN}')


@pytest.mark.parametrize(
    "data", [b"", b" ", b"[]", b'"text"', b"1", b"null", b"{", b'{"word": "a"', b"<html>", b"\x00", b"\xff\xfe", b"{}x"]
)
def test_what_is_no_object_is_nothing(data: bytes) -> None:
    """Anything but a JSON object gives None."""
    assert read(data) is None


def test_no_json_is_counted() -> None:
    """What is no JSON at all is counted; JSON that is no object is none of that."""
    before = dict(shield.counts())
    read(b"<html>")
    read(b"[]")
    assert counted("undecodable_json", before) == 1


def test_a_long_text_is_read_if_it_is_strict_json() -> None:
    """A wrong type costs one field however long the text is; to mend a long text would cost the program too much."""
    before = dict(shield.counts())
    padding = b'"ignored": "' + b"x" * LENIENT_LIMIT + b'"'
    assert Shape(word="a") == read(b'{"word": "a", "count": "2", %s}' % padding)
    assert counted("undecodable_json", before) == 0
    assert read(b'{"word": "a\\ud800", %s}' % padding) is None
    assert counted("undecodable_json", before) == 1


@pytest.mark.parametrize(("opening", "core", "closing"), [(b"[", b"", b"]"), (b'{"a":', b"1", b"}")])
@pytest.mark.parametrize("field", [b"open", b"ignored"])
def test_nesting_without_end_raises_nothing(opening: bytes, core: bytes, closing: bytes, field: bytes) -> None:
    """Nesting that no parser of the program could read either is given up, and counted."""
    before = dict(shield.counts())
    nested = opening * 100_000 + core + closing * 100_000
    assert read(b'{"word": "a", "%s": %s}' % (field, nested)) is None
    assert counted("undecodable_json", before) == 1


@pytest.mark.parametrize("length", [0, 1, TEXT_LIMIT, TEXT_LIMIT + 1, 1_000_000])
def test_text_is_bounded(length: int) -> None:
    """A text of the limit is kept, a longer one is cut to it and counted, an empty one is none."""
    before = dict(shield.counts())
    kept = decoding.text("😀" * length)
    expected = {0: None, 1: "😀", TEXT_LIMIT: "😀" * TEXT_LIMIT}.get(length, "😀" * (TEXT_LIMIT - 1) + "…")
    assert expected == kept
    assert counted("cut_text", before) == (length > TEXT_LIMIT)


def test_lists_are_bounded() -> None:
    """A list longer than the limit is cut and counted; empty texts are left out."""
    before = dict(shield.counts())
    assert ("a",) * LIST_LIMIT == decoding.texts(["a"] * (LIST_LIMIT + 1))
    assert counted("cut_list", before) == 1
    assert ("a", "b") == decoding.texts(["a", "", "b"])
    assert () == decoding.texts(None)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("rate_limit_error", True),
        ("overloaded", True),
        ("error_529", True),
        ("a" * 24, True),
        ("a" * 25, False),
        ("_".join(["a" * 24] * 8), True),
        ("_".join(["a"] * 9), False),
        ("error_1234", False),
        ("0123456789abcdef0123456789abcdef", False),
        ("deadbeef12", False),
        ("sk_live_abc123", False),
        ("a__b", False),
        ("error_", False),
        ("", False),
        ("Rate limit", False),
        ("sk-ant-api03-abc", False),
        ("sk-or-v1-0123456789abcdef", False),
        ("Bearer abc", False),
        ("rate_limit_error\n", False),
        ("ünlimited", False),
        ("_private", False),
    ],
)
def test_identifier_is_a_machine_word(value: str, kept: bool) -> None:
    """Only what looks like a name that a machine chose is kept; the rest is counted, and no text of it stays."""
    before = dict(shield.counts())
    assert (value if kept else None) == decoding.identifier(value)
    assert counted("odd_identifier", before) == (not kept)
    assert decoding.identifier(None) is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, ()),
        ("", ()),
        (" , ,", ()),
        ("a", ("a",)),
        ("a, b,c", ("a", "b", "c")),
        (",".join("abc" for _ in range(LIST_LIMIT + 9)), ("abc",) * LIST_LIMIT),
    ],
)
def test_comma_separated_header(header: str | None, expected: tuple[str, ...]) -> None:
    """The names of a header's list, without blanks, and not without end."""
    assert expected == decoding.identifier_list(header)


# What a JSON text may hold, with the numbers and characters that only lenient parsers take.
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**52, max_value=2**70)
    | st.floats()
    | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
# Keys that two shapes of the wire share with one that no shape knows.
FIELDS = st.sampled_from((*Shape.__struct_fields__, *Inner.__struct_fields__, "unknown"))


def sound(value: object) -> bool:
    """Whether a value is one that every exporter can write."""
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, int | float):
        return math.isfinite(value) and (isinstance(value, float) or -(2**63) <= value < 2**63)
    if isinstance(value, Struct):
        return all(sound(getattr(value, name)) for name in value.__struct_fields__ if name != "open")
    return value is None or (isinstance(value, list) and all(map(sound, value)))


@settings(deadline=None)
@given(st.dictionaries(FIELDS, JSON, max_size=6))
def test_any_json_gives_sound_values(value: dict[str, object]) -> None:
    """Whatever JSON says, what is read is of the right types, and every number and text can be exported."""
    shape = read(json.dumps(value).encode())
    assert isinstance(shape, Shape)
    assert sound(shape)


@settings(deadline=None)
@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()), st.integers(0, 40), st.binary(max_size=3))
def test_any_bytes_raise_nothing(data: bytes, position: int, junk: bytes) -> None:
    """Whatever bytes come, reading them raises nothing."""
    shape = read(data[:position] + junk + data[position:])
    assert shape is None or sound(shape)


@settings(deadline=None)
@given(st.dictionaries(FIELDS, JSON, max_size=6), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_encoding_of_the_text_changes_nothing(value: dict[str, object], coding: str) -> None:
    """ASCII escapes, raw characters, a byte order mark and UTF-16 are four spellings of the same facts."""
    plain = read(json.dumps(value).encode())
    raw = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert plain == read(raw.encode(coding)) or "\\ud" in json.dumps(value)


def test_doubles_survive() -> None:
    """The largest double that JSON writers give is kept, and so is the smallest."""
    for number in (1.7e308, -1.7e308, 5e-324, struct.unpack("<d", b"\x01" * 8)[0]):
        assert Shape(number=number) == read(json.dumps({"number": number}).encode())
