"""Limits on guessing: failures are counted in PostgreSQL, for all replicas and over restarts.

An attempt is counted as pending before it is made, so that a hundred guesses at once are not a
hundred guesses; and as a failure when it has failed. After the free ones, each failure closes the
door for twice as long as the one before; whoever comes meanwhile is told when to come back (429
with Retry-After).

Nobody can lock a user out: whoever comes from an address or a session that the user has logged in
from is counted apart from everybody else. Names are counted as they are matched, whether there is
such a user or not, so that a limit tells nothing about who has an account.
"""

import asyncio
import hashlib
import hmac
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Network
from typing import Any, NamedTuple

from sqlalchemy import DateTime, Float, and_, bindparam, case, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Client, Identity
from app.auth.keys import derived_keys
from app.core import clock
from app.core.errors import (
    IncorrectCode,
    IncorrectPassword,
    InvalidCode,
    InvalidCredentials,
    ServiceUnavailable,
    TooManyAttempts,
)
from app.db.session import Database
from app.models.attempt import Attempt
from app.services.purging import delete_oldest

QUARTER = timedelta(minutes=15)
KEPT_FOR = timedelta(days=1)
"""Long enough for all failures to have worn off."""
ABANDONED_AFTER = timedelta(minutes=1)
"""An attempt that is pending for so long has ended with its process."""
LONGEST_WAIT = 10.0
PAUSE = 0.2
"""Seconds that one who finds all attempts under way waits in all, and until the next look."""
MAX_WAITING = 50
"""How many may wait so, a process."""
MOST_DOUBLINGS = 20
IPV6_SITE = 64
"""Bits of an IPv6 address that one customer of a provider has in common."""


_waiting = 0


class Limit(NamedTuple):
    """How often `key` may be tried for nothing, and how long its door stays closed at most."""

    key: bytes
    free: int
    wears_off: timedelta
    """How long it takes for one failure to count no more."""
    longest: timedelta
    ends_with_success: bool
    """Whether a success clears the failures before it."""


def on_password(name: str, *, client: Client, known_by: str | None) -> list[Limit]:
    """The limits on guessing the password that goes with `name`, in the form that is looked up.

    `known_by` is the session or the network that the user has logged in from before; None where the
    client is a stranger.
    """
    if known_by is not None:
        key = _key("password from", name, known_by)
        return [Limit(key, 20, timedelta(minutes=1), timedelta(minutes=1), True)]
    return [
        Limit(_key("password", name), 10, QUARTER, QUARTER, ends_with_success=True),
        _by_address("password", client),
    ]


def on_code(user_id: int, *, client: Client, known_by: str | None) -> list[Limit]:
    """The limits on guessing a code to log in with; only who has the password comes so far."""
    user = str(user_id)
    if known_by is not None:
        return [Limit(_key("code from", user, known_by), 5, QUARTER, QUARTER, True)]
    return [
        Limit(_key("code by", user, network_of(client)), 5, QUARTER, QUARTER, True),
        Limit(_key("code", user), 20, QUARTER, QUARTER, ends_with_success=True),
    ]


def on_confirmation(user: Identity, what: str) -> list[Limit]:
    """The limits on guessing the password, or a code, of a user who is logged in.

    By session: whoever has stolen one closes its door alone.
    """
    key = _key(f"confirmation by {what}", str(user.session_id))
    return [Limit(key, 5, QUARTER, QUARTER, ends_with_success=True)]


def on_registration(token: str) -> list[Limit]:
    """The limits on guessing the password of a registration that is not complete yet."""
    return [Limit(_key("registration", token), 5, QUARTER, QUARTER, ends_with_success=True)]


def on_mail(*, client: Client) -> list[Limit]:
    """The limits on making us send mail to whoever an anonymous client names, be it a welcome."""
    return [_by_address("mail", client)]


def _by_address(kind: str, client: Client) -> Limit:
    key = _key(f"{kind} by", network_of(client))
    return Limit(key, 30, timedelta(minutes=1), timedelta(minutes=5), ends_with_success=False)


def network_of(client: Client) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 network of one customer."""
    if client.ip is None:
        return "unknown"
    if isinstance(client.ip, IPv4Address):
        return str(client.ip)
    return str(IPv6Network((client.ip.packed, IPV6_SITE), strict=False))


def _key(*parts: str) -> bytes:
    """A keyed hash: what people type as a name may be a password, and is not stored."""
    return hmac.digest(derived_keys("attempts")[0], "\0".join(parts).encode(), hashlib.sha256)


WRONG = (InvalidCredentials, IncorrectPassword, InvalidCode, IncorrectCode)
"""What a guess that has failed ends in."""


class _Busy(Exception):
    """All free attempts are under way; how they end decides about the next ones."""


_NOW = bindparam("now", type_=DateTime(timezone=True))
_WORN_OFF = func.extract("epoch", _NOW - Attempt.tried_at) / bindparam("wears_off", type_=Float)
_FAILURES = func.greatest(Attempt.failures - func.greatest(_WORN_OFF, 0), 0)
_PENDING = case((Attempt.tried_at < bindparam("abandoned"), 0), else_=Attempt.pending)
_IS_OPEN = or_(Attempt.closed_until.is_(None), Attempt.closed_until <= _NOW)
_IS_FREE = or_(_PENDING == 0, bindparam("free") > _FAILURES + _PENDING)

_new = insert(Attempt).values(key=bindparam("of"), tried_at=_NOW)
_BEGIN = (
    _new.values(failures=0, pending=1)
    .on_conflict_do_update(
        index_elements=[Attempt.key],
        set_={"failures": _FAILURES, "pending": _PENDING + 1, "tried_at": _NOW},
        where=and_(_IS_OPEN, _IS_FREE),
    )
    .returning(Attempt.key)
)
_COUNT = (
    _new.values(failures=1, pending=0)
    .on_conflict_do_update(
        index_elements=[Attempt.key],
        set_={"failures": _FAILURES + 1, "tried_at": _NOW},
        where=_IS_OPEN,
    )
    .returning(Attempt.failures)
)
_OF = Attempt.key == bindparam("of")
_CLOSED_UNTIL = select(Attempt.closed_until).where(_OF)
_END = update(Attempt).where(_OF).values(pending=func.greatest(_PENDING - 1, 0), tried_at=_NOW)
_FAIL = _END.values(failures=_FAILURES + 1).returning(Attempt.failures)
_TAKE_BACK = _END.values(failures=_FAILURES)
_CLEAR = _END.values(failures=0, closed_until=None)
_CLOSE = update(Attempt).where(_OF).values(closed_until=bindparam("until"))


@asynccontextmanager
async def guessing(database: Database, limits: Sequence[Limit]) -> AsyncIterator[None]:
    """Make an attempt in the block: it has failed where the block raises an error of WRONG.

    While as many are under way as are free, waits for their end; right passwords that come all at
    once all pass. Another error decides nothing, and is not counted. Each step is a unit of work of
    its own: the block must not hold a connection at its end. Raises TooManyAttempts where a door is
    closed.
    """
    await _begin_when_free(database, limits)
    try:
        yield
    except WRONG:
        await _end(database, limits, fail)
        raise
    except BaseException:
        with suppress(ServiceUnavailable):  # then it is abandoned
            await _end(database, limits, take_back)
        raise
    await _end(database, limits, succeed)


Ending = Callable[[AsyncSession, Limit], Awaitable[None]]


async def _end(database: Database, limits: Sequence[Limit], ending: Ending) -> None:
    async with database.unit_of_work() as session:
        for limit in sorted(limits):
            await ending(session, limit)


async def _begin_when_free(database: Database, limits: Sequence[Limit]) -> None:
    global _waiting  # noqa: PLW0603 - of this process
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LONGEST_WAIT
    while True:
        try:
            async with database.unit_of_work() as session:
                for limit in sorted(limits):  # in one order for all, lest two wait for each other
                    await _begin(session, limit)
                return
        except _Busy:
            if loop.time() > deadline or _waiting >= MAX_WAITING:
                raise TooManyAttempts from None
        _waiting += 1
        try:
            await asyncio.sleep(PAUSE)
        finally:
            _waiting -= 1


async def _begin(session: AsyncSession, limit: Limit) -> None:
    parameters = _parameters(limit)
    if await session.scalar(_BEGIN, parameters) is None:
        await _refuse_while_closed(session, parameters)
        raise _Busy


async def succeed(session: AsyncSession, limit: Limit) -> None:
    """End an attempt that succeeded: it counts no more, nor do the failures before it."""
    statement = _CLEAR if limit.ends_with_success else _TAKE_BACK
    await session.execute(statement, _parameters(limit))


async def take_back(session: AsyncSession, limit: Limit) -> None:
    """End an attempt that nothing has decided."""
    await session.execute(_TAKE_BACK, _parameters(limit))


async def fail(session: AsyncSession, limit: Limit) -> None:
    """End an attempt that failed."""
    failures = await session.scalar(_FAIL, _parameters(limit))
    await _close(session, limit, failures or 0)


async def count(database: Database, limits: Sequence[Limit]) -> None:
    """Count what nothing decides, as if it failed; for good, whatever becomes of the request.

    Raises TooManyAttempts where a door is closed, and counts nothing.
    """
    async with database.unit_of_work() as session:
        for limit in sorted(limits):
            parameters = _parameters(limit)
            failures = await session.scalar(_COUNT, parameters)
            if failures is None:
                await _refuse_while_closed(session, parameters)
            await _close(session, limit, failures or 0)


async def forget(session: AsyncSession, limits: Sequence[Limit]) -> None:
    """Open the doors, whatever was counted."""
    for limit in sorted(limits):
        await session.execute(delete(Attempt).where(_OF), {"of": limit.key})


async def _close(session: AsyncSession, limit: Limit, failures: float) -> None:
    """Close the door after those that are free: for a second, then twice as long each time."""
    if failures > limit.free:
        doublings = min(math.ceil(failures - limit.free) - 1, MOST_DOUBLINGS)
        until = clock.now() + min(timedelta(seconds=2**doublings), limit.longest)
        await session.execute(_CLOSE, {"of": limit.key, "until": until})


async def _refuse_while_closed(session: AsyncSession, parameters: Mapping[str, Any]) -> None:
    until, now = await session.scalar(_CLOSED_UNTIL, {"of": parameters["of"]}), parameters["now"]
    if until is not None and until > now:
        raise TooManyAttempts(retry_after=math.ceil((until - now).total_seconds()))


def _parameters(limit: Limit) -> dict[str, Any]:
    now = clock.now()
    return {
        "of": limit.key,
        "now": now,
        "abandoned": now - ABANDONED_AFTER,
        "wears_off": limit.wears_off.total_seconds(),
        "free": limit.free,
    }


async def purge(session: AsyncSession) -> int:
    """Forget a batch of what counts no more; how many."""
    by = Attempt.tried_at
    old = by < clock.now() - KEPT_FOR
    return await delete_oldest(session, Attempt.key, old, by=by)
