"""Retries of work that conflicts with concurrent transactions."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import ServiceUnavailable
from app.db.failures import RETRYABLE_SQLSTATES, UNIQUE_VIOLATION, log_database_error, sqlstate
from app.db.session import Database

ATTEMPTS = 20
FIRST_DELAY = 0.02
MAX_DELAY = 0.25
"""Seconds. All delays together take at most 4 seconds."""

Result = TypeVar("Result")


class TryAgain(Exception):
    """A concurrent transaction has changed what the attempt relies on."""


async def retry(
    scope: AsyncSession | Database, work: Callable[[AsyncSession], Awaitable[Result]]
) -> Result:
    """Run `work` in a savepoint or a transaction, up to ATTEMPTS times, and return its result.

    With a session, each attempt has a savepoint: what the session did before remains. It is
    repeated after TryAgain and RETRYABLE_SQLSTATES. These do not include deadlocks, because the
    transaction still holds its locks from before the savepoint.

    With a database, each attempt has a unit of work. It is repeated after TryAgain and
    ServiceUnavailable, for example after a deadlock or a lost connection. The connection may be
    lost during the commit, so `work` must be safe to repeat.

    After TryAgain or a unique violation, the next attempt starts at once: PostgreSQL has waited for
    the other transaction. Otherwise there is a delay, which doubles each time. It is shortened at
    random by up to half, so that two requests do not repeat their conflict.

    Raises ServiceUnavailable after the last attempt, and all other errors immediately.
    """
    cause: BaseException
    waits = False
    for failures in range(ATTEMPTS):
        if waits:
            delay = min(FIRST_DELAY * 2 ** (failures - 1), MAX_DELAY)
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - not a secret
        try:
            if isinstance(scope, Database):
                async with scope.unit_of_work() as session:
                    return await work(session)
            async with scope.begin_nested():
                return await work(scope)
        except TryAgain as error:
            cause, waits = error, False
        except DBAPIError as error:
            cause, state = error.orig or error, sqlstate(error.orig)
            if isinstance(scope, Database) or state not in RETRYABLE_SQLSTATES:
                raise
            waits = state != UNIQUE_VIOLATION
        except ServiceUnavailable as error:
            if not isinstance(scope, Database) or failures == ATTEMPTS - 1:
                raise
            cause, waits = error, True
    log_database_error(cause)
    raise ServiceUnavailable(
        "Other requests are changing the same data; try again in a moment"
    ) from cause
