"""One's own account, changed at once by whoever has logged in a moment ago.

For clients that never ask for the present password, as those of the RealWorld API. Natively it is
asked for where it matters (services.recovery).
"""

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Client, Identity
from app.auth.security import hash_password
from app.core import clock
from app.core.config import Registration, get_settings
from app.core.errors import PasswordRequired, RecentLoginRequired
from app.db.session import Database, constraint_errors
from app.models.session import UserSession
from app.schemas.user import AccountUpdate, UserPrivate
from app.services import attempts, audit, mail
from app.services.audit import AuditAction
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

    Another email is in force at once, and gets a link to verify it. Raises RecentLoginRequired for
    email and password after an hour, PasswordRequired for the email where nobody is to learn who
    has an account (REGISTRATION=by_email), EmailTaken, UsernameTaken, TooManyAttempts,
    TokenRevoked; SessionRequired for an API key.
    """
    given = changes.model_dump(exclude_unset=True, exclude={"password", "email"})
    email = changes.email if changes.email and changes.email != actor.email else None
    if email or changes.password:
        await _require_recent_login(database, actor)
    hashed = None
    if changes.password:
        hashed = await hash_password(changes.password.get_secret_value())  # holds no connection
    if email:
        if get_settings().registration is Registration.BY_EMAIL:
            raise PasswordRequired
        await attempts.count(database, attempts.on_mail(client=client))
    user = await lock_user(session, user=actor)
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


async def _require_recent_login(database: Database, actor: Identity) -> None:
    """Raise RecentLoginRequired where whoever has the token may not know the password."""
    opened = select(UserSession.created_at).where(UserSession.id == actor.session_id)
    async with database.autocommit() as lookup:
        opened_at = await lookup.scalar(opened)
    if opened_at is None or clock.now() - opened_at > RECENT:
        raise RecentLoginRequired
