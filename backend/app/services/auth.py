"""Logging in."""

from typing import NamedTuple

from email_validator import EmailNotValidError, validate_email
from sqlalchemy import bindparam, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import security
from app.auth.challenges import create_challenge
from app.auth.identity import Client
from app.core.errors import InvalidCredentials, SecondFactorRequired
from app.db.session import NO_KEY_UPDATE, Database
from app.models.second_factor import SecondFactor
from app.models.user import User
from app.schemas.auth import LoginForm, Tokens
from app.services import attempts, audit, sessions
from app.services.audit import AuditAction


class Account(NamedTuple):
    """What a login needs to know of the user whom it names."""

    id: int
    hashed_password: str
    is_active: bool
    has_second_factor: bool
    knows_client_by: str | None


async def login(
    session: AsyncSession,
    *,
    database: Database,
    form: LoginForm,
    client: Client,
    refresh_token: str | None = None,
    seconds: int | None = None,
    by_conduit: bool = False,
) -> Tokens:
    """Log in the user whom the form names by username or email.

    `refresh_token`, of a session that the user has or had, says that the client is known to them.
    The access token is good for `seconds`, where that is given. `by_conduit` tells a login at the
    RealWorld API.

    Raises InvalidCredentials, alike and after the same time for an unknown name, a wrong password
    and a disabled user; SecondFactorRequired where the password was right, and not enough;
    TooManyAttempts. No connection is held while the password is hashed. What must outlive an error
    is recorded in units of work of their own.
    """
    name, account = await _find(database, form.username, client, refresh_token)
    known_by = account and account.knows_client_by
    password = form.password.get_secret_value()
    async with attempts.guessing(
        database, attempts.on_password(name, client=client, known_by=known_by)
    ):
        valid = await security.verify_password(password, account and account.hashed_password)
        if account is None or not valid or not account.is_active:
            async with database.unit_of_work() as facts:
                user_id = account.id if account else None
                audit.record(facts, AuditAction.LOGIN_FAILED, actor_id=None, subject_id=user_id)
            raise InvalidCredentials
    hashed = account.hashed_password
    if security.is_outdated(hashed):
        hashed = await _renew(database, account, password)
    if account.has_second_factor:
        raise SecondFactorRequired(create_challenge(account.id, hashed))
    if not await _is_still_right(session, account.id, hashed, password):
        raise InvalidCredentials
    audit.record(session, AuditAction.LOGIN, actor_id=account.id, subject_id=account.id)
    return await sessions.open_session(
        session, user_id=account.id, client=client, seconds=seconds, by_conduit=by_conduit
    )


HAS_SECOND_FACTOR = (
    select(SecondFactor.user_id)
    .where(SecondFactor.user_id == User.id, SecondFactor.confirmed_at.is_not(None))
    .exists()
)


async def _find(
    database: Database, name: str, client: Client, refresh_token: str | None
) -> tuple[str, Account | None]:
    """The name as it is looked up, in lower case as the database makes it, and its account.

    One query, whether there is such an account or not.
    """
    lowered = select(func.lower(literal(_normal_form(name))).label("name")).subquery()
    column = func.lower(User.email if "@" in name else User.username)
    query = select(
        lowered.c.name,
        User.id,
        User.hashed_password,
        User.is_active,
        HAS_SECOND_FACTOR,
        sessions.known_by(client, refresh_token=refresh_token),
    ).select_from(lowered.outerjoin(User, column == lowered.c.name))
    async with database.autocommit() as lookup:  # on the primary: a replica may not know yet
        looked_up, *found = (await lookup.execute(query)).one()
    return looked_up, Account._make(found) if found[0] is not None else None


_CURRENT = (
    select(User.hashed_password)
    .where(User.id == bindparam("id"), User.is_active, ~HAS_SECOND_FACTOR)
    .with_for_update(**NO_KEY_UPDATE)
)


_RENEW = (
    update(User)
    .where(User.id == bindparam("of"), User.hashed_password == bindparam("before"))
    .values(hashed_password=bindparam("now"), updated_at=User.updated_at)
    .returning(User.hashed_password)
)
"""The user has changed nothing: `updated_at` stays."""


async def _renew(database: Database, account: Account, password: str) -> str:
    """The hash by today's cost, stored; or the one before, where another login was faster."""
    before = account.hashed_password
    parameters = {
        "of": account.id,
        "before": before,
        "now": await security.hash_password(password),
    }
    async with database.autocommit() as connection:
        renewed: str | None = await connection.scalar(_RENEW, parameters)
    return renewed or before


async def _is_still_right(
    session: AsyncSession, user_id: int, compared: str, password: str
) -> bool:
    """Whether the user may still log in by what was compared; if so, their row is locked.

    They may have been disabled meanwhile, have changed the password, or have enabled a second
    factor; or another login has renewed the hash, and what it is now is compared again.
    """
    while True:
        current = await session.scalar(_CURRENT, {"id": user_id})
        if current == compared:
            return True
        await session.rollback()  # no connection is held while passwords are hashed
        if current is None or not await security.verify_password(password, current):
            return False
        compared = current


def _normal_form(name: str) -> str:
    """An email as it was stored when its user registered; a username as it is."""
    try:
        return validate_email(name, check_deliverability=False).normalized
    except EmailNotValidError:
        return name
