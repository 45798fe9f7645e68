"""What gets an account back, and what proves that an address is its user's: links in mails.

Whatever an anonymous client asks for by an address is answered alike, after the same work, whether
there is such an account or not: a mail is queued, and dropped later where it would go to nobody.
"""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Client, Identity, recheck
from app.auth.security import hash_password, verify_password
from app.core import clock
from app.core.errors import IncorrectPassword, InvalidAccountToken, PasswordRequired
from app.core.purposes import Purpose
from app.db.session import Database, constraint_errors
from app.models.user import User
from app.schemas.recovery import (
    Accepted,
    EmailChange,
    EmailRequest,
    EmailVerification,
    PasswordChange,
    PasswordReset,
)
from app.services import account_tokens, attempts, audit, mail, sessions
from app.services.attempts import Limit, network_of
from app.services.audit import AuditAction
from app.services.claiming import forget_stranger
from app.services.confirmation import confirm_password, lock_user
from app.services.mail import MailKind
from app.services.users import CONSTRAINTS

RESET = frozenset({Purpose.RESET_PASSWORD})
VERIFY = frozenset({Purpose.VERIFY_EMAIL, Purpose.CHANGE_EMAIL})


async def forget_password(
    session: AsyncSession, *, database: Database, client: Client, request: EmailRequest
) -> Accepted:
    """Send the user of an address a link to a new password. Raises TooManyAttempts."""
    return await _by_mail(session, database, client, MailKind.RESET_PASSWORD, request.email)


async def resend_verification(
    session: AsyncSession, *, database: Database, client: Client, request: EmailRequest
) -> Accepted:
    """Send the user of an address a link that verifies it. Raises TooManyAttempts."""
    return await _by_mail(session, database, client, MailKind.VERIFY_EMAIL, request.email)


async def _by_mail(
    session: AsyncSession, database: Database, client: Client, kind: MailKind, email: str
) -> Accepted:
    await attempts.count(database, attempts.on_mail(client=client))
    mail.queue(session, kind, email=email)
    return Accepted()


async def reset_password(
    session: AsyncSession, *, database: Database, client: Client, reset: PasswordReset
) -> None:
    """Give the user of a token a new password, and the account back to them alone.

    Their sessions end, and what was on its way by mail is worthless. A second factor and API keys
    stay where the address had been verified before; else see `forget_stranger`. Raises
    InvalidAccountToken, before anything is hashed; no connection is held while that is done.
    """
    async with database.autocommit() as lookup:
        await account_tokens.check(lookup, secret=reset.token, purposes=RESET)
    hashed = await hash_password(reset.password.get_secret_value())
    redeemed = await account_tokens.redeem(session, secret=reset.token, purposes=RESET)
    user = _its_user(redeemed.user)
    user.hashed_password = hashed
    if user.email_verified_at is None:
        await forget_stranger(session, user)
        user.email_verified_at = clock.now()  # the token came by mail
    await sessions.end_all(session, user_id=user.id)
    await sessions.remember_place(session, user_id=user.id, client=client)
    await _forgive_guesses(session, user, client)
    await account_tokens.revoke_links(session, user_id=user.id, email=user.email)
    audit.record(session, AuditAction.RESET_PASSWORD, actor_id=user.id, subject_id=user.id)
    mail.queue(session, MailKind.PASSWORD_CHANGED, email=user.email, user_id=user.id)


async def _forgive_guesses(session: AsyncSession, user: User, client: Client) -> None:
    """Let the user log in at once, whoever has guessed at their old password or codes."""
    lowered = select(func.lower(User.username), func.lower(User.email)).where(User.id == user.id)
    names = (await session.execute(lowered)).one()
    limits: list[Limit] = []
    for known_by in (network_of(client), None):
        limits += attempts.on_code(user.id, client=client, known_by=known_by)
        for name in names:
            limits += attempts.on_password(name, client=client, known_by=known_by)
    theirs = [limit for limit in limits if limit.ends_with_success]  # and not their neighbours'
    await attempts.forget(session, theirs)


async def change_password(
    session: AsyncSession,
    *,
    database: Database,
    actor: Identity,
    change: PasswordChange,
) -> None:
    """Give the actor a new password; their other sessions end.

    Raises IncorrectPassword, TooManyAttempts, and TokenRevoked where the session ended meanwhile.
    """
    await confirm_password(database, user=actor, password=change.current_password)
    hashed = await hash_password(change.new_password.get_secret_value())
    user = await lock_user(session, user=actor)
    await set_password(session, user, hashed=hashed, actor=actor)


async def set_password(session: AsyncSession, user: User, *, hashed: str, actor: Identity) -> None:
    """Give the actor, whose row `user` is, another password; their other sessions end."""
    user.hashed_password = hashed
    await sessions.end_all(session, user_id=user.id, but=actor.session_id)
    await account_tokens.revoke_links(session, user_id=user.id, email=user.email)
    audit.record(session, AuditAction.CHANGE_PASSWORD, actor_id=user.id, subject_id=user.id)
    if user.email_verified_at is not None:  # else it may be anybody's
        mail.queue(session, MailKind.PASSWORD_CHANGED, email=user.email, user_id=user.id)


async def change_email(
    session: AsyncSession,
    *,
    database: Database,
    actor: Identity,
    change: EmailChange,
) -> Accepted:
    """Send a link to the address that the actor wants to have; it changes when that is used.

    Whether another user has the address is not told. Raises IncorrectPassword, TooManyAttempts, and
    TokenRevoked where the session ended meanwhile.
    """
    await confirm_password(database, user=actor, password=change.password)
    user = await lock_user(session, user=actor)
    mail.queue(session, MailKind.CHANGE_EMAIL, email=change.email, user_id=user.id)
    return Accepted()


async def verify_email(
    session: AsyncSession,
    *,
    database: Database,
    verification: EmailVerification,
    actor: Identity | None,
) -> None:
    """Do what a link to an address was for: verify it, or change to it.

    It takes a session of the account, or its password: the owner of an address must not vouch by a
    click for an account that somebody else has registered with it. They get in by a new password.

    Raises InvalidAccountToken, PasswordRequired, IncorrectPassword, TooManyAttempts, and EmailTaken
    where somebody else was faster. No connection is held while the password is hashed.
    """
    token = verification.token
    async with database.autocommit() as lookup:
        addressee = await account_tokens.find_addressee(lookup, secret=token, purposes=VERIFY)
    by_session = actor is not None and actor.id == addressee.user_id
    if not by_session:
        if verification.password is None:
            raise PasswordRequired(
                "Log in to the account or send its password to confirm this address; if you did not"
                " register, ask for a new password with POST /auth/password/forgot"
            )
        password = verification.password.get_secret_value()
        async with attempts.guessing(database, attempts.on_registration(token)):
            if not await verify_password(password, addressee.hashed_password):
                raise IncorrectPassword
    redeemed = await account_tokens.redeem(session, secret=token, purposes=VERIFY)
    user = _its_user(redeemed.user)
    if by_session and actor is not None:
        await recheck(session, actor)
    elif user.hashed_password != addressee.hashed_password:  # changed while it was compared
        raise IncorrectPassword
    if redeemed.purpose is Purpose.CHANGE_EMAIL:
        await move_to_email(session, user, redeemed.email)
    else:
        await account_tokens.forget(
            session, user_id=user.id, purposes=frozenset({Purpose.VERIFY_EMAIL})
        )
        audit.record(session, AuditAction.VERIFY_EMAIL, actor_id=user.id, subject_id=user.id)
    user.email_verified_at = clock.now()


async def move_to_email(session: AsyncSession, user: User, email: str) -> None:
    """Change the user's address; what was on its way to the old one is worthless.

    Raises EmailTaken.
    """
    await account_tokens.revoke_links(session, user_id=user.id, email=user.email)
    if user.email != email and user.email_verified_at is not None:
        mail.queue(session, MailKind.EMAIL_CHANGED, email=user.email, user_id=user.id)
    user.email = email
    with constraint_errors(CONSTRAINTS):
        await session.flush()  # the constraint speaks
    audit.record(session, AuditAction.CHANGE_EMAIL, actor_id=user.id, subject_id=user.id)


def _its_user(user: User | None) -> User:
    """The user of a token; one for this purpose always has one."""
    if user is None:
        raise InvalidAccountToken
    return user
