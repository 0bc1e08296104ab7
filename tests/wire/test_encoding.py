"""Content codings, undone as the bytes arrive."""

from __future__ import annotations

import contextlib
import gzip
import os
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from msgtap.wire.encoding import PIECE, UndecodableError, decoder

MIB = 1024 * 1024
TEXT = b"".join(b"event: ping\ndata: %d\n\n" % number for number in range(7000))


def raw_deflate(data: bytes) -> bytes:
    """Deflate without the zlib format around it."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


def undone(codings: str, chunks: Iterable[bytes]) -> bytes:
    """What the chunks of a body in these codings say."""
    decode = decoder(codings)
    assert decode is not None
    return b"".join(piece for chunk in chunks for piece in decode(chunk))


def single(data: bytes) -> Iterator[bytes]:
    """The bytes one by one."""
    return (byte.to_bytes() for byte in data)


@pytest.fixture(params=["compression.zstd", "zstandard"])
def zstd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The library that undoes zstd: that of the standard library or its backport, or the ``zstandard`` package."""
    if request.param == "zstandard":
        monkeypatch.setitem(sys.modules, "compression.zstd", None)
        monkeypatch.setitem(sys.modules, "backports.zstd", None)
    else:
        monkeypatch.setitem(sys.modules, "zstandard", None)
    return str(request.param)


@pytest.fixture(params=["brotli", "an older brotli", "brotlicffi"])
def br(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The library that undoes br; the last two by the names that those have, by the code of the first."""
    if request.param != "brotli":
        monkeypatch.setitem(sys.modules, "brotli", None)
        monkeypatch.setitem(sys.modules, "brotlicffi", brotli_as(bounded=request.param == "brotlicffi"))
    return str(request.param)


def brotli_as(*, bounded: bool) -> ModuleType:
    """A module as brotlicffi 1.2 is (``bounded``), or as brotli 1.1 is, which has ``process`` only."""

    class Old:
        def __init__(self) -> None:
            self._inflater = brotli.Decompressor()

        def process(self, data: bytes) -> bytes:
            return bytes(self._inflater.process(data))

    module: Any = ModuleType("brotlicffi")
    module.error = brotli.error
    module.Decompressor = brotli.Decompressor if bounded else Old
    return module  # type: ignore[no-any-return]


@pytest.mark.parametrize("codings", ["", " ", "identity", "Identity, identity", ",,"])
def test_nothing_to_undo(codings: str) -> None:
    """A body without coding needs no decoder."""
    assert decoder(codings) is None


@pytest.mark.parametrize("coding", COMPRESS)
@pytest.mark.parametrize("data", [b"", b"x", TEXT], ids=["empty", "a byte", "170 KB"])
def test_each_coding_whole_and_byte_by_byte(coding: str, data: bytes) -> None:
    """Each coding is undone, whole and byte by byte, whatever the case of its name."""
    compressed = COMPRESS[coding](data)
    assert data == undone(coding, [compressed])
    assert data == undone(f" {coding.upper()} ", single(compressed))


@pytest.mark.usefixtures("zstd")
def test_each_library_for_zstd() -> None:
    """The coding zstd is undone by each library for it, in several frames, whole and byte by byte."""
    frames = zstandard.compress(TEXT) + zstandard.compress(b"") + zstandard.compress(b"end")
    assert TEXT + b"end" == undone("zstd", [frames])
    assert TEXT + b"end" == undone("zstd", single(frames))
    with pytest.raises(UndecodableError):
        undone("zstd", [b"no zstd at all"])


@pytest.mark.usefixtures("br")
def test_each_library_for_br() -> None:
    """The coding br is undone by each library for it, whole and byte by byte."""
    compressed = brotli.compress(TEXT)
    assert TEXT == undone("br", [compressed])
    assert TEXT == undone("br", single(compressed))
    with pytest.raises(UndecodableError):
        undone("br", [b"\xff" * 64])


@pytest.mark.parametrize("coding", ["br", "zstd"])
def test_no_library_at_all(coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no library is installed the client could not undo the coding either: it is undecodable."""
    for name in ("brotli", "brotlicffi", "compression.zstd", "backports.zstd", "zstandard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UndecodableError):
        decoder(coding)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("size", [1, 7, MIB])
def test_several_members_in_one_body(coding: str, size: int) -> None:
    """Members of gzip and frames of zstd follow each other, also within one chunk."""
    parts = [TEXT, b"", b"end", TEXT]
    body = b"".join(map(COMPRESS[coding], parts))
    assert b"".join(parts) == undone(coding, (body[n : n + size] for n in range(0, len(body), size)))


@pytest.mark.parametrize("data", [b"x", b"some text", TEXT, os.urandom(1000)])
@pytest.mark.parametrize("compress", [zlib.compress, raw_deflate], ids=["zlib", "raw"])
def test_deflate_is_zlib_or_raw(data: bytes, compress: Callable[[bytes], bytes]) -> None:
    """``deflate`` is the zlib format, or raw deflate as some servers send it, whole and byte by byte."""
    assert data == undone("deflate", [compress(data)])
    assert data == undone("deflate", single(compress(data)))


def test_no_byte_is_left_inside() -> None:
    """Output that waits inside the inflater when all input has been taken comes out, whatever the size of the body."""
    for size in range(PIECE - 300, PIECE + 600):
        data = b"\0" * size
        assert data == undone("deflate", [raw_deflate(data)])


@pytest.mark.parametrize("codings", ["gzip, br", "br,gzip", "zstd, deflate ,identity, gzip", "gzip, gzip, gzip, gzip"])
def test_codings_upon_each_other(codings: str) -> None:
    """Several codings are undone from the last to the first."""
    body = TEXT
    for name in (name.strip() for name in codings.split(",")):
        body = COMPRESS[name](body) if name in COMPRESS else body
    assert TEXT == undone(codings, [body])
    assert TEXT == undone(codings, single(body))


@pytest.mark.parametrize("codings", ["compress", "gzip, snappy", "x", "gzip;q=1", "é", "gzip," * 5, "gzip," * 10_000])
def test_unknown_codings(codings: str) -> None:
    """An unknown coding, or a list of them without end, is undecodable at once."""
    with pytest.raises(UndecodableError):
        decoder(codings)


@pytest.mark.parametrize("coding", COMPRESS)
def test_truncated_body_gives_what_is_there(coding: str) -> None:
    """A body that ends too early is no fault of its coding: what was there comes out."""
    compressed = COMPRESS[coding](TEXT)
    said = undone(coding, [compressed[: len(compressed) // 2]])
    assert TEXT.startswith(said)


@pytest.mark.parametrize("coding", COMPRESS)
def test_corrupt_body(coding: str) -> None:
    """A body that is not in its coding is undecodable, and no part of it is in the error's text."""
    with pytest.raises(UndecodableError) as caught:
        undone(coding, [b"<html>secret" * 9])
    assert str(caught.value) == "corrupt body"


@pytest.mark.parametrize("coding", COMPRESS)
def test_body_that_turns_corrupt(coding: str) -> None:
    """A change in the middle of a body is undecodable, or says something else; what came before it comes out first."""
    compressed = bytearray(COMPRESS[coding](TEXT))
    middle = len(compressed) // 2
    compressed[middle : middle + 64] = bytes(byte ^ 0x5A for byte in compressed[middle : middle + 64])
    decode = decoder(coding)
    assert decode is not None
    said = bytearray()
    with contextlib.suppress(UndecodableError):
        for start in range(0, len(compressed), 1024):
            for piece in decode(bytes(compressed[start : start + 1024])):
                said += piece
    assert said != TEXT
    assert TEXT.startswith(said[:1024])


@settings(deadline=None)
@given(st.sampled_from([*COMPRESS, "gzip, br", "zstd, gzip"]), st.binary(max_size=64), st.integers(1, 64))
def test_any_bytes_are_decoded_or_undecodable(codings: str, body: bytes, size: int) -> None:
    """Whatever bytes come, nothing is raised but `UndecodableError`."""
    with contextlib.suppress(UndecodableError):
        undone(codings, (body[n : n + size] for n in range(0, len(body), size)))


@settings(deadline=None)
@given(st.sampled_from([*COMPRESS]), st.lists(st.integers(0, 4096), max_size=8))
def test_random_cuts(coding: str, positions: list[int]) -> None:
    """A body cut anywhere says the same."""
    body = COMPRESS[coding](TEXT[:4096])
    places = sorted(positions)
    chunks = [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]
    assert TEXT[:4096] == undone(coding, chunks)


def largest(codings: str, body: bytes) -> tuple[int, int]:
    """How many bytes a body says, and how many the largest piece of it has."""
    decode = decoder(codings)
    assert decode is not None
    sizes = [len(piece) for piece in decode(body)]
    return sum(sizes), max(sizes)


@pytest.mark.parametrize("codings", ["gzip", "deflate", "br", "gzip, gzip", "br, gzip"])
def test_bomb_comes_out_in_pieces(codings: str) -> None:
    """A body that says 16 MiB in a few KB, or bytes, comes out in pieces, and memory stays small."""
    body = bytes(16 * MIB)
    for name in codings.split(","):
        body = COMPRESS[name.strip()](body)
    tracemalloc.start()
    try:
        said, piece = largest(codings, body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 16 * MIB == said
    assert piece <= 2 * PIECE
    assert peak < 2 * MIB


def test_bomb_of_zstd(zstd: str) -> None:
    """The same for zstd; the ``zstandard`` package has no bound to set, so its pieces are larger, but bounded too."""
    said, piece = largest("zstd", zstandard.compress(bytes(256 * MIB)))
    assert 256 * MIB == said
    assert piece <= (8 * MIB + PIECE if zstd == "zstandard" else PIECE)
