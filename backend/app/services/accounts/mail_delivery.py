"""Delivery of a mail: claim, compose, send and record it, in separate units of work.

Any number of processes may deliver concurrently. Delivery is at least once: a process claims a
mail for some time. If it ends before it records the result, another process sends the mail again.
No connection is held during SMTP. Each attempt creates a new token when the mail is composed.
Neither the token nor the text that contains it is stored.
"""

from collections.abc import Awaitable, Callable, Collection
from datetime import datetime, timedelta
from email.message import EmailMessage
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, Select, String, all_, and_, bindparam, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.tokens import fingerprint
from app.core import clock
from app.core.config import Environment, Settings
from app.core.enums import Purpose
from app.core.errors import PressroomError
from app.core.logging import get_logger
from app.db.session import NO_KEY_UPDATE, Database
from app.models.accounts.user import User
from app.models.mail import Mail
from app.services.accounts import account_tokens, mail_texts
from app.services.accounts.mail_texts import MailText
from app.services.outbox import MAX_AGE, MailKind

logger = get_logger(__name__)

CLAIM_DURATION = timedelta(minutes=2)
"""How long a claim excludes other processes. Sending may take half of this time."""
INITIAL_BACKOFF = timedelta(seconds=2)
MAX_BACKOFF = timedelta(hours=1)
MAX_ATTEMPTS = 15
"""With exponential backoff up to one hour, the mail server may be down for four hours."""
MIN_INTERVAL = timedelta(minutes=1)
MAX_PER_HOUR = 5

SendMail = Callable[[EmailMessage], Awaitable[None]]
"""Sends a mail. Raises DeliveryError."""


class DeliveryError(Exception):
    """The mail server did not accept a mail. `reason` contains nothing from the mail itself."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent
        """Whether another attempt would fail too."""


class Claim(NamedTuple):
    """A mail that this process may deliver until `until`."""

    mail_id: int
    domain: str
    """The domain of the address, in lower case."""
    until: datetime


class ComposedMail(NamedTuple):
    """The message to send, and the stored hash of the token in it."""

    message: EmailMessage
    token_hash: bytes | None


class Draft(NamedTuple):
    """Text and recipient of a mail, and the purpose of its link."""

    text: MailText
    recipient: str
    user_id: int | None
    purpose: Purpose | None = None


class MailDropped(Exception):
    """A mail must not be sent; the message contains the reason."""


async def deliver(database: Database, claim: Claim, *, settings: Settings, send: SendMail) -> None:
    """Deliver a claimed mail. Raises ServiceUnavailable if the database is not available."""
    try:
        composed = await _compose(database, claim, settings)
    except PressroomError:
        raise
    except Exception:
        logger.exception(f"mail {claim.mail_id} cannot be composed")
        await _drop(database, claim)
        return
    if composed is None:
        return
    try:
        await send(composed.message)
    except DeliveryError as error:
        await _record_failure(database, claim, composed, error)
    else:
        await _record_sent(database, claim, composed, settings)


_domain = func.lower(func.split_part(Mail.email, "@", -1))
_DUE = (
    select(Mail.id)
    .where(
        Mail.next_attempt_at <= bindparam("now"),
        _domain != all_(bindparam("excluded_domains", type_=ARRAY(String))),
    )
    .order_by(Mail.next_attempt_at, Mail.id)
    .limit(1)
    .with_for_update(skip_locked=True)
)


def _claim_statement(due: Select[Any]) -> Any:
    return (
        update(Mail)
        .where(Mail.id == due.scalar_subquery())
        .values(attempts=Mail.attempts + 1, next_attempt_at=bindparam("until"), error=None)
        .returning(Mail.id, _domain)
        .execution_options(synchronize_session=False)
    )


URGENT = frozenset({MailKind.RESET_PASSWORD})
"""Kinds that are sent before all others, because a user waits for them to log in."""

_CLAIMS = {
    False: _claim_statement(_DUE),
    True: _claim_statement(_DUE.where(Mail.kind.in_(URGENT))),
}


async def claim_due(
    database: Database, *, is_urgent: bool = False, excluded_domains: Collection[str] = ()
) -> Claim | None:
    """Claim the mail that has been due for longest; return None if no mail is due.

    With `is_urgent`, only urgent mails are claimed. Mails to excluded domains are not.
    """
    now = clock.now()
    until = now + CLAIM_DURATION
    parameters = {"now": now, "until": until, "excluded_domains": list(excluded_domains)}
    async with database.unit_of_work() as session:
        claimed = (await session.execute(_CLAIMS[is_urgent], parameters)).one_or_none()
    return None if claimed is None else Claim(claimed[0], claimed[1], until)


async def _compose(database: Database, claim: Claim, settings: Settings) -> ComposedMail | None:
    """Return the message with a new token; None if the mail must not be sent."""
    async with database.unit_of_work() as session:
        mail = await session.get(Mail, claim.mail_id)
        if mail is None:
            return None
        try:
            draft = await _draft(session, mail, claim)
        except MailDropped as reason:
            if await _lock(session, claim) is not None:
                _finish(mail, error=str(reason))
                logger.info(f"mail {mail.id} dropped", kind=mail.kind, reason=str(reason))
            return None
        if draft is None:
            return None
        mail.user_id = draft.user_id
        token = link = None
        if draft.purpose is not None:
            token = await account_tokens.issue(
                session,
                purpose=draft.purpose,
                email=draft.recipient,
                user_id=draft.user_id,
                registration=mail.details if draft.purpose is Purpose.REGISTER else None,
            )
            link = mail_texts.link(settings, draft.purpose, token)
        message = mail_texts.compose(
            draft.text, recipient=draft.recipient, settings=settings, link=link
        )
        return ComposedMail(message, None if token is None else fingerprint(token))


async def _draft(session: AsyncSession, mail: Mail, claim: Claim) -> Draft | None:
    """Return the draft of a mail; None if it was cancelled or claimed by another process.

    Rows are locked in the same order as in services.accounts.recovery: first the user, then the
    mail. Raises MailDropped for a mail that must not be sent.
    """
    if mail.attempts > MAX_ATTEMPTS:  # each process that claimed it ended without a result
        raise MailDropped("too many attempts")
    draft = await _DRAFTS[MailKind(mail.kind)](session, mail)
    if await _lock(session, claim) is None:
        return None
    await _require_deliverable_now(session, mail, draft)
    return draft


async def _lock(session: AsyncSession, claim: Claim) -> Mail | None:
    """Lock and return the claimed mail; None if it was deleted or claimed by another process."""
    mail = await session.get(Mail, claim.mail_id, with_for_update=True)
    return mail if mail is not None and mail.next_attempt_at == claim.until else None


async def _draft_registration(session: AsyncSession, mail: Mail) -> Draft:
    owner = await session.scalar(_user_with_email(mail.email))
    if owner is None:
        return Draft(MailText.REGISTER, mail.email, None, Purpose.REGISTER)
    return Draft(MailText.ALREADY_REGISTERED, _require_active(owner).email, owner.id)


async def _draft_verification(session: AsyncSession, mail: Mail) -> Draft:
    user = await _addressee(session, mail)
    if user.email_verified_at is not None:
        raise MailDropped("already verified")
    return Draft(MailText.VERIFY_EMAIL, user.email, user.id, Purpose.VERIFY_EMAIL)


async def _draft_reset(session: AsyncSession, mail: Mail) -> Draft:
    user = await _addressee(session, mail)
    return Draft(MailText.RESET_PASSWORD, user.email, user.id, Purpose.RESET_PASSWORD)


async def _draft_change(session: AsyncSession, mail: Mail) -> Draft:
    user = _require_active(await session.get(User, mail.user_id, with_for_update=NO_KEY_UPDATE))
    owner = await session.scalar(_user_with_email(mail.email))
    if owner is None or owner.id == user.id:
        return Draft(MailText.CHANGE_EMAIL, mail.email, user.id, Purpose.CHANGE_EMAIL)
    return Draft(MailText.EMAIL_IN_USE, _require_active(owner).email, user.id)


async def _draft_password_notice(session: AsyncSession, mail: Mail) -> Draft:
    return Draft(MailText.PASSWORD_CHANGED, mail.email, mail.user_id)


async def _draft_email_notice(session: AsyncSession, mail: Mail) -> Draft:
    return Draft(MailText.EMAIL_CHANGED, mail.email, mail.user_id)


async def _draft_webhook_notice(session: AsyncSession, mail: Mail) -> Draft:
    return Draft(MailText.WEBHOOK_DISABLED, mail.email, mail.user_id)


_DRAFTS: dict[MailKind, Callable[[AsyncSession, Mail], Awaitable[Draft]]] = {
    MailKind.REGISTER: _draft_registration,
    MailKind.VERIFY_EMAIL: _draft_verification,
    MailKind.RESET_PASSWORD: _draft_reset,
    MailKind.CHANGE_EMAIL: _draft_change,
    MailKind.PASSWORD_CHANGED: _draft_password_notice,
    MailKind.EMAIL_CHANGED: _draft_email_notice,
    MailKind.WEBHOOK_DISABLED: _draft_webhook_notice,
}

NOTICES = frozenset({MailKind.PASSWORD_CHANGED, MailKind.EMAIL_CHANGED, MailKind.WEBHOOK_DISABLED})
"""Notices. They have no limit that an attacker could exhaust to hide a change."""


def _user_with_email(email: str) -> Select[User]:
    return select(User).where(func.lower(User.email) == func.lower(email))


async def _addressee(session: AsyncSession, mail: Mail) -> User:
    """Lock and return the user of the requested address. The mail goes to the stored address.

    Different characters can be equal in lower case. The requested address may therefore belong to
    someone else.
    """
    user = await session.scalar(_user_with_email(mail.email).with_for_update(**NO_KEY_UPDATE))
    if user is None or mail.user_id not in {None, user.id}:
        raise MailDropped("no user has this address")
    return _require_active(user)


def _require_active(user: User | None) -> User:
    if user is None or not user.is_active:
        raise MailDropped("the user is disabled")
    return user


async def _require_deliverable_now(session: AsyncSession, mail: Mail, draft: Draft) -> None:
    """Raise MailDropped for a mail that is too old, or exceeds the limits per address and user.

    Of several queued mails of one kind, the first is sent. A later one makes a failed one due now.
    """
    now = clock.now()
    if mail.created_at < now - MAX_AGE:
        raise MailDropped("older than one day")
    if mail.kind in NOTICES:
        return
    same_address = func.lower(Mail.email) == func.lower(mail.email)
    same_user = Mail.user_id == draft.user_id if draft.user_id is not None else same_address
    same_kind = and_(Mail.kind == mail.kind, Mail.id != mail.id)
    waits = and_(
        Mail.next_attempt_at.is_not(None),
        Mail.id < mail.id,
        Mail.created_at >= now - MAX_AGE,
    )
    if await session.scalar(select(Mail.id).where(same_kind, same_address, waits).limit(1)):
        has_failed = and_(same_kind, same_address, waits, Mail.error.is_not(None))
        await session.execute(update(Mail).where(has_failed).values(next_attempt_at=now))
        raise MailDropped("another mail of this kind is queued")
    sent = select(func.count(), func.max(Mail.sent_at).filter(same_address)).where(
        same_kind,
        or_(same_address, same_user),
        Mail.sent_at > now - timedelta(hours=1),
        Mail.error.is_(None),  # the link of a mail that was cancelled later is revoked
        Mail.created_at > now - MAX_AGE - timedelta(hours=1),  # redundant, but indexed
    )
    number, latest = (await session.execute(sent)).one()
    if number >= MAX_PER_HOUR or (latest is not None and latest > now - MIN_INTERVAL):
        raise MailDropped("too many mails of this kind")


async def _drop(database: Database, claim: Claim) -> None:
    async with database.unit_of_work() as session:
        mail = await _lock(session, claim)
        if mail is not None:
            _finish(mail, error="cannot be composed")


def _finish(mail: Mail, *, error: str | None = None) -> None:
    mail.next_attempt_at = None
    mail.details = None
    mail.error = error


async def _record_sent(
    database: Database, claim: Claim, composed: ComposedMail, settings: Settings
) -> None:
    async with database.unit_of_work() as session:
        mail = await session.get(Mail, claim.mail_id, with_for_update=True)
        if mail is None:
            return
        _finish(mail)
        mail.sent_at = clock.now()
        if settings.environment is Environment.DEVELOPMENT:
            mail.subject = str(composed.message["Subject"])
            mail.text = composed.message.get_content()
    logger.info(f"mail {claim.mail_id} sent", kind=mail.kind)


async def _record_failure(
    database: Database, claim: Claim, composed: ComposedMail, error: DeliveryError
) -> None:
    """Schedule the next attempt, which uses a new token, or give the mail up."""
    async with database.unit_of_work() as session:
        if composed.token_hash is not None:
            await account_tokens.revoke_token(session, token_hash=composed.token_hash)
        mail = await _lock(session, claim)
        if mail is None:
            return
        gave_up = error.permanent or mail.attempts >= MAX_ATTEMPTS
        if gave_up:
            _finish(mail, error=error.reason)
        else:
            backoff = min(INITIAL_BACKOFF * 2 ** (mail.attempts - 1), MAX_BACKOFF)
            mail.next_attempt_at = clock.now() + backoff
            mail.error = error.reason
    logger.warning(
        f"mail {claim.mail_id} not sent",
        kind=mail.kind,
        attempts=mail.attempts,
        reason=error.reason,
        gave_up=gave_up,
    )
