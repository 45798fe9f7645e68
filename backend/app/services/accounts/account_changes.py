"""Account changes at the RealWorld API, which does not send the current password.

Sessions of the RealWorld API may change email and password within one hour of the login. Sessions
of the native API may not, because services.accounts.recovery requires the password there. Users
with a second factor may not either.
"""

from datetime import timedelta

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth.identity import Client, Identity
from app.auth.security import hash_password
from app.core import clock
from app.core.config import Registration, get_settings
from app.core.errors import InvalidToken, PasswordRequired, RecentLoginRequired
from app.db.session import Database, constraint_errors
from app.models.accounts.session import UserSession
from app.models.accounts.user import User
from app.schemas.accounts.user import AccountUpdate, UserPrivate
from app.services import audit, outbox
from app.services.accounts import rate_limits
from app.services.accounts.confirmation import lock_user
from app.services.accounts.login import HAS_SECOND_FACTOR
from app.services.accounts.recovery import apply_email_change, set_password
from app.services.accounts.users import CONSTRAINTS
from app.services.audit import AuditAction
from app.services.outbox import MailKind

RECENT_LOGIN = timedelta(hours=1)
"""Time after a login in which the password is not required again."""


async def update_account(
    session: AsyncSession,
    *,
    database: Database,
    client: Client,
    actor: Identity,
    changes: AccountUpdate,
) -> UserPrivate:
    """Update the fields that `changes` sets; a new password ends the other sessions.

    A new email takes effect at once, and gets a link to verify it. A new email or password raises
    PasswordRequired in a session of the native API or with a second factor, and
    RecentLoginRequired after one hour. A new email raises PasswordRequired with
    REGISTRATION=by_email. Raises EmailTaken, UsernameTaken, TooManyAttempts, TokenRevoked, and
    SessionRequired for an API key.
    """
    fields = changes.model_dump(exclude_unset=True, exclude={"password", "email"})
    email = changes.email if changes.email and changes.email != actor.email else None
    if email or changes.password:
        async with database.autocommit() as lookup:  # before hashing and counting
            await _require_step_up(lookup, actor)
    hashed = None
    if changes.password:
        hashed = await hash_password(changes.password.get_secret_value())  # before a connection
    if email:
        if get_settings().registration is Registration.BY_EMAIL:
            raise PasswordRequired
        await rate_limits.count(database, rate_limits.mail_limits(client=client))
    user = await lock_user(session, user=actor)
    if email or changes.password:  # a second factor may have been enabled concurrently
        await _require_step_up(session, actor)
    for field, value in fields.items():
        setattr(user, field, value)
    if session.is_modified(user):
        audit.record(session, AuditAction.UPDATE_USER, actor_id=user.id, subject_id=user.id)
    with constraint_errors(CONSTRAINTS):
        await session.flush()  # checks the unique constraints
    if hashed is not None:
        await set_password(session, user, hashed=hashed, actor=actor)
    if email:
        await apply_email_change(session, user, email)
        user.email_verified_at = None
        outbox.queue(session, MailKind.VERIFY_EMAIL, email=email, user_id=user.id)
    await session.flush()  # sets `updated_at`
    return UserPrivate.model_validate(user)


_STEP_UP = (
    select(UserSession.created_at, UserSession.by_conduit, HAS_SECOND_FACTOR.label("has_factor"))
    .join(User, User.id == UserSession.user_id)
    .where(UserSession.id == bindparam("session_id"), User.id == bindparam("user_id"))
)


async def _require_step_up(connection: AsyncConnection | AsyncSession, actor: Identity) -> None:
    """Raise PasswordRequired or RecentLoginRequired unless the session alone is sufficient."""
    parameters = {"session_id": actor.session_id, "user_id": actor.id}
    login = (await connection.execute(_STEP_UP, parameters)).one_or_none()
    if login is None:
        raise InvalidToken
    if not login.by_conduit:
        raise PasswordRequired(
            "This session was opened through the native API. Change email and password there, with"
            " your current password, or log in through the RealWorld API"
        )
    if login.has_factor:
        raise PasswordRequired(
            "The account has a second factor. Change email and password through the native API,"
            " with your current password"
        )
    if clock.now() - login.created_at > RECENT_LOGIN:
        raise RecentLoginRequired
