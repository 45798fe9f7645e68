"""The audit trail: what the services record, and how it reads."""

from enum import StrEnum

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.logging import request_id
from app.db.session import ANNOUNCEMENTS
from app.models.audit import AuditEvent


class AuditAction(StrEnum):
    """The important actions."""

    CREATE_USER = "CREATE_USER"
    UPDATE_USER = "UPDATE_USER"
    DELETE_USER = "DELETE_USER"
    CREATE_ADDRESS = "CREATE_ADDRESS"
    UPDATE_ADDRESS = "UPDATE_ADDRESS"
    DELETE_ADDRESS = "DELETE_ADDRESS"
    LOGIN = "LOGIN"
    LOGIN_FAILED = "LOGIN_FAILED"
    CREATE_ARTICLE = "CREATE_ARTICLE"
    UPDATE_ARTICLE = "UPDATE_ARTICLE"
    PUBLISH_ARTICLE = "PUBLISH_ARTICLE"
    UNPUBLISH_ARTICLE = "UNPUBLISH_ARTICLE"
    DELETE_ARTICLE = "DELETE_ARTICLE"


_VERBS = {
    "CREATE": "created",
    "UPDATE": "updated",
    "DELETE": "deleted",
    "PUBLISH": "published",
    "UNPUBLISH": "unpublished",
    "LOGIN": "logged in",
    "LOGIN_FAILED": "failed to log in",
}


def record(
    session: AsyncSession,
    action: AuditAction,
    *,
    actor_id: int | None,
    subject: str = "user",
    subject_id: int | None,
) -> None:
    """Add an event to the session's unit of work; it is logged once that is committed.

    `actor_id` is None where nobody is logged in, `subject_id` where the subject is not known.
    """
    verb = _VERBS.get(action) or _VERBS[action.partition("_")[0]]
    name = f"{subject.capitalize()} {subject_id}" if subject_id else f"Unknown {subject}"
    message = f"{name} {verb}"
    session.add(
        AuditEvent(
            action=action,
            actor_id=actor_id,
            subject_type=subject,
            subject_id=subject_id,
            message=message,
            request_id=request_id(),
        )
    )
    session.info[ANNOUNCEMENTS].append(f"[AUDIT] {action} | {message}")
