"""Delivering what is queued: claimed, composed, sent and noted, in a unit of work each.

Any number of processes may deliver at once. A mail is sent at least once: who claims it has it for
a while, and where they end before they note that it was sent, another one sends it again. No
connection is held while a mail server is talked to. A token comes into being when a mail is
composed, and again for each attempt; it is never stored, nor is the text that has it.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from email.message import EmailMessage
from typing import NamedTuple

from sqlalchemy import Select, and_, bindparam, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.tokens import fingerprint
from app.core import clock
from app.core.config import Environment, Settings
from app.core.errors import PressroomError
from app.core.logging import get_logger
from app.core.purposes import Purpose
from app.db.session import NO_KEY_UPDATE, Database
from app.models.mail import Mail
from app.models.user import User
from app.services import account_tokens, mail_texts
from app.services.mail import MailKind
from app.services.mail_texts import Wording

logger = get_logger(__name__)

CLAIMED_FOR = timedelta(minutes=2)
"""How long a mail is left to who claimed it; sending one may take half of it."""
FIRST_PAUSE = timedelta(seconds=2)
LONGEST_PAUSE = timedelta(hours=1)
MAX_ATTEMPTS = 15
"""With pauses that double up to an hour, a mail server may be down for four hours."""
TOO_LATE_AFTER = timedelta(days=1)
"""Nobody waits any more for a mail that was asked for so long ago."""
ONE_EACH = timedelta(minutes=1)
MOST_AN_HOUR = 5

Post = Callable[[EmailMessage], Awaitable[None]]
"""Hands a mail over to be delivered. Raises NotDelivered."""


class NotDelivered(Exception):
    """A mail was not taken; `reason` is for the operator, and has nothing of the mail in it."""

    def __init__(self, reason: str, *, for_good: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.for_good = for_good
        """Whether another attempt would be refused as well."""


class Claim(NamedTuple):
    """A mail that is ours to deliver until the moment `until`."""

    mail_id: int
    until: datetime


class Letter(NamedTuple):
    """What goes out, and what is stored of the token in it."""

    message: EmailMessage
    token_hash: bytes | None


class Draft(NamedTuple):
    """What a mail says to whom, and which right the link in it gives."""

    wording: Wording
    recipient: str
    user_id: int | None
    purpose: Purpose | None = None


class Dropped(Exception):
    """A mail goes to nobody; the text says why."""


async def deliver_due(database: Database, *, settings: Settings, post: Post) -> None:
    """Deliver all mail that is due. Raises ServiceUnavailable where the database is away."""
    while (claim := await _claim(database)) is not None:
        try:
            letter = await _compose(database, claim, settings)
        except PressroomError:
            raise
        except Exception:  # a mistake of ours with this mail must not keep all others waiting
            logger.exception(f"mail {claim.mail_id} cannot be composed")
            await _drop(database, claim)
            continue
        if letter is None:
            continue
        try:
            await post(letter.message)
        except NotDelivered as error:
            await _note_failure(database, claim, letter, error)
        else:
            await _note_sent(database, claim, letter, settings)


_DUE = (
    select(Mail.id)
    .where(Mail.next_attempt_at <= bindparam("now"))
    .order_by(Mail.next_attempt_at, Mail.id)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_CLAIM = (
    update(Mail)
    .where(Mail.id == _DUE.scalar_subquery())
    .values(attempts=Mail.attempts + 1, next_attempt_at=bindparam("until"), error=None)
    .returning(Mail.id)
    .execution_options(synchronize_session=False)
)


async def _claim(database: Database) -> Claim | None:
    """Take the mail that has been due for longest; None where none is."""
    now = clock.now()
    until = now + CLAIMED_FOR
    async with database.unit_of_work() as session:
        mail_id = await session.scalar(_CLAIM, {"now": now, "until": until})
    return None if mail_id is None else Claim(mail_id, until)


async def _compose(database: Database, claim: Claim, settings: Settings) -> Letter | None:
    """The mail as it goes out, with a token of its own; None where it goes to nobody."""
    async with database.unit_of_work() as session:
        mail = await session.get(Mail, claim.mail_id)
        if mail is None:
            return None
        try:
            draft = await _draft(session, mail, claim)
        except Dropped as reason:
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
            draft.wording, recipient=draft.recipient, settings=settings, link=link
        )
        return Letter(message, None if token is None else fingerprint(token))


async def _draft(session: AsyncSession, mail: Mail, claim: Claim) -> Draft | None:
    """What to send to whom; None where the mail was cancelled, or is another's by now.

    Rows are locked in the order that services.recovery has too: the user, then the mail. Raises
    Dropped for a mail that goes to nobody.
    """
    if mail.attempts > MAX_ATTEMPTS:  # nobody who claimed it has lived to say why
        raise Dropped("given up")
    draft = await _DRAFTS[MailKind(mail.kind)](session, mail)
    if await _lock(session, claim) is None:
        return None
    await _require_right_time(session, mail, draft)
    return draft


async def _lock(session: AsyncSession, claim: Claim) -> Mail | None:
    """The claimed mail, read again and locked; None where it was deleted or is another's by now."""
    mail = await session.get(Mail, claim.mail_id, with_for_update=True)
    return mail if mail is not None and mail.next_attempt_at == claim.until else None


async def _draft_registration(session: AsyncSession, mail: Mail) -> Draft:
    owner = await session.scalar(_with_address(mail.email))
    if owner is None:
        return Draft(Wording.REGISTER, mail.email, None, Purpose.REGISTER)
    return Draft(Wording.ALREADY_REGISTERED, _active(owner).email, owner.id)


async def _draft_verification(session: AsyncSession, mail: Mail) -> Draft:
    user = await _addressee(session, mail)
    if user.email_verified_at is not None:
        raise Dropped("verified already")
    return Draft(Wording.VERIFY_EMAIL, user.email, user.id, Purpose.VERIFY_EMAIL)


async def _draft_reset(session: AsyncSession, mail: Mail) -> Draft:
    user = await _addressee(session, mail)
    return Draft(Wording.RESET_PASSWORD, user.email, user.id, Purpose.RESET_PASSWORD)


async def _draft_change(session: AsyncSession, mail: Mail) -> Draft:
    user = _active(await session.get(User, mail.user_id, with_for_update=NO_KEY_UPDATE))
    owner = await session.scalar(_with_address(mail.email))
    if owner is None or owner.id == user.id:
        return Draft(Wording.CHANGE_EMAIL, mail.email, user.id, Purpose.CHANGE_EMAIL)
    return Draft(Wording.EMAIL_IN_USE, _active(owner).email, user.id)


async def _draft_password_notice(session: AsyncSession, mail: Mail) -> Draft:
    return Draft(Wording.PASSWORD_CHANGED, mail.email, mail.user_id)


async def _draft_email_notice(session: AsyncSession, mail: Mail) -> Draft:
    return Draft(Wording.EMAIL_CHANGED, mail.email, mail.user_id)


_DRAFTS: dict[MailKind, Callable[[AsyncSession, Mail], Awaitable[Draft]]] = {
    MailKind.REGISTER: _draft_registration,
    MailKind.VERIFY_EMAIL: _draft_verification,
    MailKind.RESET_PASSWORD: _draft_reset,
    MailKind.CHANGE_EMAIL: _draft_change,
    MailKind.PASSWORD_CHANGED: _draft_password_notice,
    MailKind.EMAIL_CHANGED: _draft_email_notice,
}

NOTICES = frozenset({MailKind.PASSWORD_CHANGED, MailKind.EMAIL_CHANGED})
"""What a user has to hear of each time: no limit, lest a thief use it up."""


def _with_address(email: str) -> Select[User]:
    return select(User).where(func.lower(User.email) == func.lower(email))


async def _addressee(session: AsyncSession, mail: Mail) -> User:
    """The user whose address the mail was asked for, locked; what is sent goes to their own.

    Letters that differ can be the same in lower case: an address as somebody typed it may be
    another one's than the user's.
    """
    user = await session.scalar(_with_address(mail.email).with_for_update(**NO_KEY_UPDATE))
    if user is None or mail.user_id not in {None, user.id}:
        raise Dropped("nobody has this address")
    return _active(user)


def _active(user: User | None) -> User:
    if user is None or not user.is_active:
        raise Dropped("the user is disabled")
    return user


async def _require_right_time(session: AsyncSession, mail: Mail, draft: Draft) -> None:
    """Raise Dropped for a mail that comes too late, or too often: nobody is to be flooded.

    Of several that wait, the first is sent; a later one brings it forward.
    """
    now = clock.now()
    if mail.created_at < now - TOO_LATE_AFTER:
        raise Dropped("too late")
    if mail.kind in NOTICES:
        return
    same_address = func.lower(Mail.email) == func.lower(mail.email)
    same_user = Mail.user_id == draft.user_id if draft.user_id is not None else same_address
    alike = and_(Mail.kind == mail.kind, Mail.id != mail.id)
    waits = and_(
        Mail.next_attempt_at.is_not(None),
        Mail.id < mail.id,
        Mail.created_at >= now - TOO_LATE_AFTER,
    )
    if await session.scalar(select(Mail.id).where(alike, same_address, waits).limit(1)):
        has_failed = and_(alike, same_address, waits, Mail.error.is_not(None))
        await session.execute(update(Mail).where(has_failed).values(next_attempt_at=now))
        raise Dropped("one like it waits")
    sent = select(func.count(), func.max(Mail.sent_at).filter(same_address)).where(
        alike,
        or_(same_address, same_user),
        Mail.sent_at > now - timedelta(hours=1),
        Mail.error.is_(None),  # one that was cancelled since has no link that is good
        Mail.created_at > now - TOO_LATE_AFTER - timedelta(hours=1),  # which has an index
    )
    number, latest = (await session.execute(sent)).one()
    if number >= MOST_AN_HOUR or (latest is not None and latest > now - ONE_EACH):
        raise Dropped("too many like it")


async def _drop(database: Database, claim: Claim) -> None:
    async with database.unit_of_work() as session:
        mail = await _lock(session, claim)
        if mail is not None:
            _finish(mail, error="cannot be composed")


def _finish(mail: Mail, *, error: str | None = None) -> None:
    mail.next_attempt_at = None
    mail.details = None
    mail.error = error


async def _note_sent(database: Database, claim: Claim, letter: Letter, settings: Settings) -> None:
    async with database.unit_of_work() as session:
        mail = await session.get(Mail, claim.mail_id, with_for_update=True)
        if mail is None:
            return
        _finish(mail)
        mail.sent_at = clock.now()
        if settings.environment is Environment.DEVELOPMENT:
            mail.subject = str(letter.message["Subject"])
            mail.text = letter.message.get_content()
    logger.info(f"mail {claim.mail_id} sent", kind=mail.kind)


async def _note_failure(
    database: Database, claim: Claim, letter: Letter, error: NotDelivered
) -> None:
    """Have the mail sent again later, with another token; or give it up."""
    async with database.unit_of_work() as session:
        if letter.token_hash is not None:
            await account_tokens.withdraw(session, token_hash=letter.token_hash)
        mail = await _lock(session, claim)
        if mail is None:
            return
        given_up = error.for_good or mail.attempts >= MAX_ATTEMPTS
        if given_up:
            _finish(mail, error=error.reason)
        else:
            pause = min(FIRST_PAUSE * 2 ** (mail.attempts - 1), LONGEST_PAUSE)
            mail.next_attempt_at = clock.now() + pause
            mail.error = error.reason
    logger.warning(
        f"mail {claim.mail_id} not sent",
        kind=mail.kind,
        attempts=mail.attempts,
        reason=error.reason,
        given_up=given_up,
    )
