"""Audit trail: actions that the services record, and their messages."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import Table, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import COMMAND_LINE
from app.core import clock, metrics
from app.core.logging import request_id
from app.core.plurals import counted
from app.db.session import BEFORE_COMMIT, COMMIT_LOG
from app.db.writing import fetch
from app.models.audit import AuditEvent


class AuditAction(StrEnum):
    """Recorded actions."""

    CREATE_USER = "CREATE_USER"
    UPDATE_USER = "UPDATE_USER"
    DELETE_USER = "DELETE_USER"
    CREATE_ADDRESS = "CREATE_ADDRESS"
    UPDATE_ADDRESS = "UPDATE_ADDRESS"
    DELETE_ADDRESS = "DELETE_ADDRESS"
    LOGIN = "LOGIN"
    LOGIN_FAILED = "LOGIN_FAILED"
    LOGOUT = "LOGOUT"
    LOGOUT_ALL = "LOGOUT_ALL"
    REVOKE_SESSION = "REVOKE_SESSION"
    REFRESH_REUSED = "REFRESH_REUSED"
    CHANGE_ROLE = "CHANGE_ROLE"
    DISABLE_USER = "DISABLE_USER"
    ENABLE_USER = "ENABLE_USER"
    CHANGE_LIMITS = "CHANGE_LIMITS"
    CHANGE_PASSWORD = "CHANGE_PASSWORD"  # noqa: S105 - an action
    RESET_PASSWORD = "RESET_PASSWORD"  # noqa: S105 - an action
    MAIL_PASSWORD_RESET = "MAIL_PASSWORD_RESET"  # noqa: S105 - an action
    RESET_LOGIN_LIMITS = "RESET_LOGIN_LIMITS"
    DELETE_LOGIN_LIMITS = "DELETE_LOGIN_LIMITS"
    CHANGE_EMAIL = "CHANGE_EMAIL"
    VERIFY_EMAIL = "VERIFY_EMAIL"
    ENABLE_SECOND_FACTOR = "ENABLE_SECOND_FACTOR"
    DISABLE_SECOND_FACTOR = "DISABLE_SECOND_FACTOR"
    RENEW_RECOVERY_CODES = "RENEW_RECOVERY_CODES"
    USE_RECOVERY_CODE = "USE_RECOVERY_CODE"
    CREATE_API_KEY = "CREATE_API_KEY"
    DELETE_API_KEY = "DELETE_API_KEY"
    CREATE_ARTICLE = "CREATE_ARTICLE"
    UPDATE_ARTICLE = "UPDATE_ARTICLE"
    PUBLISH_ARTICLE = "PUBLISH_ARTICLE"
    UNPUBLISH_ARTICLE = "UNPUBLISH_ARTICLE"
    SCHEDULE_ARTICLE = "SCHEDULE_ARTICLE"
    DELETE_ARTICLE = "DELETE_ARTICLE"
    UPDATE_TAG = "UPDATE_TAG"
    MERGE_TAG = "MERGE_TAG"
    DELETE_TAG = "DELETE_TAG"
    CREATE_PREVIEW_LINK = "CREATE_PREVIEW_LINK"
    DELETE_PREVIEW_LINK = "DELETE_PREVIEW_LINK"
    RESTORE_ARTICLE = "RESTORE_ARTICLE"
    PURGE_ARTICLE = "PURGE_ARTICLE"
    CREATE_MEDIA = "CREATE_MEDIA"
    UPDATE_MEDIA = "UPDATE_MEDIA"
    DELETE_MEDIA = "DELETE_MEDIA"
    IMPORT_ARTICLES = "IMPORT_ARTICLES"
    REASSIGN_ARTICLES = "REASSIGN_ARTICLES"
    CREATE_COMMENT = "CREATE_COMMENT"
    UPDATE_COMMENT = "UPDATE_COMMENT"
    DELETE_COMMENT = "DELETE_COMMENT"
    SHOW_COMMENT = "SHOW_COMMENT"
    HIDE_COMMENT = "HIDE_COMMENT"
    LOCK_COMMENT = "LOCK_COMMENT"
    UNLOCK_COMMENT = "UNLOCK_COMMENT"
    CREATE_REPORT = "CREATE_REPORT"
    UPDATE_REPORT = "UPDATE_REPORT"
    RECOUNT_COUNTERS = "RECOUNT_COUNTERS"
    REQUEUE_MAILS = "REQUEUE_MAILS"
    CANCEL_MAIL = "CANCEL_MAIL"
    RUN_JOB = "RUN_JOB"
    CREATE_WEBHOOK = "CREATE_WEBHOOK"
    UPDATE_WEBHOOK = "UPDATE_WEBHOOK"
    DELETE_WEBHOOK = "DELETE_WEBHOOK"
    ROTATE_WEBHOOK = "ROTATE_WEBHOOK"
    DISABLE_WEBHOOK = "DISABLE_WEBHOOK"
    BEGIN_MAINTENANCE = "BEGIN_MAINTENANCE"
    END_MAINTENANCE = "END_MAINTENANCE"


_VERBS = {
    "CREATE": "created",
    "UPDATE": "updated",
    "DELETE": "deleted",
    "MERGE": "merged into another",
    "PUBLISH": "published",
    "UNPUBLISH": "unpublished",
    "SCHEDULE": "scheduled",
    "RESTORE": "restored",
    "PURGE": "permanently deleted",
    "IMPORT": "imported",
    "REASSIGN": "reassigned to another author",
    "SHOW": "made visible",
    "HIDE": "hidden",
    "LOCK": "locked for replies",
    "UNLOCK": "unlocked for replies",
    "LOGIN": "logged in",
    "LOGIN_FAILED": "failed to log in",
    "LOGOUT": "logged out",
    "LOGOUT_ALL": "logged out everywhere",
    "REVOKE_SESSION": "ended",
    "REFRESH_REUSED": "lost a session because a refresh token was reused",
    "CHANGE_ROLE": "got a new role",
    "CHANGE_LIMITS": "got new limits",
    "DISABLE_USER": "disabled",
    "ENABLE_USER": "enabled",
    "MAIL_PASSWORD_RESET": "was sent a link to reset the password",
    "RESET_LOGIN_LIMITS": "got new login limits",
    "RECOUNT": "corrected",
    "REQUEUE": "queued again",
    "CANCEL": "cancelled",
    "RUN": "run",
    "ROTATE": "given a new secret",
    "DISABLE": "disabled",
    "BEGIN_MAINTENANCE": "put into maintenance",
    "END_MAINTENANCE": "taken out of maintenance",
    "CHANGE_PASSWORD": "changed their password",
    "RESET_PASSWORD": "got a new password",
    "CHANGE_EMAIL": "changed their email",
    "VERIFY_EMAIL": "verified their email",
    "ENABLE_SECOND_FACTOR": "enabled their second factor",
    "DISABLE_SECOND_FACTOR": "no longer has a second factor",
    "RENEW_RECOVERY_CODES": "renewed their recovery codes",
    "USE_RECOVERY_CODE": "used a recovery code",
}


_NOUNS = {"preview_link": "preview link", "api_key": "API key"}

_EVENTS = "audit_events"
"""Key in `session.info` of the events to insert before the commit."""
_TABLE = cast("Table", AuditEvent.__table__)
_COLUMNS = [each for each in _TABLE.c if each.name != "id"]
_PARAMETERS = {f"event_{each.name}": each for each in _COLUMNS}
_NAMES = ", ".join(each.name for each in _COLUMNS)
INSERT_EVENTS = (
    f"INSERT INTO audit_events ({_NAMES}) SELECT * FROM unnest("  # noqa: S608 - names of columns
    + ", ".join(f":{name}" for name in _PARAMETERS)
    + ")"
)
"""Inserts events. A statement that `take_events` completes contains it, with EVENT_PARAMETERS."""
EVENT_PARAMETERS = [bindparam(name, type_=ARRAY(each.type)) for name, each in _PARAMETERS.items()]
_INSERT = text(INSERT_EVENTS).bindparams(*EVENT_PARAMETERS)


_LOGIN_RESULTS = {AuditAction.LOGIN: "ok", AuditAction.LOGIN_FAILED: "refused"}


def record(
    session: AsyncSession,
    action: AuditAction,
    *,
    actor_id: int | None,
    subject: str = "user",
    subject_id: int | None,
    count: int | None = None,
) -> None:
    """Add an event to the session's unit of work; it is logged after the commit.

    All events of a unit of work are inserted before its commit, with one statement. This may be
    the statement of `limits.spend`, if it comes later.

    `actor_id` is None for an anonymous request. The message names the command line as the actor,
    because it has no account. `subject_id` is None if the subject is unknown, or
    if there are several; `count` is then their number.
    """
    if action in _LOGIN_RESULTS:
        metrics.count("pressroom_logins_total", _LOGIN_RESULTS[action])
    verb = _VERBS.get(action) or _VERBS[action.partition("_")[0]]
    noun = _NOUNS.get(subject, subject)
    name = f"{noun[0].upper()}{noun[1:]} {subject_id}" if subject_id else f"Unknown {noun}"
    if count is not None:
        name = counted(count, noun)
    message = f"{name} {verb}"
    if actor_id == COMMAND_LINE.id:
        actor_id, message = None, f"{message} from the command line"
    if _EVENTS not in session.info:
        session.info[_EVENTS] = []
        session.info[BEFORE_COMMIT].append(_insert_events)
    session.info[_EVENTS].append(
        {
            "occurred_at": clock.now(),
            "action": action.value,
            "actor_id": actor_id,
            "subject_type": subject,
            "subject_id": subject_id,
            "message": message,
            "request_id": request_id(),
        }
    )
    session.info[COMMIT_LOG].append(f"[AUDIT] {action} | {message}")


def take_events(session: AsyncSession) -> Mapping[str, Any]:
    """Return the values of EVENT_PARAMETERS, for a statement that inserts the events up to now.

    Empty if there are no events.
    """
    events: list[dict[str, Any]] = session.info.get(_EVENTS) or []
    if not events:
        return {}
    session.info[_EVENTS] = []
    return {name: [event[column.name] for event in events] for name, column in _PARAMETERS.items()}


async def _insert_events(session: AsyncSession) -> None:
    if parameters := take_events(session):
        await fetch(session, _INSERT, parameters)
