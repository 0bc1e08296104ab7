"""One call, as a span, a few points and a log event.

Runs against a stand-in endpoint on this machine; with ``ANTHROPIC_API_KEY`` set, against Anthropic's.
"""

import contextlib
import os

import httpx2

import msgtap
from msgtap.testing.endpoint import Endpoint

key = os.environ.get("ANTHROPIC_API_KEY")

with contextlib.nullcontext() if key else Endpoint() as stand_in:
    url = stand_in.url if stand_in else "https://api.anthropic.com"

    msgtap.configure(exporters=["console"], service_name="quickstart")

    answer = httpx2.post(
        f"{url}/v1/messages",
        headers={"x-api-key": key or "none", "anthropic-version": "2023-06-01", "x-session-id": "claim-44"},
        json={
            "model": "claude-sonnet-5",
            "max_tokens": 256,
            "messages": [{"role": "user", "content": "In five words: why do windscreens crack?"}],
        },
        timeout=60,
    )

    print(answer.json()["content"][0]["text"])
