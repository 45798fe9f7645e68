"""Imports over HTTP that run in the background."""

import time
from collections.abc import Mapping
from typing import Any

import httpx

DEADLINE_SECONDS = 300
UNFINISHED = {"receiving", "running"}


def finished(
    client: httpx.Client, answer: httpx.Response, headers: Mapping[str, str]
) -> dict[str, Any]:
    """Return the import of a response once it has ended."""
    assert answer.status_code in {200, 202}, answer.text
    found: dict[str, Any] = answer.json()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while found["state"] in UNFINISHED:
        assert time.monotonic() < deadline, found
        polled = client.get(answer.headers["Location"], headers=dict(headers))
        assert polled.status_code == 200, polled.text
        found = polled.json()
    return found
