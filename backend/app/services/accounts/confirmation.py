"""Password confirmation before actions that a stolen token must not allow."""

from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import security
from app.auth.identity import Identity, find_by_session
from app.core.errors import IncorrectPassword, InvalidToken, SessionRequired
from app.core.limits import LimitKind
from app.db.session import NO_KEY_UPDATE, Database
from app.models.accounts.user import User
from app.services import limits
from app.services.accounts import rate_limits


async def confirm_password(database: Database, *, user: Identity, password: SecretStr) -> None:
    """Raise IncorrectPassword or TooManyAttempts unless `password` is correct.

    Uses its own units of work, so that the failure is stored although the error rolls back the
    request. It holds no connection while it hashes the password.
    """
    async with database.autocommit() as lookup:
        hashed = await lookup.scalar(select(User.hashed_password).where(User.id == user.id))
    async with rate_limits.attempt(database, rate_limits.confirmation_limits(user, "password")):
        if not await security.verify_password(password.get_secret_value(), hashed):
            raise IncorrectPassword


async def lock_user(session: AsyncSession, *, user: Identity) -> User:
    """Lock and return the user's row, check the session again, and count one account change.

    A password reset ends all sessions. A request that a thief started before it must not take
    effect after it. Raises InvalidToken, TokenRevoked, LimitReached, and SessionRequired for an
    API key.
    """
    if user.session_id is None:
        raise SessionRequired
    locked = await session.get(User, user.id, with_for_update=NO_KEY_UPDATE)
    found = await find_by_session(session, user_id=user.id, session_id=user.session_id)
    if locked is None or found is None:
        raise InvalidToken
    await limits.spend(session, user, {LimitKind.ACCOUNT_CHANGES: 1})
    return locked
