"""Real programs under `msgtap run`: every call of theirs is in the store, however they run and however they end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from msgtap.testing.endpoint import Endpoint
from msgtap_sqlite.reader import open_reader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msgtap_sqlite.reader import Call

MSGTAP = [sys.executable, "-m", "msgtap.cli"]
RUN = [*MSGTAP, "run", "--"]
TIMEOUT = 60

# What the programs ask with; httpx, since the SDK alone takes a second to import.
ASK = """
import os
import httpx

def ask(session, stream=False):
    body = {
        "model": "claude-sonnet-5", "max_tokens": 64, "messages": [{"role": "user", "content": "Hello."}],
        "session_id": session, "user": "ana", "stream": stream,
    }
    httpx.post(os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", json=body).raise_for_status()
"""


@pytest.fixture(autouse=True)
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Endpoint]:
    """What the programs call, where they keep what is seen, and nothing else in their environment."""
    for name in list(os.environ):
        if name.startswith(("OTEL_", "MSGTAP_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MSGTAP_STORE", str(tmp_path / "calls.db"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "made up")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "asking.py").write_text(ASK)
    with Endpoint() as endpoint:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", endpoint.url)
        yield endpoint


def run(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command under `msgtap run` to its end."""
    return subprocess.run(
        [*RUN, *command], env={**os.environ, **environ}, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def python(code: str, *options: str) -> list[str]:
    """A command line that runs ``code``, which may ask."""
    return [sys.executable, *options, "-c", f"from asking import ask\n{code}"]


def stored() -> list[Call]:
    """The calls in the store."""
    with open_reader() as store:
        return store.last_calls(limit=1000)


def sessions() -> list[str]:
    """The sessions of the calls in the store, sorted: a program names its calls by them."""
    return sorted(call.session or "" for call in stored())


SCRIPT = """
import asyncio
import anthropic

async def later():
    async with anthropic.AsyncAnthropic() as client:
        body = {"model": "claude-opus-4-1", "max_tokens": 64, "messages": [{"role": "user", "content": "Hello."}]}
        await client.messages.create(**body, extra_body={"session_id": "c"})

client = anthropic.Anthropic()
body = {"model": "claude-sonnet-5", "max_tokens": 64, "messages": [{"role": "user", "content": "Hello."}]}
client.messages.create(**body, extra_body={"session_id": "a"})
for _ in client.messages.create(**body, stream=True, extra_body={"session_id": "b", "user": "ana"}):
    pass
asyncio.run(later())
print("done")
"""


def test_script() -> None:
    """A script with the Anthropic SDK: its calls, with all that was asked and answered, and a summary of them."""
    found = run(*python(SCRIPT))
    assert (0, "done\n") == (found.returncode, found.stdout)
    assert ["a", "b", "c"] == sessions()
    first = next(call for call in stored() if call.session == "b")
    assert ("ana", "python", "httpx2", 200, "end_turn") == (
        first.user,
        first.service,
        first.client,
        first.status,
        first.stop_reason,
    )
    assert 188 == first.tokens.output
    assert first.first_token is not None
    assert "msgtap   3 calls in" in found.stderr
    assert f"run {first.run}" in found.stderr
    assert "stored   " in found.stderr


def test_output_is_the_programs() -> None:
    """Standard output is that of the program, byte by byte; standard error gains the summary and nothing else."""
    command = python("import sys; ask('a'); print('out'); sys.stderr.write('err\\n'); sys.exit(5)")
    bare = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    found = run(*command)
    assert (5, "out\n", "err\n") == (bare.returncode, bare.stdout, bare.stderr)
    assert (5, "out\n", "err\nmsgtap   1 call in") == (found.returncode, found.stdout, found.stderr[:22])
    assert 8 >= len(found.stderr.splitlines()) - 1


@contextmanager
def started(*command: str, pass_fds: tuple[int, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """A command under `msgtap run`, while it runs; it does not run for ever."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*RUN, *command], pass_fds=pass_fds, stdout=pipe, stderr=pipe, text=True) as process:
        watchdog = threading.Timer(TIMEOUT, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            process.terminate()
            watchdog.cancel()


FASTAPI = """
import asyncio, os
import anthropic
from fastapi import FastAPI

app = FastAPI()
client = anthropic.AsyncAnthropic()

@app.get("/{session}")
async def answer(session: str):
    body = {"model": "claude-sonnet-5", "max_tokens": 64, "messages": [{"role": "user", "content": "Hello."}]}
    await client.messages.create(**body, extra_body={"session_id": session})
    return os.getpid()
"""

WSGI = """
import os
from asking import ask

def app(environ, start_response):
    ask(environ["PATH_INFO"].strip("/"))
    start_response("200 OK", [("content-type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@pytest.mark.parametrize(
    ("source", "command"),
    [
        (FASTAPI, ["-m", "uvicorn", "app:app", "--workers", "2", "--fd", "{fd}"]),
        (WSGI, ["-m", "gunicorn", "app:app", "--workers", "2", "--bind", "fd://{fd}"]),
    ],
    ids=["uvicorn", "gunicorn"],
)
def test_web_server(tmp_path: Path, source: str, command: list[str]) -> None:
    """A web server's workers: each call of each of them, until a signal ends the server."""
    (tmp_path / "app.py").write_text(source)
    workers: set[str] = set()
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, number = listener.getsockname()[1], listener.fileno()
        with started(*(part.format(fd=number) for part in command), pass_fds=(number,)) as process:
            while len(asked) < 8 or len(workers) < 2:
                assert len(asked) < 200  # one of two workers takes none of them
                with httpx.Client() as client:  # and a connection of its own
                    answer = client.get(f"http://127.0.0.1:{port}/{len(asked):03}", timeout=TIMEOUT)
                workers.add(answer.raise_for_status().text)
                asked.append(f"{len(asked):03}")
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=TIMEOUT)
    assert asked == sessions()
    assert f"msgtap   {len(asked)} calls in" in errors


CELERY = """
from celery import Celery
from asking import ask as do_ask

app = Celery("tasks")
app.conf.update(
    broker_url="filesystem://",
    broker_transport_options={"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"},
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
)

@app.task
def ask(session):
    do_ask(session)
"""
SENDING = "import sys; from tasks import ask; [ask.delay(name) for name in sys.argv[1:]]"


def test_celery(tmp_path: Path, endpoint: Endpoint) -> None:
    """The forked workers of Celery: each call, until a signal ends them when they have finished."""
    (tmp_path / "tasks.py").write_text(CELERY)
    (tmp_path / "queue").mkdir()
    names = ["a", "b", "c", "d"]
    subprocess.run([sys.executable, "-c", SENDING, *names], check=True, timeout=TIMEOUT)
    command = ["-m", "celery", "-A", "tasks", "worker", "--pool", "prefork", "--concurrency", "2", "--loglevel", "INFO"]
    with started(*command) as process:
        assert process.stderr is not None
        finished = 0
        while finished < len(names):
            line = process.stderr.readline()
            assert line
            finished += "succeeded in" in line
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert (names, len(names)) == (sessions(), len(endpoint.received))
    assert "msgtap   4 calls in" in errors


TESTS = """
import pytest
from asking import ask

@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_asks(name):
    ask(name)
"""


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["plain", "xdist"])
def test_pytest(tmp_path: Path, options: list[str]) -> None:
    """A test suite, in one process or in several."""
    (tmp_path / "test_it.py").write_text(TESTS)
    found = run("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *options)
    assert 0 == found.returncode, found.stdout
    assert "4 passed" in found.stdout
    assert ["a", "b", "c", "d"] == sessions()


FORKS = """
import os, sys
ask("before")
for name in ("child-1", "child-2"):
    if not os.fork():
        ask(name)
        os._exit(0)
for _ in range(2):
    os.wait()
ask("after")
"""


def test_fork() -> None:
    """A program that forks after its first call, whose children end without a goodbye."""
    found = run(*python(FORKS))
    assert ["after", "before", "child-1", "child-2"] == sessions()
    assert found.stderr.startswith("msgtap   4 calls in")


POOL = """
import multiprocessing, sys
from asking import ask

if __name__ == "__main__":
    ask("before")
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        pool.map(ask, ["child-1", "child-2", "child-3"], chunksize=1)
    ask("after")
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path: Path, method: str) -> None:
    """The children of multiprocessing, however they are started; the pool ends them by a signal."""
    (tmp_path / "pool.py").write_text(POOL)
    found = run("pool.py", method)
    assert ["after", "before", "child-1", "child-2", "child-3"] == sessions()
    assert (0, "") == (found.returncode, found.stdout)


def test_subprocess() -> None:
    """A Python that is started by a shell that is started by the program."""
    inner = [*python("ask('7')")]
    run(sys.executable, "-c", f"import shlex, os; os.system(shlex.join({inner!r}))")
    assert ["7"] == sessions()


def test_warnings_as_errors() -> None:
    """A program that forks, and makes errors of warnings, is not warned of threads of ours."""
    code = "import os\nask('a')\nif not os.fork(): os._exit(0)\nos.wait()\nprint('done')"
    found = run(*python(code, "-W", "error::DeprecationWarning"))
    assert (0, "done\n", ["a"]) == (found.returncode, found.stdout, sessions()), found.stderr


WAITING = "ask('a'); print('asked', flush=True)\nimport time; time.sleep(60)"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGKILL"])
def test_ended_by_a_signal(name: str) -> None:
    """A program that is ended while it waits: its calls are there, and so is the summary."""
    number = getattr(signal, name)
    code = f"import os; print(os.getpid(), flush=True); {WAITING}"
    with started(*python(code)) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert "asked\n" == process.stdout.readline()
        if number == signal.SIGKILL:  # that of the command would leave nobody to sum up
            os.kill(child, number)
        else:
            process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert (["a"], -number) == (sessions(), process.returncode)
    assert "msgtap   1 call in" in errors


LAST_WORDS = {
    "os._exit": "os._exit(3)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "abort": "os.abort()",
    "exec": "os.execv(sys.executable, [sys.executable, '-c', 'pass'])",
}


@pytest.mark.parametrize("end", LAST_WORDS)
def test_ends_right_after_its_last_call(end: str) -> None:
    """A program that is gone the moment its call has returned: not one of its calls is lost."""
    asks = "\n".join(f"ask('{number}', stream={number % 2})" for number in range(5))
    run(*python(f"import os, signal, sys\n{asks}\n{LAST_WORDS[end]}"))
    assert [str(number) for number in range(5)] == sessions()


def test_killed_at_any_moment() -> None:
    """Whenever a program is killed, each call that had returned to it is in the store: the window is 0 ms."""
    code = "number = 0\nwhile True:\n    ask(f'{number:04}')\n    print(number, flush=True)\n    number += 1"
    for _ in range(2):
        before = len(stored()) if Path(os.environ["MSGTAP_STORE"]).exists() else 0
        with started(*python(f"import os; print(os.getpid(), flush=True)\n{code}")) as process:
            assert process.stdout is not None
            child = int(process.stdout.readline())
            for _ in range(5):
                process.stdout.readline()
            os.kill(child, signal.SIGKILL)
            last = [line for line in process.stdout.read().split() if line.isdecimal()][-1:]
        returned = int(last[0]) + 1 if last else 5
        assert returned <= len(stored()) - before <= returned + 1


OWN_MSGTAP = """
import msgtap
msgtap.configure({arguments})
ask("a")
{after}
ask("b")
"""


@pytest.mark.parametrize(
    ("arguments", "after"),
    [
        ("", ""),  # which is the store
        ("exporters=['console']", ""),
        ("exporters=[]", "msgtap.uninstrument()"),
    ],
)
def test_program_with_msgtap_of_its_own(arguments: str, after: str) -> None:
    """A program that uses msgtap itself: its calls are in the store once, and belong to the run."""
    found = run(*python(OWN_MSGTAP.format(arguments=arguments, after=after)))
    assert ["a", "b"] == sessions(), found.stderr
    assert "msgtap   2 calls in" in found.stderr


OWN_OPENTELEMETRY = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, ConsoleSpanExporter
trace.set_tracer_provider(provider := TracerProvider())
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda span: span.name + '\\n')))
with trace.get_tracer("app").start_as_current_span("work"):
    ask("a")
"""


def test_program_with_opentelemetry_of_its_own() -> None:
    """A program with providers of its own exports what it exports without us, and its spans are their own."""
    command = python(OWN_OPENTELEMETRY)
    bare = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    assert bare.stdout == run(*command).stdout
    assert ["a"] == sessions()


def test_program_under_opentelemetry_instrument() -> None:
    """A program that another ``sitecustomize`` instruments, which comes before ours, and with msgtap among others."""
    none = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    found = run("opentelemetry-instrument", *python("ask('a'); print('done')"), **none)
    assert ("done\n", ["a"]) == (found.stdout, sessions()), found.stderr


@pytest.fixture
def collector() -> Iterator[tuple[str, list[str]]]:
    """Whoever takes OTLP over HTTP: its address, and the paths of what it was sent."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()


def test_exports_too(collector: tuple[str, list[str]]) -> None:
    """With OTLP settings the calls go to the collector as well, and the summary says so."""
    address, paths = collector
    found = run(*python("ask('a')"), OTEL_EXPORTER_OTLP_ENDPOINT=address, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")
    assert ["/v1/logs", "/v1/metrics", "/v1/traces"] == sorted(paths)
    assert ["a"] == sessions()
    assert "exported otlp" in found.stderr


def test_unknown_exporter() -> None:
    """A destination that there is not costs one line, and not the store."""
    found = run(*python("ask('a'); print('on')"), MSGTAP_EXPORTERS="carrier-pigeon")
    assert (0, "on\n", ["a"]) == (found.returncode, found.stdout, sessions())
    assert 1 == found.stderr.count("no exporter named 'carrier-pigeon'; installed: ")


def test_service_name() -> None:
    """A service is named after its script, unless it is named."""
    run(*python("ask('a')"), OTEL_SERVICE_NAME="claims")
    subprocess.run([*MSGTAP, "run", "--service", "night", "--", *python("ask('b')")], check=True, capture_output=True)
    assert {"a": "claims", "b": "night"} == {call.session: call.service for call in stored()}


def test_unwritable_store(tmp_path: Path) -> None:
    """Where nothing can be kept, a line says so, and the program runs on."""
    (tmp_path / "file").write_text("in the way")
    found = run(*python("ask('a'); print('on')"), MSGTAP_STORE=str(tmp_path / "file" / "calls.db"))
    assert (0, "on\n") == (found.returncode, found.stdout)
    assert f"msgtap: nothing will be stored: cannot write to {tmp_path / 'file'}" in found.stderr
    assert 1 == len(found.stderr.splitlines())


def test_machine_readable_report() -> None:
    """What a run did can be asked for by its id, by the start of its id, and as the last one."""
    run(*python("ask('a'); ask('b')"))
    run(*python("ask('c')"))
    whole = stored()[0].run or ""

    def calls(run_id: str) -> int:
        command = [*MSGTAP, "report", "--run", run_id, "--json"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
        return int(json.loads(found.stdout)["total"]["calls"])

    assert [2, 2, 1] == [calls(whole), calls(whole[:5]), calls("last")]
