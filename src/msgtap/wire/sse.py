"""Server-sent events, however they are cut.

https://html.spec.whatwg.org/multipage/server-sent-events.html

Lines end in LF, CRLF or CR; an event ends at a blank line. Most events of a Messages stream carry nothing of interest,
so an event is handed on as a block of bytes, and read only where somebody asks.
"""

from __future__ import annotations

from msgtap import shield

EVENT_LIMIT = 1024 * 1024
"""Most bytes kept of an event whose end has not come yet; of a longer one only the `HEAD` is."""
HEAD = 1024

_BOM = b"\xef\xbb\xbf"
_RETURN = ord("\r")  # looked for as a number: for one byte as bytes, CPython raises and clears an exception first


class EventDecoder:
    """Bytes in, complete events out, each as its lines joined by LF."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._after_return = False

    def feed(self, data: bytes) -> list[bytes]:
        """The events that ``data`` completes."""
        if not data:  # and a CR that came before it is still the last byte
            return []
        if self._after_return or _RETURN in data:
            data = self._with_line_feeds(data)
        pending = self._pending
        if not pending and data.endswith(b"\n\n"):
            # Servers write whole events, and nearly always one in a chunk: then there is nothing to take apart.
            whole = data.find(b"\n\n", 0, -1) < 0 and not data.startswith(b"\n")
            return [data[:-2]] if whole else _blocks(data)
        searched = max(0, len(pending) - 1)
        pending += data
        end = pending.rfind(b"\n\n", searched)
        if end < 0:
            self._bound()
            return []
        complete = bytes(pending[:end])
        del pending[: end + 2]
        return _blocks(complete)

    def finish(self) -> list[bytes]:
        """The last event, where the body ended without its blank line."""
        rest = bytes(self._pending)
        self._pending.clear()
        return _blocks(rest)

    def _with_line_feeds(self, data: bytes) -> bytes:
        """CRLF and CR as LF. A CR ends its line at once; should an LF follow it in the next chunk, that one is void."""
        if self._after_return:
            data = data.removeprefix(b"\n")
        self._after_return = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _bound(self) -> None:
        if len(self._pending) > EVENT_LIMIT:
            shield.count("overlong_event")
            del self._pending[HEAD:-1]  # the last byte may be the first half of the blank line


def _blocks(data: bytes) -> list[bytes]:
    return [block for part in data.split(b"\n\n") if (block := part.strip(b"\n"))]


def read_event(block: bytes) -> tuple[str, bytes]:
    """The name of an event (empty where it has none) and its data."""
    name, data = b"", []
    for line in block.removeprefix(_BOM).split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return name.decode("utf-8", "replace"), b"\n".join(data)
