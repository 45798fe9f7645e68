"""Logging in."""

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import security
from app.core.errors import InvalidCredentials
from app.db.session import Database
from app.models.user import User
from app.schemas.auth import AccessToken, LoginForm
from app.services import audit
from app.services.audit import AuditAction


async def login(session: AsyncSession, *, database: Database, form: LoginForm) -> AccessToken:
    """An access token for the user whom the form names by username or email.

    Raises InvalidCredentials, alike and after the same time for an unknown name, a wrong password
    and a disabled user. No connection is held while the password is hashed. The failure is
    recorded in a unit of work of its own, for it must outlive the error.
    """
    column = User.email if "@" in form.username else User.username
    query = select(User.id, User.hashed_password, User.is_active).where(
        func.lower(column) == func.lower(form.username)
    )
    async with database.read() as connection:
        user = (await connection.execute(query)).one_or_none()

    valid, outdated = await security.verify_password(
        form.password.get_secret_value(), user.hashed_password if user else None
    )
    if user is None or not valid or not user.is_active:
        async with database.unit_of_work() as facts:
            user_id = user.id if user else None
            audit.record(facts, AuditAction.LOGIN_FAILED, actor_id=None, subject_id=user_id)
        raise InvalidCredentials

    if outdated is not None:
        await session.execute(
            update(User).where(User.id == user.id).values(hashed_password=outdated)
        )
    audit.record(session, AuditAction.LOGIN, actor_id=user.id, subject_id=user.id)
    return security.create_access_token(user_id=user.id)
