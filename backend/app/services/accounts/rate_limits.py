"""Limits on guessing passwords and codes, counted in PostgreSQL for all replicas.

An attempt is counted as pending before it is made, and as a failure afterwards. A hundred
concurrent guesses are therefore limited too. After a burst of failures, each further failure locks
the key out for twice as long as the previous one. Requests during a lockout get 429 with
Retry-After.

An attacker cannot lock a user out: networks and sessions that the user has logged in from have
their own limits. Names are counted whether such a user exists or not, so that a limit does not
reveal who has an account.
"""

import asyncio
import hashlib
import hmac
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import DateTime, Float, and_, bindparam, case, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Client, Identity, network_of
from app.auth.keys import derived_keys
from app.core import clock, metrics, rates
from app.core.config import get_settings
from app.core.errors import (
    IncorrectCode,
    IncorrectPassword,
    InvalidCode,
    InvalidCredentials,
    ServiceUnavailable,
    TooManyAttempts,
)
from app.core.rates import Rate
from app.db.session import Database
from app.models.accounts.attempt import Attempt
from app.services.purging import Batch, delete_oldest, in_batches

FIFTEEN_MINUTES = timedelta(minutes=15)
BY_NAME = timedelta(minutes=150)
"""Time in which a whole burst of wrong passwords for a name no longer counts."""
BY_KNOWN_CLIENT = timedelta(minutes=20)
"""The same for a client from which the user has logged in before."""
BY_ADDRESS = timedelta(minutes=30)
"""The same for all that one address does."""
RETENTION = timedelta(days=1)
"""Longer than the decay of all failures of any limit."""
ABANDONED_AFTER = timedelta(minutes=1)
"""An attempt that is pending for longer belongs to a process that has ended."""
MAX_WAIT_SECONDS = 10.0
"""How long a request waits while the burst is used up by pending attempts."""
POLL_SECONDS = 0.2
"""Interval between two checks of a waiting request."""
MAX_WAITING = 50
"""Requests per process that may wait at the same time."""
MAX_DOUBLINGS = 20


_waiting = 0


ATTEMPTS = "attempts"
"""The label of these limits in the metrics."""


class Limit(NamedTuple):
    """A limit on failed attempts for `key`."""

    key: bytes
    burst: int
    """Failures that are allowed without a lockout."""
    decay: timedelta
    """Time after which one failure no longer counts."""
    max_lockout: timedelta
    reset_on_success: bool
    """Whether a success clears the failures before it."""


def password_limits(name: str, *, client: Client, known_by: str | None) -> list[Limit]:
    """Return the limits on guessing the password of a normalized name.

    `known_by` is the session or the network from which the user has logged in before; None for an
    unknown client.
    """
    burst = get_settings().attempts_per_name
    if known_by is not None:
        key, burst = _key("password from", name, known_by), 2 * burst
        return [Limit(key, burst, BY_KNOWN_CLIENT / burst, timedelta(minutes=1), True)]
    return [
        Limit(_key("password", name), burst, BY_NAME / burst, FIFTEEN_MINUTES, True),
        _client_limit("password", client),
    ]


def code_limits(user_id: int, *, client: Client, known_by: str | None) -> list[Limit]:
    """Return the limits on guessing a code at login, after a correct password."""
    user = str(user_id)
    if known_by is not None:
        return [Limit(_key("code from", user, known_by), 5, FIFTEEN_MINUTES, FIFTEEN_MINUTES, True)]
    return [
        Limit(_key("code by", user, network_of(client)), 5, FIFTEEN_MINUTES, FIFTEEN_MINUTES, True),
        Limit(_key("code", user), 20, FIFTEEN_MINUTES, FIFTEEN_MINUTES, reset_on_success=True),
    ]


def confirmation_limits(user: Identity, what: str) -> list[Limit]:
    """Return the limits on guessing the password, or a code, of a logged-in user.

    They apply per session, so that the thief of a session locks out only that session.
    """
    key = _key(f"confirmation by {what}", str(user.session_id))
    return [Limit(key, 5, FIFTEEN_MINUTES, FIFTEEN_MINUTES, reset_on_success=True)]


def registration_limits(token: str) -> list[Limit]:
    """Return the limits on guessing the password of an unconfirmed registration."""
    return [
        Limit(
            _key("registration", token), 5, FIFTEEN_MINUTES, FIFTEEN_MINUTES, reset_on_success=True
        )
    ]


def first_start_limits(*, client: Client) -> list[Limit]:
    """Return the limits on guessing the code for the first administrator, which has 100 bits.

    They apply per client, so that nobody can prevent the first start.
    """
    key = _key("first start by", network_of(client))
    return [Limit(key, 5, FIFTEEN_MINUTES, FIFTEEN_MINUTES, reset_on_success=True)]


def mail_limits(*, client: Client) -> list[Limit]:
    """Return the limits on mails that an anonymous client causes, including registrations."""
    return [_client_limit("mail", client)]


def _client_limit(kind: str, client: Client) -> Limit:
    key, burst = _key(f"{kind} by", network_of(client)), get_settings().attempts_per_address
    return Limit(key, burst, BY_ADDRESS / burst, timedelta(minutes=5), reset_on_success=False)


def _key(*parts: str) -> bytes:
    """Return a keyed hash, because a user may type a password in place of the name."""
    return hmac.digest(derived_keys("attempts")[0], "\0".join(parts).encode(), hashlib.sha256)


WRONG_CREDENTIALS = (InvalidCredentials, IncorrectPassword, InvalidCode, IncorrectCode)
"""Errors that count as a failed attempt."""


class _Busy(Exception):
    """The burst is used up by pending attempts; wait for their results."""


_NOW = bindparam("now", type_=DateTime(timezone=True))
_DECAYED = func.extract("epoch", _NOW - Attempt.tried_at) / bindparam("decay", type_=Float)
_FAILURES = func.greatest(Attempt.failures - func.greatest(_DECAYED, 0), 0)
_PENDING = case((Attempt.tried_at < bindparam("abandoned"), 0), else_=Attempt.pending)
_IS_UNLOCKED = or_(Attempt.closed_until.is_(None), Attempt.closed_until <= _NOW)
_HAS_CAPACITY = or_(_PENDING == 0, bindparam("burst") > _FAILURES + _PENDING)

_new = insert(Attempt).values(key=bindparam("attempt_key"), tried_at=_NOW)
_BEGIN = (
    _new.values(failures=0, pending=1)
    .on_conflict_do_update(
        index_elements=[Attempt.key],
        set_={"failures": _FAILURES, "pending": _PENDING + 1, "tried_at": _NOW},
        where=and_(_IS_UNLOCKED, _HAS_CAPACITY),
    )
    .returning(Attempt.key)
)
_COUNT = (
    _new.values(failures=1, pending=0)
    .on_conflict_do_update(
        index_elements=[Attempt.key],
        set_={"failures": _FAILURES + 1, "tried_at": _NOW},
        where=_IS_UNLOCKED,
    )
    .returning(Attempt.failures)
)
_HAS_KEY = Attempt.key == bindparam("attempt_key")
_LOCKED_UNTIL = select(Attempt.closed_until).where(_HAS_KEY)
_END = update(Attempt).where(_HAS_KEY).values(pending=func.greatest(_PENDING - 1, 0), tried_at=_NOW)
_FAIL = _END.values(failures=_FAILURES + 1).returning(Attempt.failures)
_CANCEL = _END.values(failures=_FAILURES)
_RESET = _END.values(failures=0, closed_until=None)
_LOCK_OUT = update(Attempt).where(_HAS_KEY).values(closed_until=bindparam("until"))


@asynccontextmanager
async def attempt(
    database: Database, limits: Sequence[Limit], *, is_login: bool = False
) -> AsyncIterator[None]:
    """Count the block as an attempt, which fails if the block raises one of WRONG_CREDENTIALS.

    While the burst is used up by pending attempts, waits for their results, so that concurrent
    correct passwords all succeed. Any other error cancels the attempt. Each step has its own unit
    of work, so the block must not hold a connection at its end. Raises TooManyAttempts during a
    lockout.

    The response to a login contains the limit of all that one address does, whichever limits apply:
    these depend on whether the user exists, and has logged in from there before.
    """
    if is_login:
        _report_policy()
    try:
        await _begin_when_possible(database, limits)
    except TooManyAttempts:
        if is_login:
            metrics.count("pressroom_logins_total", "limited")
        raise
    try:
        yield
    except WRONG_CREDENTIALS:
        await _end(database, limits, record_failure)
        raise
    except BaseException:
        with suppress(ServiceUnavailable):  # the attempt then counts as abandoned
            await _end(database, limits, cancel)
        raise
    await _end(database, limits, record_success)


EndAttempt = Callable[[AsyncSession, Limit], Awaitable[None]]


async def _end(database: Database, limits: Sequence[Limit], end_attempt: EndAttempt) -> None:
    async with database.unit_of_work() as session:
        for limit in sorted(limits):
            await end_attempt(session, limit)


async def _begin_when_possible(database: Database, limits: Sequence[Limit]) -> None:
    global _waiting  # noqa: PLW0603 - a counter per process
    loop = asyncio.get_running_loop()
    deadline = loop.time() + MAX_WAIT_SECONDS
    while True:
        try:
            async with database.unit_of_work() as session:
                for limit in sorted(limits):  # a fixed lock order prevents deadlocks
                    await _begin(session, limit)
                return
        except _Busy:
            if loop.time() > deadline or _waiting >= MAX_WAITING:
                raise _refusal() from None
        _waiting += 1
        try:
            await asyncio.sleep(POLL_SECONDS)
        finally:
            _waiting -= 1


async def _begin(session: AsyncSession, limit: Limit) -> None:
    parameters = _parameters(limit)
    if await session.scalar(_BEGIN, parameters) is None:
        await _raise_if_locked_out(session, parameters)
        raise _Busy


async def record_success(session: AsyncSession, limit: Limit) -> None:
    """End an attempt as a success, and clear earlier failures if the limit says so."""
    statement = _RESET if limit.reset_on_success else _CANCEL
    await session.execute(statement, _parameters(limit))


async def cancel(session: AsyncSession, limit: Limit) -> None:
    """End an attempt without a result."""
    await session.execute(_CANCEL, _parameters(limit))


async def record_failure(session: AsyncSession, limit: Limit) -> None:
    """End an attempt as a failure."""
    failures = await session.scalar(_FAIL, _parameters(limit))
    await _lock_out(session, limit, failures or 0)


async def count(database: Database, limits: Sequence[Limit]) -> None:
    """Count an action that has no result as a failure, even if the request fails later.

    Raises TooManyAttempts during a lockout, without counting the action.
    """
    _report_policy()
    async with database.unit_of_work() as session:
        for limit in sorted(limits):
            parameters = _parameters(limit)
            failures = await session.scalar(_COUNT, parameters)
            if failures is None:
                await _raise_if_locked_out(session, parameters)
            await _lock_out(session, limit, failures or 0)


def _report_policy() -> None:
    """Report the limit of an address, which is the same for all."""
    quota, window = get_settings().attempts_per_address, int(BY_ADDRESS.total_seconds())
    rates.report(Rate(ATTEMPTS, quota, window))


async def reset(session: AsyncSession, limits: Sequence[Limit]) -> None:
    """Delete the failures and lockouts of these limits."""
    for limit in sorted(limits):
        await session.execute(delete(Attempt).where(_HAS_KEY), {"attempt_key": limit.key})


async def delete_all(database: Database) -> int:
    """Delete the failures and lockouts of all users and addresses; return how many."""
    return await in_batches(database, delete_batch)


async def _lock_out(session: AsyncSession, limit: Limit, failures: float) -> None:
    """Lock the key out after the burst: for one second, then twice as long for each failure."""
    if failures > limit.burst:
        doublings = min(math.ceil(failures - limit.burst) - 1, MAX_DOUBLINGS)
        until = clock.now() + min(timedelta(seconds=2**doublings), limit.max_lockout)
        await session.execute(_LOCK_OUT, {"attempt_key": limit.key, "until": until})


async def _raise_if_locked_out(session: AsyncSession, parameters: Mapping[str, Any]) -> None:
    until, now = (
        await session.scalar(_LOCKED_UNTIL, {"attempt_key": parameters["attempt_key"]}),
        parameters["now"],
    )
    if until is not None and until > now:
        raise _refusal(math.ceil((until - now).total_seconds()))


def _refusal(seconds: int = 1) -> TooManyAttempts:
    """Count a refused attempt, and report when the next one is possible. Return the error."""
    rates.report(Rate(ATTEMPTS, remaining=0, reset=seconds))
    metrics.count("pressroom_limited_requests_total", ATTEMPTS)
    return TooManyAttempts(retry_after=seconds)


def _parameters(limit: Limit) -> dict[str, Any]:
    now = clock.now()
    return {
        "attempt_key": limit.key,
        "now": now,
        "abandoned": now - ABANDONED_AFTER,
        "decay": limit.decay.total_seconds(),
        "burst": limit.burst,
    }


async def delete_batch(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of all attempts; return how many."""
    return await delete_oldest(session, batch, Attempt.key, order_by=Attempt.key)


async def purge(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of decayed attempts; return how many."""
    column = Attempt.tried_at
    old = column < clock.now() - RETENTION
    return await delete_oldest(session, batch, Attempt.key, old, order_by=column)
