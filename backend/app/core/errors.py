"""The error catalogue.

Services raise these errors. `http.errors` maps each to a status, headers and a body.
"""

from collections.abc import Mapping
from typing import ClassVar


class PressroomError(Exception):
    """An expected failure with an error code and a message.

    `code` is stable, so clients may compare it. `message` may change at any time.
    """

    code: ClassVar[str] = "error"
    message: ClassVar[str] = "The request failed"
    retry_after: int | None = None
    """After how many seconds another attempt may succeed, where that is known."""

    def __init__(
        self, message: str | None = None, *, extra: Mapping[str, str] | None = None
    ) -> None:
        """Add `extra` to the fields of the error."""
        super().__init__(message or self.message)
        self.extra: Mapping[str, str] = extra or {}


class ArticleMoved(PressroomError):
    """A former slug of an article; `slug` is the current one."""

    code, message = "article_moved", "The article has a new slug"

    def __init__(self, *, slug: str = "") -> None:
        super().__init__(extra={"moved_to": slug})
        self.slug = slug


class InvalidRequest(PressroomError):
    """RFC 9110 §15.5.1: the server cannot process the request because of a client error."""

    code, message = "invalid_request", "The request is malformed"


class UnknownHost(InvalidRequest):
    code, message = "unknown_host", "This host is not served here"


class CredentialsInQuery(InvalidRequest):
    """RFC 6750 §5.3: URLs are logged and cached, so they must not contain tokens."""

    code = "credentials_in_query"
    message = "Send the access token in the Authorization header, not in the URL"


class InvalidAccountToken(InvalidRequest):
    """The token is unknown, used, expired or for another purpose; the response hides which."""

    code = "invalid_account_token"
    message = "This link is no longer valid; request a new one"


class NotAuthenticated(PressroomError):
    code, message = "not_authenticated", "Not authenticated"


class InvalidCredentials(NotAuthenticated):
    code, message = "invalid_credentials", "Incorrect username or password"


class SecondFactorRequired(NotAuthenticated):
    """The password is correct; the client sends a code with the `challenge` of the body."""

    code = "second_factor_required"
    message = "Send the code from your authenticator app together with this challenge"

    def __init__(self, challenge: str | None = None) -> None:
        super().__init__(extra={"challenge": challenge or ""})


class InvalidChallenge(NotAuthenticated):
    code, message = "invalid_challenge", "The challenge is no longer valid; sign in again"


class InvalidCode(NotAuthenticated):
    code, message = "invalid_code", "Incorrect code"


class InvalidRefreshToken(NotAuthenticated):
    """The token is unknown, used, expired or revoked: the user must log in again."""

    code, message = "invalid_refresh_token", "The session has ended; sign in again"


class InvalidToken(NotAuthenticated):
    """RFC 6750 §3.1."""

    code, message = "invalid_token", "Could not validate credentials"


class TokenExpired(InvalidToken):
    code, message = "token_expired", "The access token has expired"


class TokenRevoked(InvalidToken):
    code, message = "token_revoked", "The session has ended; sign in again"


class NotAuthorized(PressroomError):
    code, message = "not_authorized", "Not authorized"


class SessionRequired(NotAuthorized):
    code, message = "session_required", "This action requires a login session"


class InsufficientScope(NotAuthorized):
    """RFC 6750 §3.1: the API key does not have the required scope."""

    code, message = "insufficient_scope", "The API key lacks a scope"

    def __init__(self, scope: str | None = None) -> None:
        super().__init__(scope and f"The API key lacks the scope {scope}")
        self.scope = scope


class CrossSiteRequest(NotAuthorized):
    code = "cross_site_request"
    message = "Signing in from this origin is not allowed; add the origin to CORS_ORIGINS"


class CrossSiteSocket(NotAuthorized):
    """A page of an origin that is not in CORS_ORIGINS opens a WebSocket."""

    code = "cross_site_socket"
    message = "Sockets of this origin are not allowed; add the origin to CORS_ORIGINS"


class PasswordRequired(NotAuthorized):
    code = "password_required"
    message = "Changing your email requires your password"


class IncorrectPassword(NotAuthorized):
    code, message = "incorrect_password", "Incorrect password"


class IncorrectCode(NotAuthorized):
    code, message = "incorrect_code", "Incorrect code"


class EmailNotVerified(NotAuthorized):
    code, message = "email_not_verified", "Verify your email before you publish"


class RecentLoginRequired(NotAuthorized):
    code = "recent_login_required"
    message = "This action requires a recent sign-in; sign in again"


class FollowRefused(NotAuthorized):
    code, message = (
        "follow_refused",
        "You cannot follow this user: one of you has blocked the other",
    )


class CommentsClosed(NotAuthorized):
    code, message = "comments_closed", "Comments on this article are closed"


class ThreadLocked(NotAuthorized):
    code, message = "thread_locked", "This thread is locked and does not accept replies"


class EditWindowOver(NotAuthorized):
    code = "edit_window_over"
    message = "Comments can be edited for 15 minutes only; delete the comment or write a new one"


class NotFound(PressroomError):
    code, message = "not_found", "Not found"


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


class WebhookNotFound(NotFound):
    code, message = "webhook_not_found", "Webhook not found"


class DeliveryNotFound(NotFound):
    code, message = "delivery_not_found", "Delivery not found"


class TagNotFound(NotFound):
    code, message = "tag_not_found", "Tag not found"


class RevisionNotFound(NotFound):
    code, message = "revision_not_found", "Revision not found"


class PreviewLinkNotFound(NotFound):
    code, message = "preview_link_not_found", "Preview link not found"


class PreviewNotFound(NotFound):
    """The link is unknown, expired or revoked; the response hides which."""

    code, message = "preview_not_found", "This preview is no longer available"


class MediaNotFound(NotFound):
    code, message = "media_not_found", "Media not found"


class CommentNotFound(NotFound):
    code, message = "comment_not_found", "Comment not found"


class ReportNotFound(NotFound):
    code, message = "report_not_found", "Report not found"


class ImportNotFound(NotFound):
    code, message = "import_not_found", "Import not found"


class JobNotFound(NotFound):
    code, message = "job_not_found", "There is no such job"


class MailNotFound(NotFound):
    code, message = "mail_not_found", "Mail not found"


class MethodNotAllowed(PressroomError):
    code, message = "method_not_allowed", "Method not allowed"


class RequestTimedOut(PressroomError):
    """RFC 9110 §15.5.9: an upload or an import took too long."""

    code, message = "request_timed_out", "The transfer took too long"


class SlowReader(RequestTimedOut):
    """A stream or a socket was closed, because its client did not read."""

    code = "slow_reader"
    message = "You did not read fast enough; connect again with the last cursor"


class Conflict(PressroomError):
    code, message = "conflict", "The change conflicts with stored data"


class EmailTaken(Conflict):
    code, message = "email_taken", "Email already exists"


class UsernameTaken(Conflict):
    code, message = "username_taken", "Username already exists"


class LastAdmin(Conflict):
    code, message = "last_admin", "This is the last administrator; make another user one first"


class AlreadySetUp(Conflict):
    code, message = "already_set_up", "This site already has an administrator; sign in"


class SecondFactorEnabled(Conflict):
    code, message = "second_factor_enabled", "The second factor is already enabled"


class SecondFactorNotEnabled(Conflict):
    code, message = "second_factor_not_enabled", "The second factor is not enabled"


class TooManyApiKeys(Conflict):
    code, message = "too_many_api_keys", "Delete an API key before you create another"


class TooManyWebhooks(Conflict):
    code, message = "too_many_webhooks", "Delete a webhook before you create another"


class DeliveryPending(Conflict):
    code, message = "delivery_pending", "The delivery is pending: it is sent anyway"


class TooManyPreviewLinks(Conflict):
    code = "too_many_preview_links"
    message = "Revoke a preview link of this article before you create another"


class SlugTaken(Conflict):
    code, message = "slug_taken", "Another article has this slug"


class RequestInProgress(Conflict):
    """A request with the same Idempotency-Key is still running."""

    code = "request_in_progress"
    message = "A request with this Idempotency-Key is in progress; try again in a moment"
    retry_after = 1


class AlreadyCarriedOut(Conflict):
    """A repeated request whose response was not stored and whose resource is gone."""

    code = "already_carried_out"
    message = (
        "The request with this Idempotency-Key was already processed; the resource that it created "
        "is no longer available"
    )


class ImportInProgress(Conflict):
    """A user has one import at a time."""

    code = "import_in_progress"
    message = "Your previous import is running: wait until it has finished, or cancel it"
    retry_after = 5


class JobAlreadyRunning(Conflict):
    """An administrator's run of the job has not ended."""

    code = "job_already_running"
    message = "A requested run of this job is in progress; wait until it has ended"


class MailNotRetryable(Conflict):
    code = "mail_not_retryable"
    message = "Only a failed mail of the last day can be sent again"


class MailNotCancellable(Conflict):
    code, message = "mail_not_cancellable", "Only a mail that waits for delivery can be cancelled"


class MediaInUse(Conflict):
    code = "media_in_use"
    message = "An article or your profile uses this image; remove it there first"


class QuotaExceeded(Conflict):
    """A limit on a total is reached; `limit` in the body is its kind."""

    code = "quota_exceeded"
    message = "You have reached a limit on the total amount; delete something first"

    def __init__(self, message: str | None = None, *, limit: str = "") -> None:
        super().__init__(message, extra={"limit": limit})


class AlreadyReported(Conflict):
    code, message = "already_reported", "You have already reported this"


class PreconditionFailed(PressroomError):
    """RFC 9110 §15.5.13: the resource has changed. The ETag header has the current version."""

    code = "precondition_failed"
    message = "The resource has changed since you read it; read it again and repeat your change"

    def __init__(self, *, etag: str = "") -> None:
        super().__init__()
        self.etag = etag


class ContentTooLarge(PressroomError):
    code, message = "content_too_large", "The request body is too large"


class UnsupportedMediaType(PressroomError):
    code = "unsupported_media_type"
    message = "Send the body as JSON, with Content-Type: application/json"


class RangeNotSatisfiable(PressroomError):
    """RFC 9110 §15.5.17."""

    code, message = "range_not_satisfiable", "The range is outside the file"

    def __init__(self, *, size: int = 0) -> None:
        super().__init__()
        self.size = size


class InvalidInput(PressroomError):
    """Invalid input that a schema cannot detect; schemas raise RequestValidationError."""

    code, message = "validation_error", "The input is invalid"


class InvalidCursor(InvalidInput):
    """The cursor is malformed or belongs to another list."""

    code, message = "invalid_cursor", "This cursor is not valid for this list; start without one"


class ContentTooComplex(InvalidInput):
    code, message = "content_too_complex", "The Markdown is nested too deeply to be rendered"


class IdempotencyKeyReused(InvalidInput):
    code = "idempotency_key_reused"
    message = "This Idempotency-Key was used with a different request; use a new one"


class InvalidMedia(InvalidInput):
    code, message = "invalid_media", "Not an image: send JPEG, PNG, WebP, GIF or AVIF"


class PreconditionRequired(PressroomError):
    """RFC 6585 §3."""

    code = "precondition_required"
    message = "Send If-Match with the current ETag"


class TooManyAttempts(PressroomError):
    """RFC 6585 §4."""

    code, message = "too_many_attempts", "Too many attempts; try again later"

    def __init__(self, *, retry_after: int = 1) -> None:
        """`retry_after` in whole seconds."""
        super().__init__()
        self.retry_after = retry_after


class TooManyAtOnce(PressroomError):
    """RFC 6585 §4: the user has too many requests in progress."""

    code, message = "too_many_at_once", "You have too many requests in progress"
    retry_after = 1


class TooManyConnections(TooManyAtOnce):
    """The user has too many streams and sockets."""

    code = "too_many_connections"
    message = "You have too many open streams and sockets; close one first"
    retry_after = 10


class LimitReached(PressroomError):
    """RFC 6585 §4: a rate limit is reached; `limit` in the body is its kind."""

    code = "limit_reached"
    message = "You have reached a rate limit; try again later"

    def __init__(
        self, message: str | None = None, *, limit: str = "", retry_after: int = 1
    ) -> None:
        """`retry_after` in whole seconds."""
        super().__init__(message, extra={"limit": limit})
        self.retry_after = retry_after


class InternalError(PressroomError):
    """An unhandled exception. Only the log contains the cause."""

    code, message = "internal_error", "Internal server error"


class ServiceUnavailable(PressroomError):
    code, message = "service_unavailable", "The database is not available"
    retry_after = 5


class DatabaseFull(ServiceUnavailable):
    """PostgreSQL could not store a change. Reading goes on until somebody frees its disk."""

    code, message = "database_full", "The disk of the database is full; changes are not possible"
    retry_after = 60


class UnderMaintenance(ServiceUnavailable):
    """Writes are refused until an administrator ends the maintenance."""

    code, message = "maintenance", "The server is in maintenance; changes are not possible"
    retry_after = 60


class StreamsFull(ServiceUnavailable):
    """The process has as many streams and sockets as LIVE_CONNECTIONS allows."""

    code, message = "streams_full", "This server has no room for more streams; try again later"


class ServerStopping(ServiceUnavailable):
    """A stream or a socket ends, because the process stops. Another one is ready."""

    code, message = "server_stopping", "The server restarts; connect again"
    retry_after = 1
