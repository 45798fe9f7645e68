"""Password reset, password change, and verification of email addresses by links in mails.

A request by an anonymous client gets the same response after the same work whether the account
exists or not. It queues a mail, which is dropped on delivery if no user has the address.
"""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Client, Identity, IPAddress, network_of, recheck
from app.auth.permissions import Action, require
from app.auth.security import hash_password, verify_password
from app.core import clock
from app.core.enums import Purpose
from app.core.errors import (
    IncorrectPassword,
    InvalidAccountToken,
    PasswordRequired,
    UserNotFound,
)
from app.db.session import NO_KEY_UPDATE, Database, constraint_errors
from app.models.accounts.user import User
from app.schemas.accounts.recovery import (
    Accepted,
    EmailChange,
    EmailRequest,
    EmailVerification,
    PasswordChange,
    PasswordReplacement,
    PasswordReset,
)
from app.services import audit, outbox
from app.services.accounts import account_tokens, rate_limits, sessions
from app.services.accounts.claiming import remove_prior_access
from app.services.accounts.confirmation import confirm_password, lock_user
from app.services.accounts.deletion import require_not_placeholder
from app.services.accounts.rate_limits import Limit
from app.services.accounts.users import CONSTRAINTS
from app.services.audit import AuditAction
from app.services.outbox import MailKind

RESET = frozenset({Purpose.RESET_PASSWORD})
VERIFY = frozenset({Purpose.VERIFY_EMAIL, Purpose.CHANGE_EMAIL})


async def request_password_reset(
    session: AsyncSession, *, database: Database, client: Client, request: EmailRequest
) -> Accepted:
    """Queue a mail with a link to reset the password. Raises TooManyAttempts."""
    return await _queue_mail(session, database, client, MailKind.RESET_PASSWORD, request.email)


async def resend_verification(
    session: AsyncSession, *, database: Database, client: Client, request: EmailRequest
) -> Accepted:
    """Queue a mail with a link to verify the address. Raises TooManyAttempts."""
    return await _queue_mail(session, database, client, MailKind.VERIFY_EMAIL, request.email)


async def _queue_mail(
    session: AsyncSession, database: Database, client: Client, kind: MailKind, email: str
) -> Accepted:
    await rate_limits.count(database, rate_limits.mail_limits(client=client))
    outbox.queue(session, kind, email=email)
    return Accepted()


async def reset_password(
    session: AsyncSession, *, database: Database, client: Client, reset: PasswordReset
) -> None:
    """Set a new password for the user of a token.

    All sessions end, and links in earlier mails become invalid. The second factor and API keys
    stay if the address was verified before. Otherwise `remove_prior_access` removes them. Raises
    InvalidAccountToken before the password is hashed. Holds no connection during hashing.
    """
    async with database.autocommit() as lookup:
        await account_tokens.check(lookup, secret=reset.token, purposes=RESET)
    hashed = await hash_password(reset.password.get_secret_value())
    redeemed = await account_tokens.redeem(session, secret=reset.token, purposes=RESET)
    user = _require_user(redeemed.user)
    user.hashed_password = hashed
    if user.email_verified_at is None:
        await remove_prior_access(session, user)
        user.email_verified_at = clock.now()  # the token was sent to this address
    await sessions.end_all(session, user_id=user.id)
    await sessions.remember_network(session, user_id=user.id, client=client)
    limits = await _login_limits(session, user, client, [network_of(client)])
    # Limits by client address are shared with other users and stay.
    await rate_limits.reset(session, [limit for limit in limits if limit.reset_on_success])
    await account_tokens.revoke_links(session, user_id=user.id, email=user.email)
    audit.record(session, AuditAction.RESET_PASSWORD, actor_id=user.id, subject_id=user.id)
    outbox.queue(session, MailKind.PASSWORD_CHANGED, email=user.email, user_id=user.id)


async def replace_password(
    session: AsyncSession, *, user_id: int, new: PasswordReplacement, actor: Identity
) -> None:
    """Set the password of another user, as an administrator.

    All sessions and links end, and the limits on guessing are reset. The second factor and API keys
    stay. `session` must not have been used yet: no connection is held during hashing. Raises
    NotAuthorized, UserNotFound.
    """
    require(actor, Action.RESET_CREDENTIALS, owner_id=user_id)
    hashed = await hash_password(new.password.get_secret_value())
    user = await session.get(User, user_id, with_for_update=NO_KEY_UPDATE)
    if user is None:
        raise UserNotFound
    require_not_placeholder(user.email)
    await _store_password(session, user, hashed=hashed)
    places = await sessions.known_places(session, user_id=user.id)
    limits = await _login_limits(session, user, Client(None, ""), places)
    await rate_limits.reset(session, [limit for limit in limits if limit.reset_on_success])
    audit.record(session, AuditAction.RESET_PASSWORD, actor_id=actor.id, subject_id=user.id)


async def mail_password_reset(session: AsyncSession, *, user_id: int, actor: Identity) -> None:
    """Queue a mail with a link to reset the password, as an administrator.

    Raises NotAuthorized, UserNotFound.
    """
    require(actor, Action.RESET_CREDENTIALS, owner_id=user_id)
    user = await session.get(User, user_id)
    if user is None:
        raise UserNotFound
    require_not_placeholder(user.email)
    outbox.queue(session, MailKind.RESET_PASSWORD, email=user.email, user_id=user.id)
    audit.record(session, AuditAction.MAIL_PASSWORD_RESET, actor_id=actor.id, subject_id=user.id)


async def reset_login_limits(
    session: AsyncSession, *, user_id: int, address: IPAddress | None, actor: Identity
) -> None:
    """Reset the limits on guessing for a user, as an administrator: they can log in at once.

    With `address`, this includes the limits of that client address, which other users may share.
    Raises NotAuthorized, UserNotFound.
    """
    require(actor, Action.RESET_CREDENTIALS, owner_id=user_id)
    user = await session.get(User, user_id)
    if user is None:
        raise UserNotFound
    places = await sessions.known_places(session, user_id=user_id)
    client = Client(address, "")
    limits = await _login_limits(session, user, client, [*places, network_of(client)])
    own = [limit for limit in limits if address is not None or limit.reset_on_success]
    await rate_limits.reset(session, own)
    audit.record(session, AuditAction.RESET_LOGIN_LIMITS, actor_id=actor.id, subject_id=user.id)


async def delete_login_limits(database: Database, *, actor: Identity) -> int:
    """Reset the limits on guessing for everyone, as an administrator; return how many there were.

    Raises NotAuthorized.
    """
    require(actor, Action.RESET_CREDENTIALS, owner_id=actor.id)
    count = await rate_limits.delete_all(database)
    action = AuditAction.DELETE_LOGIN_LIMITS
    async with database.unit_of_work() as session:
        audit.record(
            session, action, actor_id=actor.id, subject="login limit", subject_id=None, count=count
        )
    return count


async def _login_limits(
    session: AsyncSession, user: User, client: Client, places: Sequence[str]
) -> list[Limit]:
    """Return the limits on guessing for a client that is unknown to the user, and for `places`."""
    lowered = select(func.lower(User.username), func.lower(User.email)).where(User.id == user.id)
    names = (await session.execute(lowered)).one()
    limits: list[Limit] = []
    for known_by in (*places, None):
        limits += rate_limits.code_limits(user.id, client=client, known_by=known_by)
        for name in names:
            limits += rate_limits.password_limits(name, client=client, known_by=known_by)
    return limits


async def change_password(
    session: AsyncSession,
    *,
    database: Database,
    actor: Identity,
    change: PasswordChange,
) -> None:
    """Change the actor's password, and end their other sessions.

    Raises IncorrectPassword, TooManyAttempts, and TokenRevoked if the session has ended.
    """
    await confirm_password(database, user=actor, password=change.current_password)
    hashed = await hash_password(change.new_password.get_secret_value())
    user = await lock_user(session, user=actor)
    await set_password(session, user, hashed=hashed, actor=actor)


async def set_password(session: AsyncSession, user: User, *, hashed: str, actor: Identity) -> None:
    """Set a password hash for the actor, whose row is `user`, and end their other sessions."""
    await _store_password(session, user, hashed=hashed, kept_session_id=actor.session_id)
    audit.record(session, AuditAction.CHANGE_PASSWORD, actor_id=user.id, subject_id=user.id)


async def _store_password(
    session: AsyncSession, user: User, *, hashed: str, kept_session_id: int | None = None
) -> None:
    """Set a password hash, end the other sessions and all links, and notify the user."""
    user.hashed_password = hashed
    await sessions.end_all(session, user_id=user.id, except_id=kept_session_id)
    await account_tokens.revoke_links(session, user_id=user.id, email=user.email)
    if user.email_verified_at is not None:  # an unverified address may belong to someone else
        outbox.queue(session, MailKind.PASSWORD_CHANGED, email=user.email, user_id=user.id)


async def change_email(
    session: AsyncSession,
    *,
    database: Database,
    actor: Identity,
    change: EmailChange,
) -> Accepted:
    """Send a link to the new address; the email changes when the link is used.

    The response does not reveal whether another user has the address. Raises IncorrectPassword,
    TooManyAttempts, and TokenRevoked if the session has ended.
    """
    await confirm_password(database, user=actor, password=change.password)
    user = await lock_user(session, user=actor)
    outbox.queue(session, MailKind.CHANGE_EMAIL, email=change.email, user_id=user.id)
    return Accepted()


async def verify_email(
    session: AsyncSession,
    *,
    database: Database,
    verification: EmailVerification,
    actor: Identity | None,
) -> None:
    """Use a link from a mail: verify the address, or change the email to it.

    A session of the account or its password is required. Without them, a click could verify an
    account that someone else registered with the address. Its owner can reset the password.

    Raises InvalidAccountToken, PasswordRequired, IncorrectPassword, TooManyAttempts, and EmailTaken
    if another user took the address first. Holds no connection during hashing.
    """
    token = verification.token
    async with database.autocommit() as lookup:
        addressee = await account_tokens.find_addressee(lookup, secret=token, purposes=VERIFY)
    by_session = actor is not None and actor.id == addressee.user_id
    if not by_session:
        if verification.password is None:
            raise PasswordRequired(
                "Log in to the account or send its password to confirm this address. If you did not"
                " register, request a password reset"
            )
        password = verification.password.get_secret_value()
        async with rate_limits.attempt(database, rate_limits.registration_limits(token)):
            if not await verify_password(password, addressee.hashed_password):
                raise IncorrectPassword
    redeemed = await account_tokens.redeem(session, secret=token, purposes=VERIFY)
    user = _require_user(redeemed.user)
    if by_session and actor is not None:
        await recheck(session, actor)
    elif user.hashed_password != addressee.hashed_password:  # changed during the comparison
        raise IncorrectPassword
    if redeemed.purpose is Purpose.CHANGE_EMAIL:
        await apply_email_change(session, user, redeemed.email)
    else:
        await account_tokens.revoke(
            session, user_id=user.id, purposes=frozenset({Purpose.VERIFY_EMAIL})
        )
        audit.record(session, AuditAction.VERIFY_EMAIL, actor_id=user.id, subject_id=user.id)
    user.email_verified_at = clock.now()


async def apply_email_change(session: AsyncSession, user: User, email: str) -> None:
    """Change the user's email, and revoke links that were sent to the old one.

    Raises EmailTaken.
    """
    await account_tokens.revoke_links(session, user_id=user.id, email=user.email)
    if user.email != email and user.email_verified_at is not None:
        outbox.queue(session, MailKind.EMAIL_CHANGED, email=user.email, user_id=user.id)
    user.email = email
    with constraint_errors(CONSTRAINTS):
        await session.flush()  # checks the unique constraint
    audit.record(session, AuditAction.CHANGE_EMAIL, actor_id=user.id, subject_id=user.id)


def _require_user(user: User | None) -> User:
    """Return the user of a token. Tokens for these purposes always have one."""
    if user is None:
        raise InvalidAccountToken
    return user
