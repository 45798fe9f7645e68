"""Flash messages: shown once, on the next page. A cookie carries them over the redirect."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

COOKIE = "__Host-pressroom-flash"
KINDS = ("success", "info", "warning", "danger")
MAX_LENGTH = 500
LIFETIME = 60
"""Seconds after which the browser forgets a message that no page has shown."""


class Message(NamedTuple):
    """A message, and its kind: success, info, warning or danger."""

    kind: str
    text: str


def set_message(response: Response, text: str, kind: str = "success") -> None:
    """Show `text` on the next page."""
    encoded = urlsafe_b64encode(json.dumps([kind, text[:MAX_LENGTH]]).encode()).decode()
    response.set_cookie(
        COOKIE, encoded, max_age=LIFETIME, secure=True, httponly=True, samesite="lax"
    )


def take_messages(request: Request) -> list[Message]:
    """Return the message of the request. The response to `request` then deletes its cookie."""
    cookie = request.cookies.get(COOKIE)
    if not cookie:
        return []
    request.state.flash_shown = True
    try:
        kind, text = json.loads(urlsafe_b64decode(cookie))
        return [Message(kind if kind in KINDS else "info", str(text)[:MAX_LENGTH])]
    except (ValueError, TypeError):
        return []


def delete_shown(request: Request, response: Response) -> None:
    """Delete the cookie of a message that the response shows."""
    if getattr(request.state, "flash_shown", False):
        response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")
