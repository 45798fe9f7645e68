"""Answers as an attacker compares them: without what differs from one request to the next."""

from typing import Any, NamedTuple

import httpx

VOLATILE = frozenset({"x-request-id", "x-process-time", "date"})

FAMILIES = {
    "invalid_token": "Could not validate credentials",
    "token_expired": "The access token has expired",
    "token_revoked": "The session has ended; log in again",
}
"""What may be learned of a token that is refused, and the sentence that goes with it."""


class Answer(NamedTuple):
    """All that one answer tells."""

    status: int
    body: Any
    headers: dict[str, str]


def answer(response: httpx.Response) -> Answer:
    """What `response` tells; two that are equal tell nothing apart."""
    body = response.json() if response.content else None
    if isinstance(body, dict):
        body.pop("request_id", None)
    headers = {
        name: value for name, value in response.headers.items() if name.lower() not in VOLATILE
    }
    return Answer(response.status_code, body, headers)


def assert_refused(response: httpx.Response, family: str = "invalid_token") -> None:
    """A token of this family, and not a word more: every such answer is the same."""
    message = FAMILIES[family]
    assert response.status_code == 401, response.text
    assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    told = answer(response).body
    assert told == {"success": False, "message": message, "detail": message, "code": family}
