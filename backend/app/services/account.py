"""The user's own account, changed without the present password, as RealWorld front ends do.

Their sessions may do so within an hour of the login. The native API asks for the password
(services.recovery), so its sessions may not, nor may any session of a user with a second factor.
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
from app.models.session import UserSession
from app.models.user import User
from app.schemas.user import AccountUpdate, UserPrivate
from app.services import attempts, audit, mail
from app.services.audit import AuditAction
from app.services.auth import HAS_SECOND_FACTOR
from app.services.confirmation import lock_user
from app.services.mail import MailKind
from app.services.recovery import move_to_email, set_password
from app.services.users import CONSTRAINTS

RECENT = timedelta(hours=1)
"""How long after a login its password need not be asked for."""


async def update_account(
    session: AsyncSession,
    *,
    database: Database,
    client: Client,
    actor: Identity,
    changes: AccountUpdate,
) -> UserPrivate:
    """Change what `changes` sets; another password ends the other sessions.

    Another email is in force at once, and gets a link to verify it. For email and password, raises
    PasswordRequired in a session of the native API or with a second factor, RecentLoginRequired
    after an hour. Raises PasswordRequired for the email with REGISTRATION=by_email, EmailTaken,
    UsernameTaken, TooManyAttempts, TokenRevoked; SessionRequired for an API key.
    """
    given = changes.model_dump(exclude_unset=True, exclude={"password", "email"})
    email = changes.email if changes.email and changes.email != actor.email else None
    if email or changes.password:
        async with database.autocommit() as lookup:  # before anything is hashed or counted
            await _require_step_up(lookup, actor)
    hashed = None
    if changes.password:
        hashed = await hash_password(changes.password.get_secret_value())  # holds no connection
    if email:
        if get_settings().registration is Registration.BY_EMAIL:
            raise PasswordRequired
        await attempts.count(database, attempts.on_mail(client=client))
    user = await lock_user(session, user=actor)
    if email or changes.password:  # a second factor may have been enabled meanwhile
        await _require_step_up(session, actor)
    for field, value in given.items():
        setattr(user, field, value)
    if session.is_modified(user):
        audit.record(session, AuditAction.UPDATE_USER, actor_id=user.id, subject_id=user.id)
    with constraint_errors(CONSTRAINTS):
        await session.flush()  # the constraints speak
    if hashed is not None:
        await set_password(session, user, hashed=hashed, actor=actor)
    if email:
        await move_to_email(session, user, email)
        user.email_verified_at = None
        mail.queue(session, MailKind.VERIFY_EMAIL, email=email, user_id=user.id)
    await session.flush()  # `updated_at` is set
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
            "This session was opened at /auth/login: change the email with POST /users/me/email"
            " and the password with POST /users/me/password, or log in at /api/users/login"
        )
    if login.has_factor:
        raise PasswordRequired(
            "The account has a second factor: change the email with POST /users/me/email"
            " and the password with POST /users/me/password"
        )
    if clock.now() - login.created_at > RECENT:
        raise RecentLoginRequired
