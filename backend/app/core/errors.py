"""The catalogue of errors, and the one shape in which an edge answers with them.

PressroomError (an HTTPException)
├── ArticleMoved 301
├── InvalidRequest 400
│   ├── UnknownHost, CredentialsInQuery, InvalidAccountToken
├── NotAuthenticated 401
│   ├── InvalidCredentials, SecondFactorRequired, InvalidChallenge, InvalidCode
│   ├── InvalidRefreshToken
│   └── InvalidToken
│       └── TokenExpired, TokenRevoked
├── NotAuthorized 403
│   ├── SessionRequired, InsufficientScope, CrossSiteRequest
│   ├── PasswordRequired, IncorrectPassword, IncorrectCode, EmailNotVerified
│   ├── RecentLoginRequired, FollowRefused, CommentsClosed, ThreadLocked, EditWindowOver
├── NotFound 404
│   ├── UserNotFound, AddressNotFound, ArticleNotFound, SessionNotFound, ApiKeyNotFound
│   ├── TagNotFound, RevisionNotFound, PreviewLinkNotFound, PreviewNotFound, MediaNotFound
│   ├── CommentNotFound, ReportNotFound
├── MethodNotAllowed 405
├── RequestTimedOut 408
├── Conflict 409
│   ├── EmailTaken, UsernameTaken, LastAdmin
│   ├── SecondFactorEnabled, SecondFactorNotEnabled, TooManyApiKeys
│   ├── SlugTaken, RequestInProgress, MediaInUse, QuotaExceeded, TooManyPreviewLinks
│   ├── AlreadyReported, AlreadyCarriedOut
├── PreconditionFailed 412
├── ContentTooLarge 413
├── UnsupportedMediaType 415
├── RangeNotSatisfiable 416
├── InvalidInput 422
│   ├── InvalidCursor, ContentTooComplex, IdempotencyKeyReused, InvalidMedia
├── PreconditionRequired 428
├── TooManyAttempts, TooManyAtOnce, LimitReached 429
├── InternalError 500
└── ServiceUnavailable 503

Services raise them; `error_response` turns each into the body of docs/architecture.md.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.core.logging import request_id

RETRY_AFTER_SECONDS = 5
MAX_NAME = 100
MAX_FINDINGS = 20
"""How many things that are wrong with one request are listed: enough to mend it."""


class PressroomError(HTTPException):
    """An expected failure: its status, its sentence for people and its code for programs.

    `code` is stable: clients may compare it. `message` may be reworded at any time.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "error"
    message: ClassVar[str] = "The request failed"
    response_headers: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        message: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        """`headers` come on top of the class's own, `extra` on top of the body's fields."""
        super().__init__(
            self.status, message or self.message, {**self.response_headers, **(headers or {})}
        )
        self.extra: Mapping[str, str] = extra or {}


class ArticleMoved(PressroomError):
    """A slug that the article had before; `moved_to` in the body is the one that it has now."""

    status, code, message = 301, "article_moved", "The article has another slug now"

    def __init__(self, *, slug: str = "", location: str = "") -> None:
        super().__init__(headers={"Location": location}, extra={"moved_to": slug})


class InvalidRequest(PressroomError):
    """RFC 9110 §15.5.1: the server will not process what the client sent."""

    status, code, message = 400, "invalid_request", "The request is malformed"


class UnknownHost(InvalidRequest):
    code, message = "unknown_host", "This host is not served here"


class CredentialsInQuery(InvalidRequest):
    """URLs are logged and cached: RFC 6750 §5.3 says to keep tokens out of them."""

    code = "credentials_in_query"
    message = "Send the access token in the Authorization header, not in the URL"


class InvalidAccountToken(InvalidRequest):
    """Unknown, used, expired, or for another purpose: its bearer need not know which."""

    code = "invalid_account_token"
    message = "This link is not valid any more; ask for a new one"


class NotAuthenticated(PressroomError):
    status, code, message = 401, "not_authenticated", "Not authenticated"
    response_headers: ClassVar = {"WWW-Authenticate": "Bearer"}


class InvalidCredentials(NotAuthenticated):
    code, message = "invalid_credentials", "Incorrect username or password"


class SecondFactorRequired(NotAuthenticated):
    """The password was right; `challenge` in the body is what the code is sent with."""

    code = "second_factor_required"
    message = "Send the code from your authenticator with this challenge"

    def __init__(self, challenge: str | None = None) -> None:
        super().__init__(
            headers={"Cache-Control": "no-store"}, extra={"challenge": challenge or ""}
        )


class InvalidChallenge(NotAuthenticated):
    code, message = "invalid_challenge", "The challenge is not valid any more; log in again"


class InvalidCode(NotAuthenticated):
    code, message = "invalid_code", "Incorrect code"


class InvalidRefreshToken(NotAuthenticated):
    """Unknown, used, expired or revoked: either way, only logging in helps."""

    code, message = "invalid_refresh_token", "The session has ended; log in again"


class InvalidToken(NotAuthenticated):
    """RFC 6750 §3.1."""

    code, message = "invalid_token", "Could not validate credentials"
    response_headers: ClassVar = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class TokenExpired(InvalidToken):
    code, message = "token_expired", "The access token has expired"


class TokenRevoked(InvalidToken):
    code, message = "token_revoked", "The session has ended; log in again"


class NotAuthorized(PressroomError):
    status, code, message = 403, "not_authorized", "Not authorized"


class SessionRequired(NotAuthorized):
    code, message = "session_required", "Log in to do this; an API key does not do"


class InsufficientScope(NotAuthorized):
    """RFC 6750 §3.1: the API key lacks a scope."""

    code, message = "insufficient_scope", "The API key lacks a scope"
    response_headers: ClassVar = {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}

    def __init__(self, scope: str | None = None) -> None:
        if scope is None:
            super().__init__()
        else:
            challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
            super().__init__(
                f"The API key lacks the scope {scope}", headers={"WWW-Authenticate": challenge}
            )


class CrossSiteRequest(NotAuthorized):
    code = "cross_site_request"
    message = "This page may not log in here; the operator can name its origin in CORS_ORIGINS"


class PasswordRequired(NotAuthorized):
    code = "password_required"
    message = "Changing your email takes your password: use POST /users/me/email"


class IncorrectPassword(NotAuthorized):
    code, message = "incorrect_password", "Incorrect password"


class IncorrectCode(NotAuthorized):
    code, message = "incorrect_code", "Incorrect code"


class EmailNotVerified(NotAuthorized):
    code, message = "email_not_verified", "Verify your email before you publish"


class RecentLoginRequired(NotAuthorized):
    code = "recent_login_required"
    message = "Log in again to change this: your login is too long ago"


class FollowRefused(NotAuthorized):
    code, message = (
        "follow_refused",
        "You cannot follow this user: one of you has blocked the other",
    )


class CommentsClosed(NotAuthorized):
    code, message = "comments_closed", "This article takes no comments"


class ThreadLocked(NotAuthorized):
    code, message = "thread_locked", "This thread is locked: it takes no replies"


class EditWindowOver(NotAuthorized):
    code = "edit_window_over"
    message = "A comment can be changed for 15 minutes; delete it, or write another"


class NotFound(PressroomError):
    status, code, message = 404, "not_found", "Not found"


class UserNotFound(NotFound):
    code, message = "user_not_found", "User not found"


class AddressNotFound(NotFound):
    code, message = "address_not_found", "Address not found"


class ArticleNotFound(NotFound):
    code, message = "article_not_found", "Article not found"


class SessionNotFound(NotFound):
    code, message = "session_not_found", "Session not found"


class ApiKeyNotFound(NotFound):
    code, message = "api_key_not_found", "API key not found"


class TagNotFound(NotFound):
    code, message = "tag_not_found", "Tag not found"


class RevisionNotFound(NotFound):
    code, message = "revision_not_found", "Revision not found"


class PreviewLinkNotFound(NotFound):
    code, message = "preview_link_not_found", "Preview link not found"


class PreviewNotFound(NotFound):
    """Unknown, expired or revoked: whoever has the link need not know which."""

    code, message = "preview_not_found", "This preview is not available any more"


class MediaNotFound(NotFound):
    code, message = "media_not_found", "Media not found"


class CommentNotFound(NotFound):
    code, message = "comment_not_found", "Comment not found"


class ReportNotFound(NotFound):
    code, message = "report_not_found", "Report not found"


class MethodNotAllowed(PressroomError):
    status, code, message = 405, "method_not_allowed", "Method not allowed"


class RequestTimedOut(PressroomError):
    """RFC 9110 §15.5.9: the request, an upload or an import, took too long to arrive."""

    status, code, message = 408, "request_timed_out", "The transfer took too long"


class Conflict(PressroomError):
    status, code, message = 409, "conflict", "The change conflicts with what is stored"


class EmailTaken(Conflict):
    code, message = "email_taken", "Email already exists"


class UsernameTaken(Conflict):
    code, message = "username_taken", "Username already exists"


class LastAdmin(Conflict):
    code, message = "last_admin", "This is the last administrator; appoint another one first"


class SecondFactorEnabled(Conflict):
    code, message = "second_factor_enabled", "The second factor is enabled already"


class SecondFactorNotEnabled(Conflict):
    code, message = "second_factor_not_enabled", "The second factor is not enabled"


class TooManyApiKeys(Conflict):
    code, message = "too_many_api_keys", "Delete an API key before you create another"


class TooManyPreviewLinks(Conflict):
    code = "too_many_preview_links"
    message = "Revoke a preview link of this article before you make another"


class SlugTaken(Conflict):
    code, message = "slug_taken", "Another article has this slug"


class RequestInProgress(Conflict):
    """A request with the same Idempotency-Key has not been answered yet."""

    code = "request_in_progress"
    message = "A request with this Idempotency-Key is being worked on; try again in a moment"


class AlreadyCarriedOut(Conflict):
    """A repeated request: its answer was too large to store, and what it created cannot be read."""

    code = "already_carried_out"
    message = (
        "The request with this Idempotency-Key was carried out; what it created is no longer "
        "available"
    )


class MediaInUse(Conflict):
    code = "media_in_use"
    message = "An article or your profile shows this picture; take it out there first"


class QuotaExceeded(Conflict):
    """A limit on a total is reached; `limit` in the body is its kind."""

    code = "quota_exceeded"
    message = "A limit on how much you may have is reached; delete some of it first"

    def __init__(self, message: str | None = None, *, limit: str = "") -> None:
        super().__init__(message, extra={"limit": limit})


class AlreadyReported(Conflict):
    code, message = "already_reported", "You have reported this already"


class PreconditionFailed(PressroomError):
    """RFC 9110 §15.5.13: somebody else was faster. The ETag is the current version's."""

    status, code = 412, "precondition_failed"
    message = "It has changed since you read it; read it again and repeat your change"

    def __init__(self, *, etag: str = "") -> None:
        super().__init__(headers={"ETag": etag} if etag else None)


class ContentTooLarge(PressroomError):
    status, code, message = 413, "content_too_large", "The request body is too large"


class UnsupportedMediaType(PressroomError):
    status, code = 415, "unsupported_media_type"
    message = "Send the body as JSON, with Content-Type: application/json"


class RangeNotSatisfiable(PressroomError):
    """RFC 9110 §15.5.17."""

    status, code, message = 416, "range_not_satisfiable", "The file has no such part"

    def __init__(self, *, size: int = 0) -> None:
        super().__init__(headers={"Content-Range": f"bytes */{size}"})


class InvalidInput(PressroomError):
    """For what only the database can see; a schema's refusals are RequestValidationErrors."""

    status, code, message = 422, "validation_error", "The input is invalid"


class InvalidCursor(InvalidInput):
    """Not one of ours, or of another list: follow the links of this one."""

    code, message = "invalid_cursor", "This cursor does not belong to this list; start without one"


class ContentTooComplex(InvalidInput):
    code, message = "content_too_complex", "The Markdown is nested too deeply to be rendered"


class IdempotencyKeyReused(InvalidInput):
    code = "idempotency_key_reused"
    message = "This Idempotency-Key came with another request before; choose a new one"


class InvalidMedia(InvalidInput):
    code, message = "invalid_media", "Not a picture: send JPEG, PNG, WebP, GIF or AVIF"


class PreconditionRequired(PressroomError):
    """RFC 6585 §3."""

    status, code = 428, "precondition_required"
    message = "Say which version you change: send its ETag as If-Match"


class TooManyAttempts(PressroomError):
    """RFC 6585 §4."""

    status, code, message = 429, "too_many_attempts", "Too many attempts; try again later"

    def __init__(self, *, retry_after: int = 1) -> None:
        """`retry_after` in whole seconds."""
        super().__init__(headers={"Retry-After": str(retry_after)})


class TooManyAtOnce(PressroomError):
    """RFC 6585 §4: the user must wait until their other requests are answered."""

    status, code, message = 429, "too_many_at_once", "You have too many requests in progress"
    response_headers: ClassVar = {"Retry-After": "1"}


class LimitReached(PressroomError):
    """RFC 6585 §4: a limit on a rate is reached; `limit` in the body is its kind."""

    status, code = 429, "limit_reached"
    message = "A limit on how often you may do this is reached; try again later"

    def __init__(
        self, message: str | None = None, *, limit: str = "", retry_after: int = 1
    ) -> None:
        """`retry_after` in whole seconds."""
        super().__init__(message, headers={"Retry-After": str(retry_after)}, extra={"limit": limit})


class InternalError(PressroomError):
    """An unhandled exception: says nothing about the cause, which the log has."""

    status, code, message = 500, "internal_error", "Internal server error"


class ServiceUnavailable(PressroomError):
    status, code, message = 503, "service_unavailable", "The database is not available"
    response_headers: ClassVar = {"Retry-After": str(RETRY_AFTER_SECONDS)}


_BY_STATUS: Mapping[int, type[PressroomError]] = {
    error.status: error
    for error in (
        InvalidRequest,
        NotAuthenticated,
        NotAuthorized,
        NotFound,
        MethodNotAllowed,
        ContentTooLarge,
        UnsupportedMediaType,
        InvalidInput,
        TooManyAttempts,
        ServiceUnavailable,
    )
}
"""For errors that Starlette raises: our code for their status."""


def error_body(
    *,
    message: str,
    code: str,
    detail: str | Sequence[Mapping[str, Any]] | None = None,
    identifier: str | None = None,
    extra: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The one shape of every error.

    `detail` is the message unless there is more to say; `identifier` is this request's id, unless
    what went wrong never became a request; `extra` is what only one kind of error has.
    """
    return {
        "success": False,
        "message": message,
        "detail": message if detail is None else detail,
        "code": code,
        "request_id": identifier or request_id(),
        **(extra or {}),
    }


def error_response(
    status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """Render an error body, which no cache keeps unless `headers` say so.

    Lone surrogates, which a client's JSON may carry, become `?`.
    """
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(content, status, headers, media_type="application/json")


def pressroom_error_response(error: PressroomError) -> Response:
    """Answer with an error of the catalogue; for middleware, which no handler serves."""
    body = error_body(message=str(error.detail), code=error.code, extra=error.extra)
    return error_response(error.status, body, error.headers)


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Errors of the catalogue, and Starlette's own: unknown path, wrong method, broken form."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    if isinstance(error, PressroomError):
        return pressroom_error_response(error)
    known = _BY_STATUS.get(error.status_code, PressroomError)
    # Starlette's own 404 and 405 say no more than ours; its 400 says what is wrong with a form.
    message = str(error.detail) if known in {InvalidRequest, PressroomError} else known.message
    headers = dict(error.headers or {})
    if known is MethodNotAllowed:
        headers["Allow"] = allowed_methods(request) or headers.get("Allow", "")
    return error_response(error.status_code, error_body(message=message, code=known.code), headers)


def allowed_methods(request: Request) -> str:
    """RFC 9110 §15.5.6: all methods of the path, where Starlette names those of its first route."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    matching = [
        route
        for route in iter_route_contexts(request.app.routes)
        if route.methods and route.path_regex.match(path)
    ]
    methods = {
        method
        for route in matching
        if route.path == matching[0].path
        for method in route.methods or ()
    }
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods))


async def handle_validation_error(request: Request, error: Exception) -> Response:
    """422 with FastAPI's list of findings, without the rejected input: it may be a password."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class alone
    findings = [
        {"loc": _place(finding), "msg": sentence(finding), "type": finding["type"]}
        for finding in error.errors()[:MAX_FINDINGS]
    ]
    where = ".".join(map(str, findings[0]["loc"])) if findings else "request"
    what = findings[0]["msg"] if findings else "invalid"
    body = error_body(
        message=f"{InvalidInput.message}: {where}: {what}", code=InvalidInput.code, detail=findings
    )
    return error_response(InvalidInput.status, body)


def _place(finding: Mapping[str, Any]) -> list[str | int]:
    """Where; a name that the client made up is not repeated in full."""
    return [part if isinstance(part, int) else str(part)[:MAX_NAME] for part in finding["loc"]]


def sentence(finding: Mapping[str, Any]) -> str:
    """What is wrong; for broken JSON, FastAPI has the reason apart from its message."""
    message = str(finding["msg"]).removeprefix("Value error, ")
    if finding["type"] in {"too_short", "too_long"} and finding["ctx"]["field_type"] == "Value":
        return message.replace("items after validation", "characters")  # of a SecretStr
    if finding["type"] == "json_invalid":
        return f"{message}: {finding['ctx']['error']}"
    return message


def register_error_handlers(app: FastAPI) -> None:
    """Give an application the native error shape; a mounted one needs its own handlers."""
    app.add_exception_handler(HTTPException, handle_http_exception)
    app.add_exception_handler(RequestValidationError, handle_validation_error)
