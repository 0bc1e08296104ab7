"""Content codings undone as the bytes arrive, in bounded pieces, beside the client that undoes them for the program."""

from __future__ import annotations

import functools
import importlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

PIECE = 64 * 1024
"""Most bytes that one step of inflating yields, so that a decompression bomb costs no memory."""

Decoder = Callable[[bytes], Iterator[bytes]]


class UndecodableError(Exception):
    """The body is not in the coding that its header names, or nothing here can undo that coding."""


def decoder(codings: str) -> Decoder | None:
    """A decoder for the value of ``content-encoding``; `None` where there is nothing to undo.

    Raises:
        UndecodableError: a coding is unknown, or its library is not installed (nor could the client undo it, then).
    """
    names = [name for part in codings.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    steps = [_step(name) for name in reversed(names)]
    return functools.reduce(_then, steps) if steps else None


def _step(name: str) -> Decoder:
    if name not in _CODINGS:
        message = f"unknown content coding {name[:32]!r}"
        raise UndecodableError(message)
    return _CODINGS[name]()


def _then(first: Decoder, second: Decoder) -> Decoder:
    def decode(data: bytes) -> Iterator[bytes]:
        for piece in first(data):
            yield from second(piece)

    return decode


class _Inflate:
    """gzip (of several members too), zlib and raw deflate, which some servers send under the name of zlib."""

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._inflater = zlib.decompressobj(wbits)
        self._started = False

    def __call__(self, data: bytes) -> Iterator[bytes]:
        while data:
            try:
                piece = self._inflater.decompress(data, PIECE)
            except zlib.error as error:
                if self._started or self._wbits != zlib.MAX_WBITS:
                    raise UndecodableError(str(error)) from error
                self._wbits = -zlib.MAX_WBITS
                self._inflater = zlib.decompressobj(self._wbits)
                continue
            self._started = True
            data = self._inflater.unconsumed_tail
            if self._inflater.eof:
                data = self._inflater.unused_data
                self._inflater = zlib.decompressobj(self._wbits)
            yield piece


def _brotli() -> Decoder:
    module = _first_module("brotli", "brotlicffi")
    inflater = module.Decompressor()
    bounded = hasattr(inflater, "can_accept_more_data")  # brotli 1.2

    def decode(data: bytes) -> Iterator[bytes]:
        try:
            if not bounded:
                yield getattr(inflater, "process", inflater.decompress)(data)
                return
            yield inflater.process(data, output_buffer_limit=PIECE)
            while not inflater.can_accept_more_data():
                yield inflater.process(b"", output_buffer_limit=PIECE)
        except module.error as error:
            raise UndecodableError(str(error)) from error

    return decode


def _zstd() -> Decoder:
    """By the standard library (3.14), its backport, or the ``zstandard`` package, which has no bound to set."""
    module = _first_module("compression.zstd", "backports.zstd", "zstandard")
    bounded = module.__name__ != "zstandard"
    new = module.ZstdDecompressor if bounded else lambda: module.ZstdDecompressor().decompressobj()
    frame = new()

    def decode(data: bytes) -> Iterator[bytes]:
        nonlocal frame
        try:
            while data:
                yield frame.decompress(data, PIECE) if bounded else frame.decompress(data)
                while bounded and not frame.needs_input and not frame.eof:
                    yield frame.decompress(b"", PIECE)
                data = frame.unused_data if frame.eof else b""
                frame = new() if frame.eof else frame
        except module.ZstdError as error:
            raise UndecodableError(str(error)) from error

    return decode


def _first_module(*names: str) -> Any:  # noqa: ANN401  # modules that may not be installed have no type here
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    message = f"none of {', '.join(names)} is installed"
    raise UndecodableError(message)


_CODINGS: dict[str, Callable[[], Decoder]] = {
    "gzip": functools.partial(_Inflate, zlib.MAX_WBITS | 16),
    "x-gzip": functools.partial(_Inflate, zlib.MAX_WBITS | 16),
    "deflate": functools.partial(_Inflate, zlib.MAX_WBITS),
    "br": _brotli,
    "zstd": _zstd,
}
