"""Logging in."""

from email_validator import EmailNotValidError, validate_email
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
        func.lower(column) == func.lower(_normal_form(form.username))
    )
    async with database.unit_of_work() as lookup:  # on the primary: a replica may not know yet
        user = (await lookup.execute(query)).one_or_none()

    password = form.password.get_secret_value()
    valid = await security.verify_password(password, user.hashed_password if user else None)
    if user is None or not valid or not user.is_active:
        async with database.unit_of_work() as facts:
            user_id = user.id if user else None
            audit.record(facts, AuditAction.LOGIN_FAILED, actor_id=None, subject_id=user_id)
        raise InvalidCredentials

    if security.is_outdated(user.hashed_password):
        renewed = await security.hash_password(password)
        unchanged = User.updated_at  # the user has changed nothing
        statement = update(User).where(User.id == user.id)
        await session.execute(statement.values(hashed_password=renewed, updated_at=unchanged))
    audit.record(session, AuditAction.LOGIN, actor_id=user.id, subject_id=user.id)
    return security.create_access_token(user_id=user.id)


def _normal_form(name: str) -> str:
    """An email as it was stored when its user registered; a username as it is."""
    try:
        return validate_email(name, check_deliverability=False).normalized
    except EmailNotValidError:
        return name
