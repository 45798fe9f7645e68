"""Mail queue: a request adds a row in its unit of work; `mail_delivery` sends the mail later.

A request adds one row whether the account exists or not. Its response and its duration therefore
do not reveal who has an account. The delivery determines recipient, text and token, or drops the
mail.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.db.reading import Reader
from app.db.selection import Selection
from app.models.mail import Mail
from app.schemas.mail import MailboxEntry
from app.services.purging import Batch, delete_oldest, update_oldest

RETENTION = timedelta(days=7)
MAILBOX_SIZE = 50
CANCELLED = "cancelled"


class MailKind(StrEnum):
    """Kinds of mail. The first four contain a link with an account token."""

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
    """Add a mail to the session's unit of work; it is due after the commit.

    `user_id` is None if the request does not determine the user of `email`. `details` are deleted
    when the mail is sent.
    """
    session.add(Mail(kind=kind.value, email=email, user_id=user_id, details=details))


async def cancel(
    session: AsyncSession, *, user_id: int, email: str, kinds: Collection[MailKind]
) -> None:
    """Cancel queued mails of these kinds for a user or for their address.

    Sent mails no longer count for the limit on mails, because their links are revoked.

    The caller has locked the user's row. A mail in delivery therefore either has a token, which
    the caller can delete, or gets none.
    """
    of_user = or_(Mail.user_id == user_id, func.lower(Mail.email) == func.lower(email))
    pending_or_sent = or_(Mail.next_attempt_at.is_not(None), Mail.sent_at.is_not(None))
    cancelled = update(Mail).where(Mail.kind.in_(kinds), of_user, pending_or_sent)
    await session.execute(cancelled.values(next_attempt_at=None, details=None, error=CANCELLED))


async def cancel_batch(session: AsyncSession, batch: Batch) -> int:
    """Cancel a batch of all queued mails; return how many."""
    values = {"next_attempt_at": None, "details": None, "error": CANCELLED}
    waiting = Mail.next_attempt_at.is_not(None)
    return await update_oldest(session, batch, Mail.id, waiting, order_by=Mail.id, values=values)


_ENTRY = Selection.of(MailboxEntry, Mail)
_MAILBOX = select(*_ENTRY.columns).order_by(Mail.id.desc()).limit(MAILBOX_SIZE)


async def list_mailbox(reader: Reader) -> Sequence[MailboxEntry]:
    """List the latest mails, the newest first. Their texts are stored only in development."""
    return [_ENTRY.read(row) for row in await reader.execute(_MAILBOX)]


async def purge(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of old mails, sent or not; return how many.

    A mail that could not be sent for a week is obsolete.
    """
    column = Mail.created_at
    old = column < clock.now() - RETENTION
    return await delete_oldest(session, batch, Mail.id, old, order_by=column)
