"""Processes that fork, or end, while a response is open."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from msgtap.testing import replies
from msgtap.testing.endpoint import Endpoint
from msgtap.testing.replies import HANG, Reply

# Head and events in one write: what reads them need not wait, and can be told not to wait for more.
EVENTS = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in replies.events()[:4])
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PREPARE = """
import asyncio, atexit, gc, importlib, os, sys, threading
import msgtap
url, name = sys.argv[1] + "/v1/messages", sys.argv[2]
module = importlib.import_module(name)
parent = os.getpid()

def tell(record):
    who = "parent" if os.getpid() == parent else "child"
    os.write(1, f"{who} {record.ending} {record.status} {record.error_type}\\n".encode())
    return record

asked = {"model": "m", "stream": True}

def opened(client):
    response = client.send(client.build_request("POST", url, json=asked), stream=True)
    response.request.extensions["timeout"]["read"] = 0.1
    chunks = response.iter_raw()
    next(chunks)
    return response, chunks

msgtap.instrument(processors=[tell])
"""


def _run(code: str, module: str) -> tuple[list[str], int]:
    """The records that a program of its own tells of, and its status; on standard error it must print nothing."""
    with Endpoint([Reply(before=(HEAD + EVENTS, HANG))]) as endpoint:
        done = subprocess.run(
            [sys.executable, "-c", PREPARE + textwrap.dedent(code), endpoint.url, module],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert "" == done.stderr
    return done.stdout.splitlines(), done.returncode


EXITS = {
    "at the end": ("client = module.Client(); response, chunks = opened(client)", ["parent exit 200 None"]),
    "at the end, closed": (
        "client = module.Client(); response, chunks = opened(client); response.close()",
        ["parent closed 200 None"],
    ),
    "at the end, dropped": (
        "client = module.Client(); response, chunks = opened(client); del response, chunks; gc.collect()",
        ["parent closed 200 None"],
    ),
    "in the block": (
        """
        with module.Client() as client, client.stream("POST", url, json=asked) as response:
            chunks = response.iter_raw()
            next(chunks)
            sys.exit(0)
        """,
        ["parent cancelled 200 None"],
    ),
    "in a thread": (
        """
        def work():
            client = module.Client()
            response, chunks = opened(client)
            ready.set()
            threading.Event().wait()
        ready = threading.Event()
        threading.Thread(target=work, daemon=True).start()
        ready.wait()
        """,
        ["parent exit 200 None"],
    ),
    # A generator that is held like this crashes Python 3.13.0 when httpx2 closes it, with msgtap or without.
    "in a module that stays": (
        """
        sys.modules["held"] = held = type(sys)("held")
        held.client = module.Client()
        held.response = held.client.send(held.client.build_request("POST", url, json=asked), stream=True)
        """,
        ["parent exit 200 None"],
    ),
    "after a call of a later exit handler": (
        """
        def late():
            response, chunks = opened(client)
            response.close()
        client = module.Client()
        atexit.register(late)  # before the first call, so that it runs after msgtap has closed what was open
        response, chunks = opened(client)
        """,
        ["parent exit 200 None", "parent closed 200 None"],
    ),
    # What is left open now cannot be told of; that nothing is printed is the point.
    "in a later exit handler": (
        """
        def late():
            sys.modules["held"] = held = type(sys)("held")
            held.response = client.send(client.build_request("POST", url, json=asked), stream=True)
        client = module.Client()
        atexit.register(late)
        response, chunks = opened(client)
        """,
        ["parent exit 200 None"],
    ),
    "after an event loop": (
        """
        async def main():
            global client, response, chunks
            client = module.AsyncClient()
            response = await client.send(client.build_request("POST", url, json=asked), stream=True)
            chunks = response.aiter_raw()
            await chunks.__anext__()
            loop = asyncio.get_running_loop()
            loop.shutdown_asyncgens = lambda: asyncio.sleep(0)  # as a loop that is simply left
        asyncio.run(main())
        """,
        ["parent exit 200 None"],
    ),
}


@pytest.mark.parametrize("module", ["httpx", "httpx2"])
@pytest.mark.parametrize("name", EXITS)
def test_exit_with_a_stream_open(module: str, name: str) -> None:
    """A call that is open when the process ends has its record, and nothing is printed."""
    code, expected = EXITS[name]
    assert (expected, 0) == _run(code, module)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("module", ["httpx", "httpx2"])
@pytest.mark.parametrize(
    "child", ["os._exit(0)", "sys.exit(0)", "response.close()", "del response, chunks", "list(chunks)"]
)
def test_fork_with_a_stream_open(module: str, child: str) -> None:
    """A child process tells nothing of the calls of its parent, whatever it does to them; the parent tells it once."""
    code = f"""
    client = module.Client()
    response, chunks = opened(client)
    dropped, rest = opened(client)
    del dropped, rest
    gc.collect()
    if os.fork() == 0:
        try:
            {child}
        except module.ReadTimeout:
            pass
        gc.collect()
        msgtap.flush()
        sys.exit(0)
    os.wait()
    msgtap.flush()
    response.close()
    """
    assert (["parent closed 200 None", "parent closed 200 None"], 0) == _run(code, module)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("module", ["httpx", "httpx2"])
def test_a_child_tells_of_its_own_calls(module: str) -> None:
    """What a child process calls itself is its own to tell."""
    code = """
    client = module.Client()
    response, chunks = opened(client)
    if os.fork() == 0:
        with module.Client() as own:
            mine, rest = opened(own)
            mine.close()
        sys.exit(0)
    os.wait()
    """
    assert (["child closed 200 None", "parent exit 200 None"], 0) == _run(code, module)
