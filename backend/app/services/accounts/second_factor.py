"""Second factor: authenticator codes, and recovery codes for a lost authenticator.

Each code is accepted once. A single statement decides: the second of two concurrent requests with
the same code changes no row. Every use of a code locks the user's row first. A concurrent password
change or account deletion is therefore complete before or starts after it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from pydantic import SecretStr
from sqlalchemy import bindparam, delete, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import codes, sealing
from app.auth.challenges import Challenge, read_challenge
from app.auth.identity import Client, Identity
from app.auth.permissions import Action, require
from app.auth.tokens import fingerprint
from app.core import clock
from app.core.errors import (
    IncorrectCode,
    InvalidChallenge,
    InvalidCode,
    NotAuthorized,
    SecondFactorEnabled,
    SecondFactorNotEnabled,
    UserNotFound,
)
from app.core.logging import get_logger
from app.db.reading import Reader
from app.db.session import NO_KEY_UPDATE, Database
from app.models.accounts.second_factor import RecoveryCode, SecondFactor
from app.models.accounts.user import User
from app.schemas.accounts.login import Tokens
from app.schemas.accounts.second_factor import (
    RecoveryCodeList,
    SecondFactorChange,
    SecondFactorConfirm,
    SecondFactorCreate,
    SecondFactorCreated,
    SecondFactorLogin,
    SecondFactorStatus,
)
from app.services import audit
from app.services.accounts import rate_limits, sessions
from app.services.accounts.confirmation import confirm_password, lock_user
from app.services.audit import AuditAction

logger = get_logger(__name__)

Opened_co = TypeVar("Opened_co", covariant=True)


class SessionOpener(Protocol[Opened_co]):
    """Opens a session in the unit of work that consumes the code."""

    async def __call__(
        self, session: AsyncSession, /, *, user_id: int, client: Client
    ) -> Opened_co: ...


_STATUS = select(
    select(SecondFactor.user_id)
    .where(SecondFactor.user_id == bindparam("user_id"), SecondFactor.confirmed_at.is_not(None))
    .exists()
    .label("enabled"),
    select(func.count())
    .select_from(RecoveryCode)
    .where(RecoveryCode.user_id == bindparam("user_id"))
    .scalar_subquery()
    .label("recovery_codes_left"),
)


async def read_second_factor(reader: Reader, *, user: Identity) -> SecondFactorStatus:
    """Return whether the user has a second factor, and how many recovery codes are left."""
    row = (await reader.execute(_STATUS, {"user_id": user.id})).one()
    return SecondFactorStatus.model_validate(row)


async def create_second_factor(
    database: Database, *, new: SecondFactorCreate, user: Identity
) -> SecondFactorCreated:
    """Create a secret, which takes effect when its first code is confirmed.

    A new secret replaces an unconfirmed one. Raises IncorrectPassword, TooManyAttempts,
    SecondFactorEnabled.
    """
    await confirm_password(database, user=user, password=new.password)
    secret = codes.new_authenticator_secret()
    values = {
        "sealed_secret": sealing.seal(secret),
        "created_at": clock.now(),
        "last_step": None,
    }
    statement = (
        postgresql.insert(SecondFactor)
        .values(user_id=user.id, **values)
        .on_conflict_do_update(
            index_elements=[SecondFactor.user_id],
            set_=values,
            where=SecondFactor.confirmed_at.is_(None),
        )
        .returning(SecondFactor.user_id)
    )
    async with database.unit_of_work() as session:
        await lock_user(session, user=user)
        if await session.scalar(statement) is None:
            raise SecondFactorEnabled
    return SecondFactorCreated(
        secret=secret, uri=codes.authenticator_uri(secret, username=user.username)
    )


async def confirm_second_factor(
    database: Database, *, form: SecondFactorConfirm, user: Identity
) -> RecoveryCodeList:
    """Enable the second factor with a code of its authenticator, and return recovery codes.

    Raises IncorrectCode, TooManyAttempts, SecondFactorEnabled, and SecondFactorNotEnabled if no
    secret was created.
    """
    code = codes.normalize_code(form.code.get_secret_value())
    async with (
        rate_limits.attempt(database, rate_limits.confirmation_limits(user, "code")),
        database.unit_of_work() as session,
    ):
        await lock_user(session, user=user)
        factor = await _pending_factor(session, user.id)
        if not await _consume_time_based(session, factor, code):
            raise IncorrectCode
        factor.confirmed_at = clock.now()
        _record(session, AuditAction.ENABLE_SECOND_FACTOR, user.id)
        return await _new_recovery_codes(session, user.id)


async def renew_recovery_codes(
    database: Database, *, form: SecondFactorChange, user: Identity
) -> RecoveryCodeList:
    """Replace the recovery codes and return the new ones.

    Raises IncorrectPassword, IncorrectCode, TooManyAttempts, SecondFactorNotEnabled.
    """
    async with _confirmed_session(database, form=form, user=user) as session:
        _record(session, AuditAction.RENEW_RECOVERY_CODES, user.id)
        return await _new_recovery_codes(session, user.id)


async def confirm_code(database: Database, *, user: Identity, code: SecretStr | None) -> None:
    """Consume a code of the user's second factor; do nothing if the user has none.

    Raises IncorrectCode, TooManyAttempts.
    """
    async with database.autocommit() as lookup:
        status = (await lookup.execute(_STATUS, {"user_id": user.id})).one()
    if not status.enabled:
        return
    if code is None:
        raise IncorrectCode("Your account has a second factor; send a code as `code`")
    async with (
        rate_limits.attempt(database, rate_limits.confirmation_limits(user, "code")),
        database.unit_of_work() as session,
    ):
        await lock_user(session, user=user)
        if not await _consume_code(session, await _enabled_factor(session, user.id), code):
            raise IncorrectCode


async def disable_second_factor(
    database: Database, *, form: SecondFactorChange, user: Identity
) -> None:
    """Disable the second factor, and delete its secret and recovery codes.

    Raises IncorrectPassword, IncorrectCode, TooManyAttempts, SecondFactorNotEnabled.
    """
    async with _confirmed_session(database, form=form, user=user) as session:
        await _delete(session, user.id)
        _record(session, AuditAction.DISABLE_SECOND_FACTOR, user.id)


async def _delete(session: AsyncSession, user_id: int) -> None:
    for model in (SecondFactor, RecoveryCode):
        await session.execute(delete(model).where(model.user_id == user_id))


async def remove_second_factor(session: AsyncSession, *, user_id: int, actor: Identity) -> None:
    """Disable the second factor of a user who has lost it, as an administrator.

    Raises NotAuthorized, also for the actor's own, which needs a password and a code. Raises
    UserNotFound, SecondFactorNotEnabled.
    """
    require(actor, Action.RESET_CREDENTIALS, owner_id=user_id)
    if user_id == actor.id:
        raise NotAuthorized
    if await session.get(User, user_id, with_for_update=NO_KEY_UPDATE) is None:
        raise UserNotFound
    await _enabled_factor(session, user_id)
    await _delete(session, user_id)
    action = AuditAction.DISABLE_SECOND_FACTOR
    audit.record(session, action, actor_id=actor.id, subject_id=user_id)


async def log_in(
    database: Database,
    *,
    form: SecondFactorLogin,
    client: Client,
    session_token: str | None = None,
) -> Tokens:
    """Complete a login whose password was correct. Raises the errors of `complete_login`."""
    return await complete_login(
        database,
        form=form,
        client=client,
        session_token=session_token,
        open_session=sessions.open_session,
    )


async def complete_login(
    database: Database,
    *,
    form: SecondFactorLogin,
    client: Client,
    open_session: SessionOpener[Opened_co],
    session_token: str | None = None,
) -> Opened_co:
    """Check the code of a login whose password was correct, and return the opened session.

    A `session_token` of a current or former session identifies a client that the user has used
    before.

    Raises InvalidChallenge if the user has since changed the password or the second factor, or
    may no longer log in. Raises InvalidCode, which is recorded, and TooManyAttempts.
    """
    challenge = read_challenge(form.challenge)
    user_id = challenge.user_id
    known_client = sessions.known_by(client, session_token=session_token)
    async with database.unit_of_work() as lookup:
        await _challenged_factor(lookup, challenge)
        known_by = await lookup.scalar(select(known_client).where(User.id == user_id))
    limits = rate_limits.code_limits(user_id, client=client, known_by=known_by)
    async with rate_limits.attempt(database, limits, is_login=True):
        async with database.unit_of_work() as session:
            factor = await _challenged_factor(session, challenge)
            if await _consume_code(session, factor, form.code):
                _record(session, AuditAction.LOGIN, user_id)
                return await open_session(session, user_id=user_id, client=client)
            audit.record(session, AuditAction.LOGIN_FAILED, actor_id=None, subject_id=user_id)
        raise InvalidCode


async def reseal_all(session: AsyncSession) -> int:
    """Encrypt secrets again that a previous SECRET_KEY encrypted; return how many.

    The previous key can be removed afterwards. A secret that no key can decrypt is logged and left
    unchanged.
    """
    count = 0
    factors = await session.stream_scalars(
        select(SecondFactor).order_by(SecondFactor.user_id).with_for_update()
    )
    async for factor in factors:
        if sealing.needs_reseal(factor.sealed_secret):
            secret = _decrypted_secret(factor)
            if secret is not None:
                factor.sealed_secret = sealing.seal(secret)
                count += 1
    return count


@asynccontextmanager
async def _confirmed_session(
    database: Database, *, form: SecondFactorChange, user: Identity
) -> AsyncIterator[AsyncSession]:
    """Yield a unit of work after a check of password and code; its commit consumes the code.

    Raises IncorrectPassword, IncorrectCode, TooManyAttempts, SecondFactorNotEnabled.
    """
    await confirm_password(database, user=user, password=form.password)
    async with (
        rate_limits.attempt(database, rate_limits.confirmation_limits(user, "code")),
        database.unit_of_work() as session,
    ):
        await lock_user(session, user=user)
        if not await _consume_code(session, await _enabled_factor(session, user.id), form.code):
            raise IncorrectCode
        yield session


async def _challenged_factor(session: AsyncSession, challenge: Challenge) -> SecondFactor:
    """Lock the user of a challenge and return their second factor. Raises InvalidChallenge."""
    user = await session.get(User, challenge.user_id, with_for_update=NO_KEY_UPDATE)
    if user is None or not user.is_active or not challenge.matches(user.hashed_password):
        raise InvalidChallenge
    factor = await session.get(SecondFactor, user.id)
    if factor is None or factor.confirmed_at is None:
        raise InvalidChallenge
    return factor


async def _enabled_factor(session: AsyncSession, user_id: int) -> SecondFactor:
    """Return a user's confirmed second factor. Raises SecondFactorNotEnabled."""
    factor = await session.get(SecondFactor, user_id)
    if factor is None or factor.confirmed_at is None:
        raise SecondFactorNotEnabled
    return factor


async def _pending_factor(session: AsyncSession, user_id: int) -> SecondFactor:
    """Return an unconfirmed second factor. Raises SecondFactorEnabled, SecondFactorNotEnabled."""
    factor = await session.get(SecondFactor, user_id)
    if factor is None:
        raise SecondFactorNotEnabled("Create a second factor first")
    if factor.confirmed_at is not None:
        raise SecondFactorEnabled
    return factor


async def _consume_code(session: AsyncSession, factor: SecondFactor, code: SecretStr) -> bool:
    """Consume an authenticator or recovery code; return False if it is wrong or already used."""
    text = codes.normalize_code(code.get_secret_value())
    if codes.is_time_based(text):
        return await _consume_time_based(session, factor, text)
    return await _consume_recovery_code(session, factor.user_id, text)


async def _consume_time_based(session: AsyncSession, factor: SecondFactor, code: str) -> bool:
    secret = _decrypted_secret(factor)
    step = codes.find_time_step(code, secret=secret) if secret is not None else None
    if secret is None or step is None:
        return False
    accepted = await session.scalar(
        update(SecondFactor)
        .where(
            SecondFactor.user_id == factor.user_id,
            or_(SecondFactor.last_step.is_(None), SecondFactor.last_step < step),
        )
        .values(last_step=step)
        .returning(SecondFactor.user_id)
    )
    if accepted is not None and sealing.needs_reseal(factor.sealed_secret):
        factor.sealed_secret = sealing.seal(secret)
    return accepted is not None


async def _consume_recovery_code(session: AsyncSession, user_id: int, code: str) -> bool:
    used = await session.scalar(
        delete(RecoveryCode)
        .where(RecoveryCode.user_id == user_id, RecoveryCode.code_hash == fingerprint(code))
        .returning(RecoveryCode.user_id)
    )
    if used is not None:
        _record(session, AuditAction.USE_RECOVERY_CODE, user_id)
    return used is not None


def _decrypted_secret(factor: SecondFactor) -> str | None:
    """Return the secret; None if its SECRET_KEY is lost. Recovery codes still work then."""
    try:
        return sealing.unseal(factor.sealed_secret)
    except sealing.UnsealError:
        logger.warning("second factor cannot be decrypted", user_id=factor.user_id)
        return None


async def _new_recovery_codes(session: AsyncSession, user_id: int) -> RecoveryCodeList:
    """Replace a user's recovery codes; only their hashes are stored."""
    new = codes.new_recovery_codes()
    await session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
    hashes = [fingerprint(codes.normalize_code(code)) for code in new]
    rows = [{"user_id": user_id, "code_hash": hashed} for hashed in hashes]
    await session.execute(insert(RecoveryCode), rows)
    return RecoveryCodeList(recovery_codes=new)


def _record(session: AsyncSession, action: AuditAction, user_id: int) -> None:
    audit.record(session, action, actor_id=user_id, subject_id=user_id)
