"""Content codings undone as the bytes arrive, in bounded pieces, beside the client that undoes them for the program."""

from __future__ import annotations

import functools
import importlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

PIECE = 64 * 1024
"""About the most bytes that one step of inflating yields, so that a decompression bomb costs no memory."""

Decoder = Callable[[bytes], Iterator[bytes]]

_STACK = 4  # codings upon each other; a longer list is an attack or a mistake
_SLICE = 256


class UndecodableError(Exception):
    """The body is not in the coding that its header names, or nothing here can undo that coding."""


def decoder(codings: str) -> Decoder | None:
    """A decoder for the value of ``content-encoding``; `None` where there is nothing to undo.

    Raises:
        UndecodableError: a coding is unknown, or its library is not installed (nor could the client undo it, then); or
            there are too many of them.
    """
    names = [name for part in codings.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    if len(names) > _STACK:
        raise UndecodableError("too many content codings")
    steps = [_step(name) for name in reversed(names)]
    return functools.reduce(_then, steps) if steps else None


def _step(name: str) -> Decoder:
    if name not in _CODINGS:
        raise UndecodableError("unknown content coding")
    return _CODINGS[name]()


def _then(first: Decoder, second: Decoder) -> Decoder:
    def decode(data: bytes) -> Iterator[bytes]:
        for piece in first(data):
            yield from second(piece)

    return decode


class _Inflate:
    """gzip (of several members too), zlib and raw deflate."""

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._inflater = zlib.decompressobj(wbits)

    def __call__(self, data: bytes) -> Iterator[bytes]:
        full = False
        while data or full:
            try:
                piece = self._inflater.decompress(data, PIECE)
            except zlib.error as error:
                raise UndecodableError("corrupt body") from error
            full = len(piece) == PIECE  # more may wait inside, although all input has been taken
            data = self._inflater.unconsumed_tail
            if self._inflater.eof:
                data = self._inflater.unused_data
                self._inflater = zlib.decompressobj(self._wbits)
            yield piece


def _deflate() -> Decoder:
    """The zlib format, or raw deflate, which some servers send under its name: the first two bytes tell."""
    head = b""
    inflate: Decoder | None = None

    def decode(data: bytes) -> Iterator[bytes]:
        nonlocal head, inflate
        if inflate is None:
            head = data = head + data
            if len(head) < 2:  # noqa: PLR2004
                return iter(())
            zlibs = head[0] & 0x0F == zlib.DEFLATED and int.from_bytes(head[:2]) % 31 == 0
            inflate = _Inflate(zlib.MAX_WBITS if zlibs else -zlib.MAX_WBITS)
        return inflate(data)

    return decode


def _brotli() -> Decoder:
    """By brotli or brotlicffi; before their 1.2 they know no bound, and the client that uses them has none either."""
    module = _first_module("brotli", "brotlicffi")
    inflater = module.Decompressor()
    bounded = hasattr(inflater, "can_accept_more_data")

    def decode(data: bytes) -> Iterator[bytes]:
        try:
            if not bounded:
                yield inflater.process(data)
                return
            yield (piece := inflater.process(data, output_buffer_limit=PIECE))
            while piece or not inflater.can_accept_more_data():  # more may wait inside, although all has been taken
                yield (piece := inflater.process(b"", output_buffer_limit=PIECE))
        except module.error as error:
            raise UndecodableError("corrupt body") from error

    return decode


def _zstd() -> Decoder:
    """By the standard library (3.14), its backport, or the ``zstandard`` package."""
    module = _first_module("compression.zstd", "backports.zstd", "zstandard")
    if module.__name__ == "zstandard":
        return _zstandard(module)
    frame = module.ZstdDecompressor()

    def decode(data: bytes) -> Iterator[bytes]:
        nonlocal frame
        try:
            while data:
                yield frame.decompress(data, PIECE)
                while not frame.needs_input and not frame.eof:
                    yield frame.decompress(b"", PIECE)
                data = frame.unused_data if frame.eof else b""
                frame = module.ZstdDecompressor() if frame.eof else frame
        except module.ZstdError as error:
            raise UndecodableError("corrupt body") from error

    return decode


def _zstandard(module: Any) -> Decoder:  # noqa: ANN401  # it may not be installed, so it has no type here
    """Its decompressor has no bound to set; but four bytes are the least that make a block, of 128 KiB at most."""
    frame = module.ZstdDecompressor().decompressobj()

    def decode(data: bytes) -> Iterator[bytes]:
        nonlocal frame
        try:
            for start in range(0, len(data), _SLICE):
                rest = data[start : start + _SLICE]
                while rest:
                    yield frame.decompress(rest)
                    rest = frame.unused_data if frame.eof else b""
                    frame = module.ZstdDecompressor().decompressobj() if frame.eof else frame
        except module.ZstdError as error:
            raise UndecodableError("corrupt body") from error

    return decode


def _first_module(*names: str) -> Any:  # noqa: ANN401  # modules that may not be installed have no type here
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise UndecodableError("no library for this coding is installed")


_CODINGS: dict[str, Callable[[], Decoder]] = {
    "gzip": functools.partial(_Inflate, zlib.MAX_WBITS | 16),
    "x-gzip": functools.partial(_Inflate, zlib.MAX_WBITS | 16),
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
