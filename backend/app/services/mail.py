"""Mail: queued in the unit of work that causes it; `mail_delivery` sends it afterwards.

A request adds one row, whether there is such an account or not: what it is answered, and how long
that takes, tells nothing about who has one. Whom a mail goes to, with which text and token, or that
it goes to nobody, is decided when it is delivered.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.db.reading import Reader
from app.models.mail import Mail
from app.schemas.mail import MailboxEntry
from app.services.purging import delete_oldest

KEPT_FOR = timedelta(days=7)
MAILBOX_SIZE = 50
CANCELLED = "cancelled"


class MailKind(StrEnum):
    """What a mail is about; the first four carry a link with an account token."""

    REGISTER = "register"
    VERIFY_EMAIL = "verify_email"
    CHANGE_EMAIL = "change_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105 - a kind of mail
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - a kind of mail
    EMAIL_CHANGED = "email_changed"


def queue(
    session: AsyncSession,
    kind: MailKind,
    *,
    email: str,
    user_id: int | None = None,
    details: dict[str, Any] | None = None,
) -> None:
    """Add a mail to the session's unit of work; it is due as soon as that is committed.

    `user_id` is None where the request does not say who has `email`. `details` are forgotten once
    the mail is sent.
    """
    session.add(Mail(kind=kind.value, email=email, user_id=user_id, details=details))


async def cancel(
    session: AsyncSession, *, user_id: int, email: str, kinds: Collection[MailKind]
) -> None:
    """Let those mails of these kinds rest that are queued for the user, or for their address.

    Those that were sent count no more: their links are worthless.

    The caller has locked the user's row: a mail that is being delivered has a token already, which
    the caller can delete, or gets none any more.
    """
    theirs = or_(Mail.user_id == user_id, func.lower(Mail.email) == func.lower(email))
    counts = or_(Mail.next_attempt_at.is_not(None), Mail.sent_at.is_not(None))
    cancelled = update(Mail).where(Mail.kind.in_(kinds), theirs, counts)
    await session.execute(cancelled.values(next_attempt_at=None, details=None, error=CANCELLED))


_MAILBOX = (
    select(*(getattr(Mail, field) for field in MailboxEntry.model_fields))
    .order_by(Mail.id.desc())
    .limit(MAILBOX_SIZE)
)


async def list_mailbox(connection: Reader) -> Sequence[MailboxEntry]:
    """The latest mails, the newest first; for development, where their texts are kept."""
    return [MailboxEntry.model_validate(row) for row in await connection.execute(_MAILBOX)]


async def purge(session: AsyncSession) -> int:
    """Delete a batch of old mails, sent or not; how many.

    A mail that could not be sent for a week helps nobody.
    """
    by = Mail.created_at
    old = by < clock.now() - KEPT_FOR
    return await delete_oldest(session, Mail.id, old, by=by)
