"""What PostgreSQL and its driver refuse, as the catalogue's errors."""

import asyncpg

from app.core.errors import InvalidInput, PressroomError, ServiceUnavailable
from app.core.logging import get_logger

logger = get_logger(__name__)

READ_ONLY_TRANSACTION = "25006"
UNAVAILABLE_STATES = ("08", "53", "57", "58", READ_ONLY_TRANSACTION, "40001", "40P01", "55P03")
"""SQLSTATE prefixes of failures that a retry may outlive: connection, resources, shutdown and
time-outs, system errors, a demoted primary, serialization, deadlock, lock not available."""
INVALID_DATA_STATES = ("22", "54")
"""SQLSTATE prefixes of values that PostgreSQL itself refuses."""

LOST = (OSError, TimeoutError, asyncpg.InternalClientError)
"""What the driver raises of itself where a connection is no more: TimeoutError where PostgreSQL
does not answer in time, InternalClientError for a moment after it has said farewell."""
ENDING_STATES = ("08", "57P")
"""SQLSTATE prefixes of errors after which a connection is of no use."""


def translated(error: BaseException | None) -> PressroomError | None:
    """The catalogue's error for one of the driver's, or None for a mistake of ours."""
    # A migration has changed the table; the next try plans the statement anew.
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return ServiceUnavailable()
    state = sqlstate(error) or ""
    if state.startswith(UNAVAILABLE_STATES):
        return ServiceUnavailable()
    if state.startswith(INVALID_DATA_STATES):
        return InvalidInput()
    return None


def ends_connection(error: BaseException) -> bool:
    """Whether a connection on which this was raised must not be used again.

    All but what PostgreSQL says of a statement: an answer may be on its way that nobody awaits.
    """
    is_of_a_statement = isinstance(error, asyncpg.PostgresError)
    return not is_of_a_statement or (sqlstate(error) or "").startswith(ENDING_STATES)


def sqlstate(error: BaseException | None) -> str | None:
    """PostgreSQL's code for what went wrong, where the error is one of its."""
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def hide_details(error: BaseException, *carriers: BaseException) -> None:
    """Take PostgreSQL's DETAIL out of an error: it quotes the row, and traces end up in logs.

    `carriers` are errors that were made of it, and repeat what it says.
    """
    if not isinstance(error, asyncpg.PostgresError) or not error.detail:
        return
    for each in (error, *carriers):
        each.args = tuple(str(part).replace(error.detail, "hidden") for part in each.args)
    error.detail = "hidden"


def log_database_error(error: BaseException) -> None:
    """Say which sort of failure it was; not what PostgreSQL said, which may quote values."""
    logger.warning("database error", error=type(error).__name__, sqlstate=sqlstate(error))
