"""The second factor: an authenticator's codes, and recovery codes for when it is lost.

Each code is taken once, by one statement that decides: of two requests with the same code at once,
the second finds nothing to change. The user's row is locked first wherever a code is used, so that
a password that changes or an account that goes meanwhile comes before or after, never between.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import SecretStr
from sqlalchemy import bindparam, delete, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import codes, sealing
from app.auth.challenges import Challenge, read_challenge
from app.auth.identity import Client, Identity
from app.auth.tokens import fingerprint
from app.core import clock
from app.core.errors import (
    IncorrectCode,
    InvalidChallenge,
    InvalidCode,
    SecondFactorEnabled,
    SecondFactorNotEnabled,
)
from app.core.logging import get_logger
from app.db.reading import Reader
from app.db.session import NO_KEY_UPDATE, Database
from app.models.second_factor import RecoveryCode, SecondFactor
from app.models.user import User
from app.schemas.auth import Tokens
from app.schemas.second_factor import (
    RecoveryCodes,
    SecondFactorChange,
    SecondFactorConfirm,
    SecondFactorCreate,
    SecondFactorCreated,
    SecondFactorLogin,
    SecondFactorStatus,
)
from app.services import attempts, audit, sessions
from app.services.audit import AuditAction
from app.services.confirmation import confirm_password, lock_user

logger = get_logger(__name__)

_STATUS = select(
    select(SecondFactor.user_id)
    .where(SecondFactor.user_id == bindparam("of"), SecondFactor.confirmed_at.is_not(None))
    .exists()
    .label("enabled"),
    select(func.count())
    .select_from(RecoveryCode)
    .where(RecoveryCode.user_id == bindparam("of"))
    .scalar_subquery()
    .label("recovery_codes_left"),
)


async def read_second_factor(connection: Reader, *, user: Identity) -> SecondFactorStatus:
    """Whether the user has a second factor."""
    row = (await connection.execute(_STATUS, {"of": user.id})).one()
    return SecondFactorStatus.model_validate(row)


async def create_second_factor(
    database: Database, *, new: SecondFactorCreate, user: Identity
) -> SecondFactorCreated:
    """Give out a secret, which counts once a code of it has been confirmed; until then, anew.

    Raises IncorrectPassword, TooManyAttempts, SecondFactorEnabled.
    """
    await confirm_password(database, user=user, password=new.password)
    secret = codes.new_authenticator_secret()
    fresh = {
        "sealed_secret": sealing.seal(secret),
        "created_at": clock.now(),
        "last_step": None,
    }
    statement = (
        postgresql.insert(SecondFactor)
        .values(user_id=user.id, **fresh)
        .on_conflict_do_update(
            index_elements=[SecondFactor.user_id],
            set_=fresh,
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
) -> RecoveryCodes:
    """Enable the second factor by a code of its authenticator, and give out recovery codes.

    Raises IncorrectCode, TooManyAttempts, SecondFactorEnabled; SecondFactorNotEnabled where no
    secret was given out.
    """
    code = codes.bare(form.code.get_secret_value())
    async with (
        attempts.guessing(database, attempts.on_confirmation(user, "code")),
        database.unit_of_work() as session,
    ):
        await lock_user(session, user=user)
        factor = await _pending(session, user.id)
        if not await _use_time_based(session, factor, code):
            raise IncorrectCode
        factor.confirmed_at = clock.now()
        _record(session, AuditAction.ENABLE_SECOND_FACTOR, user.id)
        return await _new_recovery_codes(session, user.id)


async def renew_recovery_codes(
    database: Database, *, form: SecondFactorChange, user: Identity
) -> RecoveryCodes:
    """Give out new recovery codes; the old ones are void.

    Raises IncorrectPassword, IncorrectCode, TooManyAttempts, SecondFactorNotEnabled.
    """
    async with _confirmed(database, form=form, user=user) as session:
        _record(session, AuditAction.RENEW_RECOVERY_CODES, user.id)
        return await _new_recovery_codes(session, user.id)


async def confirm_code(database: Database, *, user: Identity, code: SecretStr | None) -> None:
    """Use up a code of a user who has a second factor; nothing is checked for one who has none.

    Raises IncorrectCode, TooManyAttempts.
    """
    async with database.autocommit() as lookup:
        status = (await lookup.execute(_STATUS, {"of": user.id})).one()
    if not status.enabled:
        return
    if code is None:
        raise IncorrectCode("Your account has a second factor: send a code of it as `code` as well")
    async with (
        attempts.guessing(database, attempts.on_confirmation(user, "code")),
        database.unit_of_work() as session,
    ):
        await lock_user(session, user=user)
        if not await _use(session, await _enabled(session, user.id), code):
            raise IncorrectCode


async def disable_second_factor(
    database: Database, *, form: SecondFactorChange, user: Identity
) -> None:
    """Have the password do again, and forget secret and recovery codes.

    Raises IncorrectPassword, IncorrectCode, TooManyAttempts, SecondFactorNotEnabled.
    """
    async with _confirmed(database, form=form, user=user) as session:
        for model in (SecondFactor, RecoveryCode):
            await session.execute(delete(model).where(model.user_id == user.id))
        _record(session, AuditAction.DISABLE_SECOND_FACTOR, user.id)


async def log_in(
    database: Database,
    *,
    form: SecondFactorLogin,
    client: Client,
    refresh_token: str | None = None,
) -> Tokens:
    """Complete a login whose password was right.

    `refresh_token`, of a session that the user has or had, says that the client is known to them.

    Raises InvalidChallenge, where the user has changed the password or the second factor since, or
    may not log in at all; InvalidCode, which is recorded; TooManyAttempts.
    """
    challenge = read_challenge(form.challenge)
    user_id = challenge.user_id
    place = sessions.known_by(client, refresh_token=refresh_token)
    async with database.unit_of_work() as lookup:
        await _challenged(lookup, challenge)
        known_by = await lookup.scalar(select(place).where(User.id == user_id))
    limits = attempts.on_code(user_id, client=client, known_by=known_by)
    async with attempts.guessing(database, limits):
        async with database.unit_of_work() as session:
            factor = await _challenged(session, challenge)
            if await _use(session, factor, form.code):
                _record(session, AuditAction.LOGIN, user_id)
                return await sessions.open_session(session, user_id=user_id, client=client)
            audit.record(session, AuditAction.LOGIN_FAILED, actor_id=None, subject_id=user_id)
        raise InvalidCode


async def reseal_all(session: AsyncSession) -> int:
    """Seal by the current SECRET_KEY what a previous one sealed, so that it can be forgotten.

    How many that were. What no key unseals is logged, and stays as it is.
    """
    count = 0
    factors = await session.stream_scalars(
        select(SecondFactor).order_by(SecondFactor.user_id).with_for_update()
    )
    async for factor in factors:
        if sealing.needs_reseal(factor.sealed_secret):
            secret = _unsealed(factor)
            if secret is not None:
                factor.sealed_secret = sealing.seal(secret)
                count += 1
    return count


@asynccontextmanager
async def _confirmed(
    database: Database, *, form: SecondFactorChange, user: Identity
) -> AsyncIterator[AsyncSession]:
    """A unit of work for who has confirmed password and code; the code is used up with it.

    Raises IncorrectPassword, IncorrectCode, TooManyAttempts, SecondFactorNotEnabled.
    """
    await confirm_password(database, user=user, password=form.password)
    async with (
        attempts.guessing(database, attempts.on_confirmation(user, "code")),
        database.unit_of_work() as session,
    ):
        await lock_user(session, user=user)
        if not await _use(session, await _enabled(session, user.id), form.code):
            raise IncorrectCode
        yield session


async def _challenged(session: AsyncSession, challenge: Challenge) -> SecondFactor:
    """The second factor to ask for, its user locked. Raises InvalidChallenge."""
    user = await session.get(User, challenge.user_id, with_for_update=NO_KEY_UPDATE)
    if user is None or not user.is_active or not challenge.fits(user.hashed_password):
        raise InvalidChallenge
    factor = await session.get(SecondFactor, user.id)
    if factor is None or factor.confirmed_at is None:
        raise InvalidChallenge
    return factor


async def _enabled(session: AsyncSession, user_id: int) -> SecondFactor:
    """A user's second factor. Raises SecondFactorNotEnabled."""
    factor = await session.get(SecondFactor, user_id)
    if factor is None or factor.confirmed_at is None:
        raise SecondFactorNotEnabled
    return factor


async def _pending(session: AsyncSession, user_id: int) -> SecondFactor:
    """A second factor to confirm. Raises SecondFactorEnabled, SecondFactorNotEnabled."""
    factor = await session.get(SecondFactor, user_id)
    if factor is None:
        raise SecondFactorNotEnabled("Begin with POST /auth/second-factor")
    if factor.confirmed_at is not None:
        raise SecondFactorEnabled
    return factor


async def _use(session: AsyncSession, factor: SecondFactor, code: SecretStr) -> bool:
    """Use a code up: whether it is the authenticator's or a recovery code, and was not used yet."""
    text = codes.bare(code.get_secret_value())
    if codes.is_time_based(text):
        return await _use_time_based(session, factor, text)
    return await _use_recovery_code(session, factor.user_id, text)


async def _use_time_based(session: AsyncSession, factor: SecondFactor, code: str) -> bool:
    secret = _unsealed(factor)
    step = codes.step_of(code, secret=secret) if secret is not None else None
    if secret is None or step is None:
        return False
    taken = await session.scalar(
        update(SecondFactor)
        .where(
            SecondFactor.user_id == factor.user_id,
            or_(SecondFactor.last_step.is_(None), SecondFactor.last_step < step),
        )
        .values(last_step=step)
        .returning(SecondFactor.user_id)
    )
    if taken is not None and sealing.needs_reseal(factor.sealed_secret):
        factor.sealed_secret = sealing.seal(secret)
    return taken is not None


async def _use_recovery_code(session: AsyncSession, user_id: int, code: str) -> bool:
    used = await session.scalar(
        delete(RecoveryCode)
        .where(RecoveryCode.user_id == user_id, RecoveryCode.code_hash == fingerprint(code))
        .returning(RecoveryCode.user_id)
    )
    if used is not None:
        _record(session, AuditAction.USE_RECOVERY_CODE, user_id)
    return used is not None


def _unsealed(factor: SecondFactor) -> str | None:
    """The secret; None where SECRET_KEY is lost, when recovery codes are what remains."""
    try:
        return sealing.unseal(factor.sealed_secret)
    except sealing.UnsealError:
        logger.warning("second factor cannot be unsealed", user_id=factor.user_id)
        return None


async def _new_recovery_codes(session: AsyncSession, user_id: int) -> RecoveryCodes:
    """Replace a user's recovery codes; of the new ones, only hashes are kept."""
    fresh = codes.new_recovery_codes()
    await session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
    rows = [{"user_id": user_id, "code_hash": fingerprint(codes.bare(code))} for code in fresh]
    await session.execute(insert(RecoveryCode), rows)
    return RecoveryCodes(recovery_codes=fresh)


def _record(session: AsyncSession, action: AuditAction, user_id: int) -> None:
    audit.record(session, action, actor_id=user_id, subject_id=user_id)
