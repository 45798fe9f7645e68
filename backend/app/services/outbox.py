"""Mail queue: a request adds a row in its unit of work; `mail_delivery` sends the mail later.

A request adds one row whether the account exists or not. Its response and its duration therefore
do not reveal who has an account. The delivery determines recipient, text and token, or drops the
mail.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Integer, and_, bindparam, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, require
from app.core import clock
from app.core.errors import MailNotCancellable, MailNotFound, MailNotRetryable
from app.db.reading import Reader
from app.db.selection import Selection
from app.models.mail import Mail
from app.schemas.mail import MailboxEntry
from app.services import audit
from app.services.audit import AuditAction
from app.services.purging import Batch, delete_oldest, update_oldest

RETENTION = timedelta(days=7)
MAX_AGE = timedelta(days=1)
"""Age after which a queued mail is dropped."""
OVERDUE_AFTER = timedelta(minutes=10)
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
    WEBHOOK_DISABLED = "webhook_disabled"


class UnsentMail(NamedTuple):
    """A mail that failed, was dropped or is overdue."""

    id: int
    kind: str
    email: str
    created_at: datetime
    attempts: int
    next_attempt_at: datetime | None
    error: str | None


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


_UNSENT = and_(Mail.sent_at.is_(None), Mail.error.is_distinct_from(CANCELLED))
_TROUBLED = (
    select(*(getattr(Mail, name) for name in UnsentMail._fields))
    .where(_UNSENT, or_(Mail.error.is_not(None), Mail.next_attempt_at <= bindparam("overdue")))
    .order_by(Mail.id)
    .limit(bindparam("limit", type_=Integer))
)


async def list_unsent(reader: Reader, *, limit: int) -> Sequence[UnsentMail]:
    """List mails that failed, were dropped or are overdue, the oldest first."""
    parameters = {"overdue": clock.now() - OVERDUE_AFTER, "limit": limit}
    return [UnsentMail._make(row) for row in await reader.execute(_TROUBLED, parameters)]


async def requeue(
    session: AsyncSession, *, mail_ids: Collection[int] | None = None, actor: Identity
) -> int:
    """Make failed mails due now, as an administrator; return how many.

    Without `mail_ids`, all that may still be sent. Delivery drops mails that are older than a day.
    A registration that was given up has no data any more. Raises NotAuthorized.
    """
    require(actor, Action.OPERATE, owner_id=actor.id)
    failed = update(Mail).where(
        _UNSENT,
        Mail.error.is_not(None),
        Mail.created_at > clock.now() - MAX_AGE,
        or_(Mail.kind != MailKind.REGISTER.value, Mail.details.is_not(None)),
    )
    if mail_ids is not None:
        failed = failed.where(Mail.id.in_(mail_ids))
    requeued = await session.scalars(
        failed.values(attempts=0, next_attempt_at=clock.now()).returning(Mail.id)
    )
    count = len(requeued.all())
    if count:
        action = AuditAction.REQUEUE_MAILS
        audit.record(
            session, action, actor_id=actor.id, subject="mail", subject_id=None, count=count
        )
    return count


async def retry(session: AsyncSession, *, mail_id: int, actor: Identity) -> None:
    """Make a failed mail due now. Raises NotAuthorized, MailNotFound, MailNotRetryable."""
    if await requeue(session, mail_ids=[mail_id], actor=actor):
        return
    await _require_mail(session, mail_id)
    raise MailNotRetryable


async def cancel_mail(session: AsyncSession, *, mail_id: int, actor: Identity) -> None:
    """Cancel a mail that waits for delivery, as an administrator.

    A mail that is being delivered may still be sent. Raises NotAuthorized, MailNotFound,
    MailNotCancellable.
    """
    require(actor, Action.OPERATE, owner_id=actor.id)
    cancelled = await session.scalar(
        update(Mail)
        .where(Mail.id == mail_id, Mail.next_attempt_at.is_not(None))
        .values(next_attempt_at=None, details=None, error=CANCELLED)
        .returning(Mail.id)
    )
    if cancelled is None:
        await _require_mail(session, mail_id)
        raise MailNotCancellable
    action = AuditAction.CANCEL_MAIL
    audit.record(session, action, actor_id=actor.id, subject="mail", subject_id=mail_id)


async def _require_mail(session: AsyncSession, mail_id: int) -> None:
    if await session.get(Mail, mail_id) is None:
        raise MailNotFound


class MailCounts(NamedTuple):
    """The state of the mail queue."""

    queued: int
    failed: int
    oldest: datetime | None
    """When the oldest queued mail was requested."""


_IS_QUEUED = Mail.next_attempt_at.is_not(None)
_IS_FAILED = and_(_UNSENT, Mail.error.is_not(None), Mail.next_attempt_at.is_(None))
_COUNTS = select(
    select(func.count()).where(_IS_QUEUED).scalar_subquery().label("queued"),
    select(func.count()).where(_IS_FAILED).scalar_subquery().label("failed"),
    select(func.min(Mail.created_at)).where(_IS_QUEUED).scalar_subquery().label("oldest"),
)
"""Each subquery has an index. One that reads all mails would take 50 ms for 300,000."""


async def count_mails(reader: Reader) -> MailCounts:
    """Count queued mails, and those that were given up or dropped in the last week."""
    return MailCounts._make((await reader.execute(_COUNTS)).one())


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
