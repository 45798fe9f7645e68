"""Comparable responses, without the parts that differ between any two requests."""

from typing import Any, NamedTuple

import httpx

VOLATILE = frozenset({"x-request-id", "x-process-time", "date"})

FAMILIES = {
    "invalid_token": "Could not validate credentials",
    "token_expired": "The access token has expired",
    "token_revoked": "The session has ended; sign in again",
}
"""Error codes for refused tokens, and their messages."""


class Answer(NamedTuple):
    """The comparable parts of a response."""

    status: int
    body: Any
    headers: dict[str, str]


def answer(response: httpx.Response) -> Answer:
    """Return the comparable parts of `response`. Equal results are indistinguishable."""
    body = response.json() if response.content else None
    if isinstance(body, dict):
        body.pop("request_id", None)
    headers = {
        name: value for name, value in response.headers.items() if name.lower() not in VOLATILE
    }
    return Answer(response.status_code, body, headers)


def assert_refused(response: httpx.Response, family: str = "invalid_token") -> None:
    """Assert the standard response for a refused token with this error code."""
    message = FAMILIES[family]
    assert response.status_code == 401, response.text
    assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    body = answer(response).body
    assert body == {"success": False, "message": message, "detail": message, "code": family}
