"""What wraps every request, as pure ASGI: outermost first, in the order `install` adds them.

RequestContext → AllowedHosts → CORS → ErrorBoundary → RequestRules

Each request passes through all of it: there are few layers, and headers are read and added as they
are, in lists of bytes.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote
from uuid import uuid4

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.config import Settings
from app.core.errors import (
    ContentTooLarge,
    CredentialsInQuery,
    InternalError,
    InvalidRequest,
    NotFound,
    PressroomError,
    UnknownHost,
    pressroom_error_response,
)
from app.core.logging import bind_request_id, get_logger, log_request

logger = get_logger(__name__)

REQUEST_ID_HEADER = "X-Request-ID"
WELL_FORMED_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")

PREVIEW_TOKEN = re.compile(r"prv_[A-Za-z0-9_-]+")

CREDENTIAL_PARAMETERS = frozenset(
    {
        "access_token",
        "api_key",
        "challenge",
        "current_password",
        "new_password",
        "password",
        "refresh_token",
        "token",
    }
)

FORM_BYTES = 1024 * 1024
"""What a form may have around the file in it."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""What keeps a browser from misreading an API's answers; behind nginx the edge adds them."""


Envelope = Callable[[PressroomError], Response]
"""How an edge words an error."""


class Refusals:
    """How a request is refused: in the words of the edge that it was for, told by its path."""

    def __init__(self, envelopes: Mapping[str, Envelope]) -> None:
        """`envelopes` of the applications that are mounted, by their paths; else it is ours."""
        self._envelopes = tuple(envelopes.items())

    def __call__(self, scope: Scope, error: PressroomError) -> Response:
        path: str = scope["path"]
        for prefix, envelope in self._envelopes:
            if path == prefix or path.startswith(f"{prefix}/"):
                return envelope(error)
        return pressroom_error_response(error)


NATIVE = Refusals({})


def install(app: FastAPI, settings: Settings, envelopes: Mapping[str, Envelope]) -> None:
    """Wrap `app` in the middleware of this module; `envelopes` as Refusals takes them."""
    refuse = Refusals(envelopes)
    app.add_middleware(
        RequestRules,
        max_bytes=settings.max_body_bytes,
        larger={
            ("POST", "/media"): settings.media_max_bytes + FORM_BYTES,
            ("POST", "/articles/import"): settings.max_import_bytes,
        },
        refuse=refuse,
    )
    app.add_middleware(ErrorBoundary, refuse=refuse)
    app.add_middleware(
        CrossOrigin,
        refuse=refuse,
        allow_origins=settings.cors_origins,
        allow_credentials="*" not in settings.cors_origins,
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=[
            "Authorization",
            "Content-Type",
            "Idempotency-Key",
            "If-Match",
            "If-Modified-Since",
            "If-None-Match",
            REQUEST_ID_HEADER,
            "X-Requested-With",
        ],
        expose_headers=[
            "Content-Location",
            "ETag",
            "Idempotency-Replayed",
            "Last-Modified",
            "Link",
            "Location",
            "Retry-After",
            REQUEST_ID_HEADER,
            "X-Process-Time",
            "X-Merged-Into",
            "X-Total-Count",
        ],
    )
    app.add_middleware(AllowedHosts, allowed_hosts=settings.allowed_hosts, refuse=refuse)
    app.add_middleware(
        RequestContext, headers=SECURITY_HEADERS if settings.security_headers else {}
    )


def _values(scope: Scope, name: bytes) -> list[bytes]:
    """The values of a request's header, one for each line that it came in."""
    return [value for each, value in scope["headers"] if each == name]


class RequestContext:
    """Gives the request its id, times it, and logs it in one line when it has ended.

    A well-formed X-Request-ID is taken over, so that one id follows a request through every
    log between the edge and here. Neither the query nor any header is logged: both carry secrets;
    nor is a preview's token, which is part of the path.

    Every answer gets `headers`, but those that it has itself, as the documentation pages have with
    their policy.
    """

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self.app = app
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        identifier = _request_id(scope)
        bind_request_id(identifier)
        method, path = scope["method"], _path_to_log(scope)
        status = 0

        async def send_with_context(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [each for each in message["headers"] if each[0] not in _CONTEXT]
                named = {name for name, _ in headers}
                headers += [each for each in self._headers if each[0] not in named]
                headers.append((b"x-request-id", identifier.encode()))
                seconds = time.perf_counter() - started
                headers.append((b"x-process-time", f"{seconds:.4f}".encode()))
                message["headers"] = headers
            await send(message)

        try:
            await self.app(scope, receive, send_with_context)
        finally:
            seconds = time.perf_counter() - started
            log_request(method=method, path=path, status=status, seconds=seconds)


_CONTEXT = frozenset({b"x-request-id", b"x-process-time"})
"""What RequestContext alone says."""


def _request_id(scope: Scope) -> str:
    offered = _values(scope, b"x-request-id")
    if offered:
        identifier = offered[0].decode("latin-1")
        if WELL_FORMED_REQUEST_ID.fullmatch(identifier):
            return identifier
    return uuid4().hex


def _path_to_log(scope: Scope) -> str:
    """The path, percent-encoded: a line break in it cannot forge a log line; without a token."""
    if scope["path"].startswith("/previews/"):  # however the client has encoded it
        return "/previews/***"
    raw: bytes | None = scope.get("raw_path")
    path = raw.decode("ascii", "replace") if raw else quote(scope["path"])
    return PREVIEW_TOKEN.sub("prv_***", path) if "prv_" in path else path


class AllowedHosts:
    """Refuses a Host that is not ours (exact, or `*.example.com`), in our own error shape.

    Health probes come by address and reveal nothing, so they pass.
    """

    def __init__(
        self, app: ASGIApp, allowed_hosts: Sequence[str], refuse: Refusals = NATIVE
    ) -> None:
        self.app = app
        self._refuse = refuse
        self.any_host = "*" in allowed_hosts
        self.exact = {host.lower() for host in allowed_hosts if not host.startswith("*.")}
        self.suffixes = tuple(host[1:].lower() for host in allowed_hosts if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        hosts = _values(scope, b"host")
        if len(hosts) > 1 or (not hosts and scope["http_version"] == "1.1"):  # RFC 9112 §3.2
            refusal = InvalidRequest("The request needs exactly one Host")
            await self._refuse(scope, refusal)(scope, receive, send)
        elif self._is_served(hosts[0].decode("latin-1") if hosts else "", scope["path"]):
            await self.app(scope, receive, send)
        else:
            await self._refuse(scope, UnknownHost())(scope, receive, send)

    def _is_served(self, host: str, path: str) -> bool:
        if self.any_host or host in self.exact or path.startswith("/health/"):
            return True
        name = re.sub(r":\d+$", "", host).lower()
        if name in self.exact:
            return True
        is_name = re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", name) is not None
        return is_name and name.endswith(self.suffixes)


class CrossOrigin(CORSMiddleware):
    """Starlette's CORS, with a refused preflight in the shape of whom it was for."""

    def __init__(self, app: ASGIApp, /, *, refuse: Refusals = NATIVE, **options: Any) -> None:
        super().__init__(app, **options)
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            headers = Headers(scope=scope)
            if "origin" in headers and "access-control-request-method" in headers:
                response = self.preflight_response(headers)
                if response.status_code >= 400:
                    refusal = InvalidRequest(bytes(response.body).decode())
                    response = self._refuse(scope, refusal)
                    response.headers["Vary"] = "Origin"
                await response(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


class ErrorBoundary:
    """The global handler: an unhandled exception is logged with its trace and answered with 500.

    It stands inside CORS and the request context, so that the answer carries their headers too.
    """

    def __init__(self, app: ASGIApp, refuse: Refusals = NATIVE) -> None:
        self.app = app
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except Exception:
            logger.exception("unhandled exception", method=scope["method"])
            if started:  # the status line is out: only a broken connection tells the client now
                raise
            await self._refuse(scope, InternalError())(scope, receive, send)


class RequestRules:
    """What holds for every request, whatever it asks for.

    - A secret in a URL is refused: those are logged and cached (RFC 6750 §5.3).
    - HEAD is answered as GET, with the same headers and no body (RFC 9110 §9.3.2).
    - `/articles/` is served as `/articles`, without a redirect that would drop a POST's body. A
      line break at the end of a path would pass the routes' patterns too: it is found nowhere.
    - A body over `max_bytes` is refused: at once by its declared length, else while it streams in.
      `larger` has the limits of those that may send more, by method and path. Starlette 1.10 has
      such a limit too, but it answers in plain text where the body goes unread.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        larger: Mapping[tuple[str, str], int] | None = None,
        refuse: Refusals = NATIVE,
    ) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.larger = larger or {}
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                scope, receive, send = self._ruled(scope, receive, send)
            except PressroomError as refusal:
                await self._refuse(scope, refusal)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _ruled(self, scope: Scope, receive: Receive, send: Send) -> tuple[Scope, Receive, Send]:
        if scope["query_string"]:
            _refuse_credentials(scope["query_string"])
        if scope["method"] == "HEAD":
            scope, send = {**scope, "method": "GET"}, _without_body(send)
        if len(scope["path"]) > 1 and scope["path"].endswith("/"):
            scope = {**scope, "path": scope["path"][:-1]}
        if scope["path"].endswith("\n"):
            raise NotFound
        if any(name in _OF_A_BODY for name, _ in scope["headers"]):
            receive = self._limited(scope, receive)
        return scope, receive, send

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        max_bytes = self.larger.get((scope["method"], scope["path"]), self.max_bytes)
        for value in _values(scope, b"content-length")[:1]:
            if not value.isdigit():
                raise InvalidRequest("Content-Length is not a number")
            if int(value[:20]) > max_bytes:
                raise _too_large(max_bytes)
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                raise _too_large(max_bytes)
            return message

        return receive_within_limit


_OF_A_BODY = frozenset({b"content-length", b"transfer-encoding"})
"""RFC 9112 §6.3: without either, a request has no body."""


def _refuse_credentials(query_string: bytes) -> None:
    pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True)
    if not CREDENTIAL_PARAMETERS.isdisjoint(name.lower() for name, _ in pairs):
        raise CredentialsInQuery


def _without_body(send: Send) -> Send:
    async def send_without_body(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_without_body


def _too_large(max_bytes: int) -> ContentTooLarge:
    return ContentTooLarge(f"The request body is larger than {max_bytes} bytes")
