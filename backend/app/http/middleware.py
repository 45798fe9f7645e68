"""Pure ASGI middleware for every request, from the outermost to the innermost layer.

RequestContext → AllowedHosts → CORS → ErrorBoundary → RequestRules

For speed, the layers read and write raw headers: lists of bytes.
"""

import mmap
import re
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qsl, quote

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import metrics, rates
from app.core.config import Settings
from app.core.errors import (
    ContentTooLarge,
    CredentialsInQuery,
    CrossSiteSocket,
    InternalError,
    InvalidRequest,
    NotFound,
    PressroomError,
    UnknownHost,
)
from app.core.logging import (
    PREVIEW_PATHS,
    bind_request_id,
    get_logger,
    log_request,
    public_path,
)
from app.core.origins import ANY, is_http_origin, is_listed
from app.http.errors import pressroom_error_response
from app.http.streaming import HEAD
from app.http.tracing import current_trace_id

logger = get_logger(__name__)

REQUEST_ID_HEADER = "X-Request-ID"
WELL_FORMED_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")

TRACE_PARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
"""The header `traceparent` of W3C Trace Context; the group is the id of the trace."""

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
"""Bytes of a multipart form in addition to its file."""
MAX_FORM_IMPORT_BYTES = 64 * 1024 * 1024
"""The size of a file that the page for imports accepts, which takes memory until it is received."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Security headers of every response; behind nginx, nginx adds them."""


Envelope = Callable[[PressroomError], Response]
"""Renders an error in the format of one API."""


class ErrorResponder:
    """Renders an error in the format of the API that the path belongs to."""

    def __init__(self, envelopes: Mapping[str, Envelope]) -> None:
        """Use `envelopes` for the path prefixes of mounted applications."""
        self._envelopes = tuple(envelopes.items())

    def __call__(self, scope: Scope, error: PressroomError) -> Response:
        path: str = scope["path"]
        for prefix, envelope in self._envelopes:
            if path == prefix or path.startswith(f"{prefix}/"):
                return envelope(error)
        return pressroom_error_response(error)


NATIVE_RESPONDER = ErrorResponder({})


def largest_form(settings: Settings) -> int:
    """Return the maximum bytes of a page's form."""
    return max(settings.media_max_bytes + FORM_BYTES, largest_import_form(settings))


def largest_import_form(settings: Settings) -> int:
    """Return the maximum bytes of the form of the page for imports."""
    return min(settings.max_import_bytes, MAX_FORM_IMPORT_BYTES) + FORM_BYTES


def install(
    app: FastAPI,
    settings: Settings,
    envelopes: Mapping[str, Envelope],
    pages: Sequence[str] = (),
    *,
    is_traced: bool = False,
) -> None:
    """Add the middleware of this module to `app`; ErrorResponder describes `envelopes`.

    `pages` are the paths below which other origins may not read responses.
    """
    respond = ErrorResponder(envelopes)
    app.add_middleware(
        RequestRules,
        max_bytes=settings.max_body_bytes,
        larger={
            ("POST", "/media"): settings.media_max_bytes + FORM_BYTES,
            ("POST", "/articles/import"): settings.max_import_bytes,
            ("POST", "/studio/media"): settings.media_max_bytes + FORM_BYTES,
            ("POST", "/studio/articles/pictures"): settings.media_max_bytes + FORM_BYTES,
            ("POST", "/studio/account/picture"): settings.media_max_bytes + FORM_BYTES,
            ("POST", "/studio/admin/imports"): largest_import_form(settings),
        },
        respond=respond,
    )
    app.add_middleware(ErrorBoundary, respond=respond)
    app.add_middleware(
        CrossOrigin,
        respond=respond,
        refusals=RefusalLog(settings.cors_origins),
        pages=pages,
        allow_origins=settings.cors_origins,
        allow_credentials=ANY not in settings.cors_origins,
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=[
            "Authorization",
            "Content-Type",
            "Idempotency-Key",
            "If-Match",
            "If-Modified-Since",
            "If-None-Match",
            "MCP-Protocol-Version",
            "Mcp-Method",
            "Mcp-Name",
            "Prefer",
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
            "Preference-Applied",
            "RateLimit",
            "RateLimit-Policy",
            "Retry-After",
            REQUEST_ID_HEADER,
            "X-Process-Time",
            "X-Merged-Into",
            "X-Total-Count",
        ],
    )
    app.add_middleware(AllowedHosts, allowed_hosts=settings.allowed_hosts, respond=respond)
    app.add_middleware(
        RequestContext,
        headers=SECURITY_HEADERS if settings.security_headers else {},
        is_traced=is_traced,
    )


def _values(scope: Scope, name: bytes) -> list[bytes]:
    """Return the values of a request header, one per header line."""
    return [value for each, value in scope["headers"] if each == name]


class RequestContext:
    """Sets the request id, measures the duration, and logs each request in one line.

    A well-formed X-Request-ID is reused, so that the logs of nginx and the backend share one id.
    The log omits the query string, all headers and preview tokens in paths, which may be secrets.

    Every response gets `headers`. Headers that a response already has stay: the documentation pages
    have their own Content-Security-Policy.
    """

    def __init__(self, app: ASGIApp, headers: Mapping[str, str], *, is_traced: bool) -> None:
        """With `is_traced`, requests without a `traceparent` have the trace id of their span."""
        self.app = app
        self._is_traced = is_traced
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._serve_socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        identifier = _request_id(scope)
        bind_request_id(identifier, trace_id=self._trace_id(scope))
        method, path = scope["method"], _log_path(scope)
        status = 0
        used = None if method in _UNLIMITED else rates.collect()
        recorder = metrics.recorder()
        if recorder is not None:
            recorder.in_flight += 1
        is_counted = recorder is not None

        def count() -> None:
            nonlocal is_counted
            if recorder is not None and is_counted:
                is_counted = False
                recorder.in_flight -= 1
                seconds = time.perf_counter() - started
                recorder.observe_request(_route(scope), method, status, seconds)

        async def send_with_context(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [each for each in message["headers"] if each[0] not in _CONTEXT_HEADERS]
                present = {name for name, _ in headers}
                headers += [each for each in self._headers if each[0] not in present]
                if used:
                    headers += _rate_limits(used, status)
                headers.append((b"x-request-id", identifier.encode()))
                seconds = time.perf_counter() - started
                headers.append((b"x-process-time", f"{seconds:.4f}".encode()))
                message["headers"] = headers
                if _EVENT_STREAM in headers:  # it stays open, but is served from now on
                    count()
            await send(message)

        try:
            await self.app(scope, receive, send_with_context)
        finally:
            count()
            seconds = time.perf_counter() - started
            log_request(method=method, path=path, status=status, seconds=seconds)

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Log a WebSocket when it ends: with 101, or with the status that refuses it."""
        started = time.perf_counter()
        bind_request_id(_request_id(scope), trace_id=self._trace_id(scope))
        status = 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "websocket.accept":
                status = 101
            elif message["type"] == "websocket.http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            seconds = time.perf_counter() - started
            log_request(method="GET", path=_log_path(scope), status=status, seconds=seconds)

    def _trace_id(self, scope: Scope) -> str | None:
        for value in _values(scope, b"traceparent")[:1]:
            if match := TRACE_PARENT.fullmatch(value.decode("latin-1")):
                return match[1]
        return current_trace_id() if self._is_traced else None


_UNLIMITED = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods of requests that no limit counts."""


def _rate_limits(used: rates.Rates, status: int) -> list[tuple[bytes, bytes]]:
    """Return the headers with the rate limits of a request that was counted or limited.

    The response to a failed login must not tell which limits apply: they depend on the user.
    """
    if status >= 300 and status != 429:
        return []
    fields = {b"ratelimit-policy": rates.policies(used), b"ratelimit": rates.states(used)}
    return [(name, value.encode()) for name, value in fields.items() if value]


def _route(scope: Scope) -> str:
    """Return the template of the path, such as `/articles/{article_id}`.

    Paths without a route are `other`, so that clients cannot create labels.
    """
    path: str | None = getattr(scope.get("route"), "path_format", None)
    if path is None:
        return metrics.OTHER
    root_path: str = scope.get("root_path", "")
    if not root_path:
        return path
    return root_path.removeprefix(scope.get("app_root_path", "")) + path


_EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
_CONTEXT_HEADERS = frozenset({b"x-request-id", b"x-process-time"})
"""Headers that only RequestContext sets."""


def _request_id(scope: Scope) -> str:
    values = _values(scope, b"x-request-id")
    if values:
        identifier = values[0].decode("latin-1")
        if WELL_FORMED_REQUEST_ID.fullmatch(identifier):
            return identifier
    return token_hex(16)


def _log_path(scope: Scope) -> str:
    """Return the path without preview tokens, percent-encoded against forged log lines."""
    if scope["path"].startswith(PREVIEW_PATHS):  # the raw path may be encoded differently
        return public_path(scope["path"])
    raw: bytes | None = scope.get("raw_path")
    path = raw.decode("ascii", "replace") if raw else quote(scope["path"])
    return public_path(path)


_REQUESTS = frozenset({"http", "websocket"})


class AllowedHosts:
    """Rejects requests whose Host is not in `allowed_hosts` (exact, or `*.example.com`).

    Health checks are exempt: orchestrators send them to an IP address.
    """

    def __init__(
        self, app: ASGIApp, allowed_hosts: Sequence[str], respond: ErrorResponder = NATIVE_RESPONDER
    ) -> None:
        self.app = app
        self._respond = respond
        self.any_host = "*" in allowed_hosts
        self.exact = {host.lower() for host in allowed_hosts if not host.startswith("*.")}
        self.suffixes = tuple(host[1:].lower() for host in allowed_hosts if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in _REQUESTS:
            await self.app(scope, receive, send)
            return
        hosts = _values(scope, b"host")
        if len(hosts) > 1 or (not hosts and scope["http_version"] == "1.1"):  # RFC 9112 §3.2
            error = InvalidRequest("Send exactly one Host header")
            await self._respond(scope, error)(scope, receive, send)
        elif self._is_allowed(hosts[0].decode("latin-1") if hosts else "", scope["path"]):
            await self.app(scope, receive, send)
        else:
            await self._respond(scope, UnknownHost())(scope, receive, send)

    def _is_allowed(self, host: str, path: str) -> bool:
        if self.any_host or host in self.exact:
            return True
        if path == "/health" or path.startswith("/health/"):
            return True
        name = re.sub(r":\d+$", "", host).lower()
        if name in self.exact:
            return True
        is_name = re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", name) is not None
        return is_name and name.endswith(self.suffixes)


class RefusalLog:
    """Logs each refused origin once, with the setting that would allow it.

    The memory for 100 origins is shared with the workers, which are forked from this process.
    """

    CAPACITY = 100
    _DIGEST_BYTES = 8

    def __init__(self, allowed_origins: Sequence[str]) -> None:
        self._allowed_origins = allowed_origins
        self._digests = mmap.mmap(-1, self.CAPACITY * self._DIGEST_BYTES)

    def log(self, origin: str) -> None:
        """Log an Origin header that is not allowed."""
        if origin == "null":
            advice = "serve the page over HTTP instead of opening it as a file"
        elif is_http_origin(origin):
            origins = ",".join([*self._allowed_origins, origin])
            advice = f"to allow them, set CORS_ORIGINS={origins}"
        else:
            return
        if self._is_new(origin):
            logger.warning(f"pages of the origin {origin} may not use this API; {advice}")

    def _is_new(self, origin: str) -> bool:
        """Remember an origin. Return False if it is known, or if the memory is full."""
        size = self._DIGEST_BYTES
        digest = blake2b(origin.encode(), digest_size=size).digest()
        for start in range(0, len(self._digests), size):
            found = self._digests[start : start + size]
            if found == digest:
                return False
            if not any(found):
                self._digests[start : start + size] = digest
                return True
        return False


class CrossOrigin(CORSMiddleware):
    """Starlette's CORSMiddleware with ports `*`, a log of refused origins, and API errors.

    The response to an allowed origin's preflight request always succeeds. The browser compares it
    with the request, and names the method or header that is not allowed.

    Pages have no CORS headers. Browsers send the cookie of a page session with requests of all
    origins of the same site. So a front end could read personal pages and their form tokens.
    """

    def __init__(
        self,
        app: ASGIApp,
        /,
        *,
        refusals: RefusalLog,
        respond: ErrorResponder = NATIVE_RESPONDER,
        pages: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(app, **options)
        self._pages = frozenset(pages)
        self._below_pages = tuple(f"{path}/" for path in pages)
        self._refusals = refusals
        self._respond = respond

    def is_allowed_origin(self, origin: str) -> bool:
        return self.allow_all_origins or is_listed(origin, self.allow_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._check_socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not (origins := _values(scope, b"origin")):
            await self.app(scope, receive, _vary_by_origin(send))
            return
        if scope["path"] in self._pages or scope["path"].startswith(self._below_pages):
            await self.app(scope, receive, send)
            return
        origin = origins[0].decode("latin-1")
        headers = Headers(scope=scope)
        is_allowed = self.is_allowed_origin(origin)
        # Browsers also send Origin with requests to the page's own host.
        if not is_allowed and origin.partition("://")[2] != headers.get("host"):
            self._refusals.log(origin)
        if scope["method"] != "OPTIONS" or "access-control-request-method" not in headers:
            await super().__call__(scope, receive, send)
        elif is_allowed:
            asked = {"origin": origin, "access-control-request-method": "GET"}
            await self.preflight_response(Headers(asked))(scope, receive, send)
        else:
            message = "This origin is not allowed; add it to CORS_ORIGINS"
            response = self._respond(scope, InvalidRequest(message))
            response.headers["Vary"] = "Origin"
            await response(scope, receive, send)

    async def _check_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a WebSocket of a page of another origin, which browsers would allow."""
        for value in _values(scope, b"origin"):
            origin = value.decode("latin-1")
            is_own = origin.partition("://")[2] == Headers(scope=scope).get("host")
            if not is_own and not self.is_allowed_origin(origin):
                self._refusals.log(origin)
                error = CrossSiteSocket()
                await self._respond(scope, error)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _vary_by_origin(send: Send) -> Send:
    """Add `Origin` to Vary, as CORSMiddleware does, which would copy all headers."""

    async def send_with_vary(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            values = [value for name, value in headers if name == b"vary"]
            others = [each for each in headers if each[0] != b"vary"]
            message["headers"] = [*others, (b"vary", b", ".join([*values, b"Origin"]))]
        await send(message)

    return send_with_vary


class ErrorBoundary:
    """Logs unhandled exceptions with a traceback and answers 500.

    CORS and RequestContext wrap it, so that the response gets their headers too.
    """

    def __init__(self, app: ASGIApp, respond: ErrorResponder = NATIVE_RESPONDER) -> None:
        self.app = app
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def track_start(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, track_start)
        except Exception:
            logger.exception("unhandled exception", method=scope["method"])
            if started:  # the status is already sent: raising closes the connection
                raise
            await self._respond(scope, InternalError())(scope, receive, send)


class RequestRules:
    """Applies the rules for all requests.

    - Credentials in the query string are rejected, because URLs are logged and cached (RFC 6750
      §5.3).
    - HEAD is handled as GET, and the body is dropped (RFC 9110 §9.3.2).
    - `/articles/` is handled as `/articles`. A redirect would lose the body of a POST.
    - A path that ends with a line break is not found. Route patterns would match it.
    - A body over `max_bytes` is rejected, by Content-Length or while it is received. It ends a
      response that has started. `larger` maps a method and a path to a higher limit. Starlette 1.10
      has such a limit too, but it answers in plain text if no handler reads the body.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        larger: Mapping[tuple[str, str], int] | None = None,
        respond: ErrorResponder = NATIVE_RESPONDER,
    ) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.larger = larger or {}
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        original = scope
        if scope["type"] in _REQUESTS:
            try:
                if scope["type"] == "http":
                    scope, receive, send = self._apply(scope, receive, send)
                elif scope["query_string"]:
                    _reject_credentials(scope["query_string"])
            except PressroomError as error:
                await self._respond(scope, error)(scope, receive, send)
                return
        try:
            await self.app(scope, receive, send)
        finally:
            if scope is not original:  # for the metrics of RequestContext
                original.update({name: scope[name] for name in _ROUTED if name in scope})

    def _apply(self, scope: Scope, receive: Receive, send: Send) -> tuple[Scope, Receive, Send]:
        if scope["query_string"]:
            _reject_credentials(scope["query_string"])
        if scope["method"] == "HEAD":
            scope, send = {**scope, "method": "GET", HEAD: True}, _without_body(send)
        if len(scope["path"]) > 1 and scope["path"].endswith("/"):
            scope = {**scope, "path": scope["path"][:-1]}
        if scope["path"].endswith("\n"):
            raise NotFound
        if any(name in _BODY_HEADERS for name, _ in scope["headers"]):
            receive, send = self._limit_body(scope, receive, send)
        return scope, receive, send

    def _limit_body(self, scope: Scope, receive: Receive, send: Send) -> tuple[Receive, Send]:
        max_bytes = self.larger.get((scope["method"], scope["path"]), self.max_bytes)
        for value in _values(scope, b"content-length")[:1]:
            if not value.isdigit():
                raise InvalidRequest("Content-Length is not a number")
            if int(value[:20]) > max_bytes:
                raise _too_large(max_bytes)
        received, started = 0, False

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received <= max_bytes:
                return message
            if started:  # the status is already sent
                return {"type": "http.disconnect"}
            raise _too_large(max_bytes)

        async def track_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        return receive_within_limit, track_start


_ROUTED = ("route", "root_path", "app_root_path")
"""What routing adds to the scope."""
_BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})
"""RFC 9112 §6.3: a request without these headers has no body."""


def _reject_credentials(query_string: bytes) -> None:
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
