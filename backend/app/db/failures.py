"""Translation of PostgreSQL and asyncpg errors to errors of the catalogue."""

import time
from ssl import SSLCertVerificationError

import asyncpg

from app.core.errors import DatabaseFull, InvalidInput, PressroomError, ServiceUnavailable
from app.core.logging import get_logger

logger = get_logger(__name__)

READ_ONLY_TRANSACTION = "25006"
UNIQUE_VIOLATION, LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED = "23505", "55P03", "40P01"
UNAVAILABLE_STATES = (
    "08", "53", "57", "58", READ_ONLY_TRANSACTION, "40001", DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE,
)  # fmt: skip
"""SQLSTATE prefixes of temporary failures, which a retry may survive.

Connection, resources, shutdown and timeouts, system errors, a demoted primary, serialization,
deadlock and lock not available.
"""
QUERY_CANCELED, DISK_FULL = "57014", "53100"
DISK_FULL_SECONDS = 120.0
"""How long a full disk is reported after the last error. Each process writes once a minute."""
RETRYABLE_SQLSTATES = frozenset({UNIQUE_VIOLATION, LOCK_NOT_AVAILABLE})
"""Conflicts with a concurrent transaction, which `db.retry` resolves in a savepoint."""
INVALID_DATA_STATES = ("22", "54")
"""SQLSTATE prefixes of values that PostgreSQL rejects."""

CONNECTION_ERRORS = (OSError, TimeoutError, asyncpg.InternalClientError)
"""Exceptions that asyncpg raises itself for a lost connection.

TimeoutError: PostgreSQL does not answer in time. InternalClientError: PostgreSQL is closing the
connection.
"""
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, *CONNECTION_ERRORS)
"""Exceptions of asyncpg."""
REFUSED_STATES = ("28", "3D000", "42501")
"""SQLSTATE prefixes of connections that PostgreSQL refuses until somebody corrects the cause.

A wrong password, an unknown user or database, no access to it, or no line in `pg_hba.conf`.
"""
TERMINATING_STATES = ("08", "57P", READ_ONLY_TRANSACTION)
"""SQLSTATE prefixes of errors that make a connection unusable, such as one to a demoted primary."""


def translate(error: BaseException | None) -> PressroomError | None:
    """Return the catalogue's error for an asyncpg error, or None for a programming error."""
    # A migration changed the table: a retry prepares the statement again.
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return ServiceUnavailable()
    state = sqlstate(error) or ""
    if state == DISK_FULL:
        return DatabaseFull()
    if state.startswith(UNAVAILABLE_STATES):
        return ServiceUnavailable()
    if state.startswith(INVALID_DATA_STATES):
        return InvalidInput()
    return None


def ends_connection(error: BaseException) -> bool:
    """Return whether a connection must not be reused after this error.

    It can be reused after an error message of PostgreSQL. After any other exception, the result of
    the interrupted statement may still arrive.
    """
    is_server_error = isinstance(error, asyncpg.PostgresError)
    return not is_server_error or (sqlstate(error) or "").startswith(TERMINATING_STATES)


def sqlstate(error: BaseException | None) -> str | None:
    """Return the SQLSTATE of a PostgreSQL error, or None for other exceptions."""
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def refusal_reason(error: BaseException | None) -> str | None:
    """Return why a connection is refused until somebody corrects the cause, otherwise None."""
    if isinstance(error, SSLCertVerificationError):
        return f"the certificate of the server is not valid: {error.verify_message}"
    is_refused = (sqlstate(error) or "").startswith(REFUSED_STATES)
    return str(error) if is_refused else None


def is_statement_timeout(error: PressroomError) -> bool:
    """Return whether a unit of work raised this error because of `statement_timeout`."""
    return sqlstate(getattr(error.__cause__, "orig", None)) == QUERY_CANCELED


def hide_details(error: BaseException, *carriers: BaseException) -> None:
    """Remove DETAIL from a PostgreSQL error: it quotes row values, and tracebacks are logged.

    `carriers` are exceptions that wrap the error and repeat its text.
    """
    if not isinstance(error, asyncpg.PostgresError) or not error.detail:
        return
    for each in (error, *carriers):
        each.args = tuple(str(part).replace(error.detail, "hidden") for part in each.args)
    error.detail = "hidden"


class _Noted:
    """What this process noted about the database."""

    disk_full_at: float | None = None


def is_disk_full() -> bool:
    """Return whether PostgreSQL has reported a full disk to this process recently."""
    noted = _Noted.disk_full_at
    return noted is not None and time.monotonic() - noted < DISK_FULL_SECONDS


def log_database_error(error: BaseException) -> None:
    """Log the type and the SQLSTATE, not the message: it may quote values.

    A full disk is noted for the probes.
    """
    if sqlstate(error) == DISK_FULL:
        _Noted.disk_full_at = time.monotonic()
        logger.error("the disk of the database is full: writing fails")
    logger.warning("database error", error=type(error).__name__, sqlstate=sqlstate(error))
