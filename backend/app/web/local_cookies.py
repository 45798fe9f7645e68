"""Cookies of pages at http://localhost, for browsers that accept Secure cookies over https only.

Safari is one of them. In development, the cookies of http://localhost therefore have neither
`Secure` nor the prefix `__Host-`, which requires it. No other machine can see or change them.
"""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX = b"__Host-"
_LOCAL_HOST = re.compile(rb"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
_LOCAL_NAME = re.compile(rb"pressroom(-[a-z]+)?=")


class LocalCookies:
    """Renames the cookies of requests to http://localhost and of their responses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_local(scope):
            await self._app(scope, receive, send)
            return

        async def send_renamed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    (name, _without_prefix(value) if name == b"set-cookie" else value)
                    for name, value in message["headers"]
                ]
            await send(message)

        headers = [
            (name, _with_prefix(value) if name == b"cookie" else value)
            for name, value in scope["headers"]
        ]
        await self._app({**scope, "headers": headers}, receive, send_renamed)


def _is_local(scope: Scope) -> bool:
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    return scope["scheme"] == "http" and bool(hosts) and bool(_LOCAL_HOST.fullmatch(hosts[0]))


def _with_prefix(cookies: bytes) -> bytes:
    """Return the Cookie header with local cookies also under the names that pages read.

    These take precedence over others of the same name. Some cookies never have the prefix.
    """
    pairs = cookies.split(b"; ")
    return b"; ".join([*pairs, *(PREFIX + each for each in pairs if _LOCAL_NAME.match(each))])


def _without_prefix(cookie: bytes) -> bytes:
    return cookie.removeprefix(PREFIX).replace(b"; Secure", b"")
