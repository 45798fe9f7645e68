"""Error pages, and forms that are shown again with their errors."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Message, Scope

from app.core.errors import (
    ArticleMoved,
    Conflict,
    ContentTooLarge,
    DatabaseFull,
    InvalidAccountToken,
    InvalidChallenge,
    InvalidCode,
    InvalidCredentials,
    InvalidInput,
    LimitReached,
    MethodNotAllowed,
    NotAuthenticated,
    NotAuthorized,
    NotFound,
    PreconditionFailed,
    PressroomError,
    RecentLoginRequired,
    TooManyAtOnce,
    TooManyAttempts,
    UnderMaintenance,
)
from app.core.logging import request_id
from app.http.errors import allowed_methods, cache_headers, headers_of, status_of
from app.http.routing import SAFE_METHODS
from app.web.csrf import ForeignRequest, InvalidFormToken
from app.web.forms import Form, FormError
from app.web.rendering import PRIVATE, Renderer, page
from app.web.routing import prepare, redirect

SIGN_IN = "/studio/sign-in"
CONFIRM = "/studio/confirm"
CORRECTABLE = (
    Conflict,
    ContentTooLarge,
    DatabaseFull,
    InvalidAccountToken,
    InvalidChallenge,
    InvalidCode,
    InvalidCredentials,
    InvalidInput,
    LimitReached,
    PreconditionFailed,
    TooManyAtOnce,
    TooManyAttempts,
    UnderMaintenance,
)
"""Errors after which the form is shown again."""
_FORWARDED_HEADERS = frozenset({b"accept-language", b"cookie", b"host", b"user-agent"})
"""Headers of a POST request with which the page of its form is rendered."""


def _is_form_error(error: Exception) -> bool:
    """Return whether the form is shown again. A plain NotAuthorized concerns the whole page."""
    if isinstance(error, NotAuthorized):
        return type(error) not in {NotAuthorized, ForeignRequest}
    return isinstance(error, (FormError, ValidationError, *CORRECTABLE))


async def handle_error(request: Request, error: Exception) -> Response:
    """Return the page for an error: sign-in, the form with its errors, or an error page."""
    is_read = request.method in SAFE_METHODS
    prepare(request, public=False)
    if isinstance(error, NotAuthenticated) and not isinstance(error, CORRECTABLE):
        return _to(SIGN_IN, request) if is_read else _repeat_page(request, error)
    if isinstance(error, RecentLoginRequired):
        return _to(CONFIRM, request) if is_read else _repeat_page(request, error)
    if isinstance(error, InvalidFormToken):
        return _repeat_page(request, error)
    if not is_read and _is_form_error(error):
        shown = await _show_form(request, error)
        if shown is not None:
            if isinstance(error, PressroomError) and error.retry_after is not None:
                shown.headers["Retry-After"] = str(error.retry_after)
            return shown
    if isinstance(error, ArticleMoved):
        return error_page(request, NotFound())
    if not isinstance(error, PressroomError):
        error = InvalidInput()
    return error_page(request, error)


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Handle Starlette's errors for unknown paths, wrong methods and invalid forms."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    prepare(request, public=False)
    if error.status_code == status_of(MethodNotAllowed):
        return error_page(request, MethodNotAllowed(), {"Allow": allowed_methods(request)})
    if error.status_code == status_of(NotFound):
        return error_page(request, NotFound())
    return error_page(request, InvalidInput(), status=error.status_code)


def error_page(
    request: Request,
    error: PressroomError,
    headers: dict[str, str] | None = None,
    *,
    status: int | None = None,
) -> Response:
    """Return the page of an error, with its status and headers."""
    status = status or status_of(type(error))
    given = {name: value for name, value in headers_of(error).items() if name == "Retry-After"}
    if hasattr(request.state, "status"):
        del request.state.status
    return page(
        request,
        "errors/error.html",
        status=status,
        headers={**cache_headers(status), **given, **(headers or {})},
        error=error,
        status_code=status,
        identifier=request_id(),
    )


def plain_error_page(renderer: Renderer) -> Callable[[PressroomError], Response]:
    """Return a function that renders an error outside of a route, for middleware."""

    def respond(error: PressroomError) -> Response:
        status = status_of(type(error))
        text = renderer.environment.get_template("errors/plain.html").render(
            error=error, status_code=status, identifier=request_id()
        )
        headers = {**renderer.headers, "Cache-Control": PRIVATE}
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        return Response(text, status, headers, media_type="text/html")

    return respond


def _to(path: str, request: Request) -> Response:
    """Redirect to a page that leads back to the current one."""
    query = request.url.query
    current = quote(request.url.path) + (f"?{query}" if query else "")
    return redirect(f"{path}?{urlencode({'next': current})}")


def _repeat_page(request: Request, error: PressroomError) -> Response:
    """Return a page that keeps what was typed, and can send it again after a sign-in.

    Another site may have sent the form if no header shows the origin. Then nothing is kept.
    """
    form: Form = getattr(request.state, "form", Form())
    is_ours = "sec-fetch-site" in request.headers or "origin" in request.headers
    return page(
        request,
        "errors/repeat.html",
        status=status_of(type(error)),
        error=error,
        fields=list(form.repeatable()) if is_ours else [],
        action=request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        sign_in=SIGN_IN if isinstance(error, NotAuthenticated) else CONFIRM,
        needs_session=not isinstance(error, InvalidFormToken),
        form_path=getattr(request.state, "form_page", request.url.path),
    )


async def _show_form(request: Request, error: Exception) -> Response | None:
    """Render the page of the form again, with its errors; return None if it has no page."""
    form: Form = request.state.form
    form.refuse(error)
    status = status_of(type(error)) if isinstance(error, PressroomError) else 422
    path = request.state.form_page
    state: dict[str, Any] = {**request.scope["state"], "status": status}
    scope: Scope = {
        "type": "http",
        "asgi": request.scope["asgi"],
        "http_version": request.scope["http_version"],
        "app": request.scope["app"],
        "client": request.scope.get("client"),
        "server": request.scope.get("server"),
        "scheme": request.scope["scheme"],
        "root_path": request.scope.get("root_path", ""),
        "method": "GET",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": request.scope["query_string"] if path == request.url.path else b"",
        "headers": [each for each in request.scope["headers"] if each[0] in _FORWARDED_HEADERS],
        "state": state,
    }
    start: Message = {}
    body = bytearray()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            body.extend(message.get("body", b""))

    try:
        await AsyncExitStackMiddleware(request.app.router)(scope, receive, send)
    except HTTPException as failure:
        if failure.status_code in {404, 405}:  # no page has this path
            return None
        raise
    except PressroomError as failure:
        return error_page(request, failure)
    response = Response(bytes(body), start["status"])
    response.raw_headers[:] = start["headers"]
    return response


def register_error_handlers(pages: FastAPI) -> None:
    """Register the handlers that answer with pages."""
    for kind in (PressroomError, FormError, ValidationError, RequestValidationError):
        pages.add_exception_handler(kind, handle_error)
    pages.add_exception_handler(HTTPException, handle_http_exception)
