"""Page sessions: opened by the sign-in page, and confirmed with a password."""

from datetime import timedelta
from typing import Any

from pydantic import SecretStr
from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import (
    Client,
    Identity,
    PageIdentity,
    find_by_page_session,
    record_use,
    record_use_on_primary,
)
from app.auth.tokens import PageToken, page_fingerprint
from app.core import clock
from app.core.errors import InvalidToken
from app.db.session import Database
from app.models.accounts.session import UserSession
from app.schemas.accounts.login import LoginForm
from app.schemas.accounts.second_factor import SecondFactorLogin
from app.schemas.accounts.user import UserCreate
from app.services.accounts import login, registration, second_factor, sessions
from app.services.accounts.confirmation import confirm_password

CONFIRMATION_LASTS = timedelta(minutes=15)
"""How long a page session counts as confirmed after the user has sent the password."""

_CONFIRM = (
    update(UserSession)
    .where(
        UserSession.id == bindparam("session_id"),
        UserSession.by_page,
        UserSession.revoked_at.is_(None),
    )
    .values(confirmed_at=bindparam("now"))
)


async def sign_in(
    session: AsyncSession,
    *,
    database: Database,
    form: LoginForm,
    client: Client,
    former: Identity | None,
    cookie: str | None = None,
) -> PageToken:
    """Open a page session for a username or email and a password.

    It replaces the page session `former` of the same browser, which ends. The `cookie` of a
    current or former page session identifies a client that the user has used before.

    Raises InvalidCredentials, SecondFactorRequired, TooManyAttempts, LimitReached.
    """
    user_id = await login.authenticate(
        session, database=database, form=form, client=client, session_token=cookie
    )
    await _end(session, former)
    return await sessions.open_page_session(session, user_id=user_id, client=client)


async def complete_sign_in(
    database: Database,
    *,
    form: SecondFactorLogin,
    client: Client,
    former: Identity | None,
    cookie: str | None = None,
) -> PageToken:
    """Open a page session with the code of a second factor. The arguments are those of `sign_in`.

    Raises InvalidChallenge, InvalidCode, TooManyAttempts, LimitReached.
    """

    async def replace(session: AsyncSession, *, user_id: int, client: Client) -> PageToken:
        await _end(session, former)
        return await sessions.open_page_session(session, user_id=user_id, client=client)

    return await second_factor.complete_login(
        database, form=form, client=client, session_token=cookie, open_session=replace
    )


async def _end(session: AsyncSession, former: Identity | None) -> None:
    """End the page session that the browser had before."""
    if former is not None:
        await sessions.log_out(session, identity=former, refresh_token=None)


async def register(
    session: AsyncSession, *, database: Database, new: UserCreate, client: Client
) -> PageToken:
    """Register a user, and open a page session.

    Raises EmailTaken, UsernameTaken, TooManyAttempts, LimitReached.
    """
    user = await registration.register(session, database=database, client=client, new=new)
    return await sessions.open_page_session(session, user_id=user.id, client=client)


async def find(database: Database, *, cookie: str, reads: bool = False) -> PageIdentity | None:
    """Return the user of a page session's cookie; None if the session has ended.

    With `reads`, a replica is sufficient.
    """
    token = PageToken.parse(cookie)
    if token is None:
        return None
    of_token: dict[str, Any] = {
        "session_id": token.session_id,
        "fingerprint": page_fingerprint(token.secret),
    }
    try:
        if reads and database.has_replicas:
            found = await find_by_page_session(database.reader, **of_token)
            if found is not None:
                await record_use_on_primary(database, found)
            return found
        async with database.autocommit() as connection:
            found = await find_by_page_session(connection, **of_token)
            if found is not None:
                await record_use(connection, found)
    except InvalidToken:
        return None
    return found


def is_confirmed(page: PageIdentity) -> bool:
    """Return whether the user has recently sent the password in this session."""
    confirmed = page.confirmed_at
    return confirmed is not None and confirmed > clock.now() - CONFIRMATION_LASTS


async def confirm(
    database: Database, *, user: Identity, password: SecretStr, code: SecretStr | None
) -> None:
    """Confirm the user's page session with the password, and a code if there is a second factor.

    Raises IncorrectPassword, IncorrectCode, TooManyAttempts.
    """
    await confirm_password(database, user=user, password=password)
    await second_factor.confirm_code(database, user=user, code=code)
    async with database.unit_of_work() as session:
        await session.execute(_CONFIRM, {"session_id": user.session_id, "now": clock.now()})
