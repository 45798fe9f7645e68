"""What wraps every request, as pure ASGI: outermost first, in the order `install` adds them.

RequestContext → SecurityHeaders → AllowedHosts → CORS → ErrorBoundary → QueryGuard → HeadAsGet →
TrailingSlash → BodyLimit
"""

import re
import time
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, quote
from uuid import uuid4

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.config import Settings
from app.core.errors import (
    ContentTooLarge,
    CredentialsInQuery,
    InvalidRequest,
    NotFound,
    UnknownHost,
    internal_error_response,
    pressroom_error_response,
)
from app.core.logging import bind_request_id, get_logger

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


def install(app: FastAPI, settings: Settings) -> None:
    """Wrap `app` in the middleware of this module."""
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        larger={
            ("POST", "/media"): settings.media_max_bytes + FORM_BYTES,
            ("POST", "/articles/import"): settings.max_import_bytes,
        },
    )
    app.add_middleware(TrailingSlash)
    app.add_middleware(HeadAsGet)
    app.add_middleware(QueryGuard)
    app.add_middleware(ErrorBoundary)
    app.add_middleware(
        CrossOrigin,
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
    app.add_middleware(AllowedHosts, allowed_hosts=settings.allowed_hosts)
    if settings.security_headers:
        app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestContext)


class RequestContext:
    """Gives the request its id, times it, and logs it in one line when it has ended.

    A well-formed X-Request-ID is taken over, so that one id follows a request through every
    log between the edge and here. Neither the query nor any header is logged: both carry secrets;
    nor is a preview's token, which is part of the path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        offered = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        identifier = offered if WELL_FORMED_REQUEST_ID.fullmatch(offered) else uuid4().hex
        bind_request_id(identifier)
        method, path = scope["method"], _path_to_log(scope)
        status = 0

        async def send_with_context(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = identifier
                headers["X-Process-Time"] = f"{time.perf_counter() - started:.4f}"
            await send(message)

        try:
            await self.app(scope, receive, send_with_context)
        finally:
            seconds = time.perf_counter() - started
            logger.info(
                f"{method} {path} -> {status} [{seconds:.4f}s]",
                method=method,
                path=path,
                status=status,
                seconds=round(seconds, 4),
            )


def _path_to_log(scope: Scope) -> str:
    """The path, percent-encoded: a line break in it cannot forge a log line; without a token."""
    if scope["path"].startswith("/previews/"):  # however the client has encoded it
        return "/previews/***"
    raw: bytes | None = scope.get("raw_path")
    path = raw.decode("ascii", "replace") if raw else quote(scope["path"])
    return PREVIEW_TOKEN.sub("prv_***", path)


class SecurityHeaders:
    """Adds the headers that keep a browser from misreading an API's answers.

    For a backend that runs alone; behind nginx the edge adds them. A response that brings its
    own value, as the documentation pages do with their policy, keeps it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)


class AllowedHosts:
    """Refuses a Host that is not ours (exact, or `*.example.com`), in our own error shape.

    Health probes come by address and reveal nothing, so they pass.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str]) -> None:
        self.app = app
        self.any_host = "*" in allowed_hosts
        self.exact = {host.lower() for host in allowed_hosts if not host.startswith("*.")}
        self.suffixes = tuple(host[1:].lower() for host in allowed_hosts if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        hosts = Headers(scope=scope).getlist("host")
        if len(hosts) > 1 or (not hosts and scope["http_version"] == "1.1"):  # RFC 9112 §3.2
            refusal = InvalidRequest("The request needs exactly one Host")
            await pressroom_error_response(refusal)(scope, receive, send)
        elif self._is_served(hosts[0] if hosts else "", scope["path"]):
            await self.app(scope, receive, send)
        else:
            await pressroom_error_response(UnknownHost())(scope, receive, send)

    def _is_served(self, host: str, path: str) -> bool:
        if self.any_host or path.startswith("/health/"):
            return True
        name = re.sub(r":\d+$", "", host).lower()
        if name in self.exact:
            return True
        is_name = re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", name) is not None
        return is_name and name.endswith(self.suffixes)


class CrossOrigin(CORSMiddleware):
    """Starlette's CORS, with a refused preflight in our own error shape."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        refusal = pressroom_error_response(InvalidRequest(bytes(response.body).decode()))
        refusal.headers["Vary"] = "Origin"
        return refusal


class ErrorBoundary:
    """The global handler: an unhandled exception is logged with its trace and answered with 500.

    It stands inside CORS and the request context, so that the answer carries their headers too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

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
            await internal_error_response()(scope, receive, send)


class QueryGuard:
    """Refuses a secret in any URL: those are logged and cached (RFC 6750 §5.3)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["query_string"]:
            query = scope["query_string"].decode("latin-1")
            names = {name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)}
            if names & CREDENTIAL_PARAMETERS:
                await pressroom_error_response(CredentialsInQuery())(scope, receive, send)
                return
        await self.app(scope, receive, send)


class HeadAsGet:
    """Answers HEAD as GET, with the same headers and no body (RFC 9110 §9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self.app({**scope, "method": "GET"}, receive, send_without_body)


class TrailingSlash:
    """Serves `/articles/` as `/articles`, without a redirect that would drop a POST's body.

    A line break at the end of a path would pass the routes' patterns too: it is found nowhere.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and len(scope["path"]) > 1 and scope["path"].endswith("/"):
            scope = {**scope, "path": scope["path"][:-1]}
        if scope["type"] == "http" and scope["path"].endswith("\n"):
            await pressroom_error_response(NotFound())(scope, receive, send)
            return
        await self.app(scope, receive, send)


class BodyLimit:
    """Refuses a body over `max_bytes`: at once by its declared length, else while it streams in.

    `larger` has the limits of those that may send more, by method and path.

    Starlette 1.10 has such a limit too, but it answers in plain text where the body goes unread.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, larger: Mapping[tuple[str, str], int] | None = None
    ) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.larger = larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        max_bytes = self.larger.get((scope["method"], scope["path"]), self.max_bytes)
        declared = Headers(scope=scope).get("content-length", "0")
        if not (declared.isascii() and declared.isdigit()):
            refusal = InvalidRequest("Content-Length is not a number")
            await pressroom_error_response(refusal)(scope, receive, send)
            return
        if int(declared[:20]) > max_bytes:
            await pressroom_error_response(_too_large(max_bytes))(scope, receive, send)
            return
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                raise _too_large(max_bytes)
            return message

        await self.app(scope, receive_within_limit, send)


def _too_large(max_bytes: int) -> ContentTooLarge:
    return ContentTooLarge(f"The request body is larger than {max_bytes} bytes")
