"""Login with username or email and password."""

from typing import NamedTuple

from email_validator import EmailNotValidError, validate_email
from sqlalchemy import bindparam, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import security
from app.auth.challenges import create_challenge
from app.auth.identity import Client
from app.core.errors import InvalidCredentials, SecondFactorRequired
from app.db.session import NO_KEY_UPDATE, Database
from app.models.accounts.second_factor import SecondFactor
from app.models.accounts.user import User
from app.schemas.accounts.login import LoginForm, Tokens
from app.services import audit
from app.services.accounts import rate_limits, sessions
from app.services.audit import AuditAction


class Account(NamedTuple):
    """The user whom a login names.

    `known_by` is the session or network that makes the client known to the user, or None.
    """

    id: int
    hashed_password: str
    is_active: bool
    has_second_factor: bool
    known_by: str | None


async def login(
    session: AsyncSession,
    *,
    database: Database,
    form: LoginForm,
    client: Client,
    session_token: str | None = None,
    seconds: int | None = None,
    by_conduit: bool = False,
) -> Tokens:
    """Log in a user by username or email. Raises the errors of `authenticate`.

    A `session_token` of a current or former session identifies a client that the user has used
    before. `seconds` overrides the lifetime of the access token. `by_conduit` marks a login at the
    RealWorld API.
    """
    user_id = await authenticate(
        session, database=database, form=form, client=client, session_token=session_token
    )
    return await sessions.open_session(
        session, user_id=user_id, client=client, seconds=seconds, by_conduit=by_conduit
    )


async def authenticate(
    session: AsyncSession,
    *,
    database: Database,
    form: LoginForm,
    client: Client,
    session_token: str | None = None,
) -> int:
    """Check username or email and password, and return the id of the user, whose row is locked.

    Raises InvalidCredentials for an unknown name, a wrong password and a disabled user. The three
    cases take equally long. Raises SecondFactorRequired if the password was correct but a code is
    needed, and TooManyAttempts. The function holds no connection while it hashes the password.
    Failures are recorded in their own units of work, because the error rolls back `session`.
    """
    name, account = await _find(database, form.username, client, session_token)
    known_by = account and account.known_by
    password = form.password.get_secret_value()
    async with rate_limits.attempt(
        database,
        rate_limits.password_limits(name, client=client, known_by=known_by),
        is_login=True,
    ):
        valid = await security.verify_password(password, account and account.hashed_password)
        if account is None or not valid or not account.is_active:
            async with database.unit_of_work() as audit_session:
                user_id = account.id if account else None
                audit.record(
                    audit_session, AuditAction.LOGIN_FAILED, actor_id=None, subject_id=user_id
                )
            raise InvalidCredentials
    hashed = account.hashed_password
    if security.is_outdated(hashed):
        hashed = await _rehash(database, account, password)
    if account.has_second_factor:
        raise SecondFactorRequired(create_challenge(account.id, hashed))
    if not await _is_still_valid(session, account.id, hashed, password):
        raise InvalidCredentials
    audit.record(session, AuditAction.LOGIN, actor_id=account.id, subject_id=account.id)
    return account.id


HAS_SECOND_FACTOR = (
    select(SecondFactor.user_id)
    .where(SecondFactor.user_id == User.id, SecondFactor.confirmed_at.is_not(None))
    .exists()
)


async def _find(
    database: Database, name: str, client: Client, session_token: str | None
) -> tuple[str, Account | None]:
    """Return the normalized name, in lower case as PostgreSQL computes it, and its account.

    One query runs whether the account exists or not.
    """
    lowered = select(func.lower(literal(_normal_form(name))).label("name")).subquery()
    column = func.lower(User.email if "@" in name else User.username)
    query = select(
        lowered.c.name,
        User.id,
        User.hashed_password,
        User.is_active,
        HAS_SECOND_FACTOR,
        sessions.known_by(client, session_token=session_token),
    ).select_from(lowered.outerjoin(User, column == lowered.c.name))
    async with database.autocommit() as lookup:  # on the primary, because a replica may lag
        looked_up, *found = (await lookup.execute(query)).one()
    return looked_up, Account._make(found) if found[0] is not None else None


_CURRENT_HASH = (
    select(User.hashed_password)
    .where(User.id == bindparam("id"), User.is_active, ~HAS_SECOND_FACTOR)
    .with_for_update(**NO_KEY_UPDATE)
)


_REHASH = (
    update(User)
    .where(User.id == bindparam("user_id"), User.hashed_password == bindparam("old_hash"))
    .values(hashed_password=bindparam("new_hash"), updated_at=User.updated_at)
    .returning(User.hashed_password)
)
"""Keeps `updated_at`, because the user has changed nothing."""


async def _rehash(database: Database, account: Account, password: str) -> str:
    """Store a hash with the configured cost and return it.

    Returns the old hash if another login has changed it in the meantime.
    """
    old_hash = account.hashed_password
    parameters = {
        "user_id": account.id,
        "old_hash": old_hash,
        "new_hash": await security.hash_password(password),
    }
    async with database.autocommit() as connection:
        new_hash: str | None = await connection.scalar(_REHASH, parameters)
    return new_hash or old_hash


async def _is_still_valid(
    session: AsyncSession, user_id: int, compared: str, password: str
) -> bool:
    """Lock the user's row, and return whether the user may still log in with this password.

    The user may have been disabled, have changed the password or have enabled a second factor
    since the hash was compared. If another login has rehashed the password, compare it again.
    """
    while True:
        current = await session.scalar(_CURRENT_HASH, {"id": user_id})
        if current == compared:
            return True
        await session.rollback()  # releases the connection before hashing
        if current is None or not await security.verify_password(password, current):
            return False
        compared = current


def _normal_form(name: str) -> str:
    """Return an email in the form that is stored; a username unchanged."""
    try:
        return validate_email(name, check_deliverability=False).normalized
    except EmailNotValidError:
        return name
