"""How msgtap gets hold of httpx and httpx2, whichever comes first, and lets go of them."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
import wrapt

import msgtap
from msgtap.adapters.httpx import install
from msgtap.testing import capture_calls, replies
from msgtap.testing.endpoint import Endpoint

if TYPE_CHECKING:
    from tests.adapters.conftest import HttpxRow, Web

ASKED = {"model": "m", "max_tokens": 1, "messages": []}
SEAMS = ("_send_handling_auth", "_send_single_request")


def _run(code: str, *arguments: str) -> str:
    """What a program of its own prints; on standard error it must print nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ("", 0) == (done.stderr, done.returncode)
    return done.stdout


@pytest.mark.parametrize("seam", SEAMS)
@pytest.mark.parametrize("client", [httpx.Client, httpx.AsyncClient, httpx2.Client, httpx2.AsyncClient])
def test_a_wrapper_is_put_on_once(client: type, seam: str) -> None:
    """However often msgtap is switched on, a method has one wrapper, which says of itself what the method would."""
    wrapper = inspect.getattr_static(client, seam)
    for _ in range(3):
        msgtap.instrument()
        msgtap.uninstrument()
        install(sys.modules[client.__module__.split(".")[0]])
    assert wrapper is inspect.getattr_static(client, seam)
    assert not isinstance(wrapper.__wrapped__, wrapt.ObjectProxy)
    assert inspect.iscoroutinefunction(wrapper.__wrapped__) == inspect.iscoroutinefunction(getattr(client, seam))
    assert inspect.signature(wrapper.__wrapped__) == inspect.signature(getattr(client, seam))


def test_a_client_of_before(row: HttpxRow) -> None:
    """A client, and a bound method of it, that are older than msgtap's wrappers are seen."""

    async def program(web: Web) -> None:
        with capture_calls() as calls:
            request = web.client.build_request("POST", web.url, json=ASKED)
            answer = captured(request)
            if row.is_async:
                await answer
            assert ["m"] == [call.request.model for call in calls]
        await web.call(client, "close")

    with row.pristine():
        client = (row.module.AsyncClient if row.is_async else row.module.Client)(trust_env=False)
        captured = client.send
    with Endpoint([replies.message()]) as endpoint:
        row.run(program, endpoint)


def test_subclasses(row: HttpxRow) -> None:
    """A subclass whose `send` calls its base is seen once; one that answers by itself sends nothing to see."""
    base = row.module.AsyncClient if row.is_async else row.module.Client

    class Passing(base):  # type: ignore[misc,valid-type]
        def send(self, request: Any, **options: Any) -> Any:
            request.headers["x-passed"] = "yes"
            return super().send(request, **options)

    class Answering(base):  # type: ignore[misc,valid-type]
        def send(self, request: Any, **options: Any) -> Any:
            response = row.module.Response(200, json={}, request=request)
            return _later(response) if row.is_async else response

    async def program(web: Web) -> None:
        assert 200 == (await web.post()).status_code

    with Endpoint([replies.message()]) as endpoint:
        for kind, number in ((Passing, 1), (Answering, 0)):
            with capture_calls() as calls:
                row.run(program, endpoint, kind=kind)
            assert (kind, number) == (kind, len(calls))
    assert ["yes"] == [received.header("x-passed") for received in endpoint.received]


async def _later(value: object) -> object:
    return value


def test_nothing_is_imported() -> None:
    """Switching msgtap on imports no client; a client that is imported afterwards is seen."""
    with Endpoint([replies.message()]) as endpoint:
        printed = _run(
            """
            import sys, msgtap
            from msgtap.testing import capture_calls
            url = sys.argv[1] + "/v1/messages"
            with capture_calls() as calls:
                assert not {"httpx", "httpx2", "anthropic"} & set(sys.modules)
                import httpx._client
                with httpx.Client() as client:
                    client.post(url, json={})
                import httpx2
                with httpx2.Client() as client:
                    client.post(url, json={})
            print([call.client for call in calls])
            """,
            endpoint.url,
        )
    assert "['httpx', 'httpx2']\n" == printed


@pytest.mark.parametrize("first", ["msgtap", "alias"])
def test_httpx2_under_the_name_of_httpx(first: str) -> None:
    """Where httpx2 stands in for httpx, a call is seen once."""
    with Endpoint([replies.message()]) as endpoint:
        printed = _run(
            """
            import sys, msgtap
            from msgtap.testing import capture_calls
            url, first = sys.argv[1] + "/v1/messages", sys.argv[2]
            with capture_calls() as calls:
                if first == "alias":
                    import httpx2
                    httpx2.alias_httpx()
                msgtap.instrument()
                import httpx2
                if first == "msgtap":
                    httpx2.alias_httpx()
                import httpx
                assert httpx.Client is httpx2.Client
            with capture_calls() as calls, httpx.Client() as client:
                client.post(url, json={})
            print([call.client for call in calls])
            """,
            endpoint.url,
            first,
        )
    assert "['httpx2']\n" == printed


@pytest.mark.parametrize("module", ["httpx", "httpx2"])
@pytest.mark.parametrize("seam", SEAMS)
def test_a_version_without_the_seams(module: str, seam: str) -> None:
    """Where a private method has another name, calls are seen at the public `send`, and stream only if told to."""
    message, stream = replies.message(), replies.stream()
    with Endpoint([message, message, stream, replies.error(401), message, stream]) as endpoint:
        printed = _run(
            """
            import asyncio, importlib, inspect, sys
            url, name, seam = sys.argv[1] + "/v1/messages", sys.argv[2], sys.argv[3]
            module = importlib.import_module(name)
            source = inspect.getsource(module._client).replace(seam, "_renamed")
            exec(compile(source, module._client.__file__, "exec"), vars(module._client))
            module.Client, module.AsyncClient = module._client.Client, module._client.AsyncClient
            asked = {"json": {"model": "m", "stream": True}}

            from msgtap.testing import capture_calls

            async def main():
                async with module.AsyncClient() as client:
                    response = await client.post(url, **asked)
                    async with client.stream("POST", url, **asked) as response:
                        chunks = [chunk async for chunk in response.aiter_raw()]
                    assert len(chunks) > 10, chunks

            with capture_calls() as calls:
                with module.Client() as client:
                    assert not hasattr(client, seam)
                    client.get(url)
                    response = client.post(url, **asked)
                    with client.stream("POST", url, **asked) as response:
                        assert not response.is_closed
                        chunks = list(response.iter_raw())
                    assert len(chunks) > 10, chunks
                    client.post(url, **asked)
                asyncio.run(main())
            for call in calls:
                print(call.client, call.ending, call.status, call.error_type, call.response.stop_reason)
            """,
            endpoint.url,
            module,
            seam,
        )
    assert [
        f"{module} complete 200 None end_turn",
        f"{module} complete 200 None end_turn",
        f"{module} complete 401 authentication_error None",
        f"{module} complete 200 None end_turn",
        f"{module} complete 200 None end_turn",
    ] == printed.splitlines()
