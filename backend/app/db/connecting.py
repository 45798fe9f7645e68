"""Connections to PostgreSQL: several hosts, and TLS."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import product
from ssl import SSLContext, create_default_context
from typing import Any
from urllib.parse import urlencode

import asyncpg
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine.url import make_url

from app.core.config import SetupError
from app.core.errors import ServiceUnavailable
from app.db.failures import log_database_error, refusal_reason, sqlstate

CONNECT_TIMEOUT_SECONDS = 60.0
"""The timeout of migrations; requests use DATABASE_CONNECT_TIMEOUT."""
TRY_NEXT_HOST = (OSError, UnicodeError)
"""Errors after which another host may still accept the connection. The latter is for bad names."""
TRY_NEXT_STATES = ("08", "53", "57P")
"""The same for SQLSTATE prefixes: the host closes the connection, is full, starts or ends."""


async def connect_to(url: str, **options: Any) -> "asyncpg.Connection[Any]":
    """Call `connect` for a SQLAlchemy URL."""
    return await connect(**address_of(url), **options)


def address_of(url: str) -> dict[str, Any]:
    """Return the arguments of `connect` for a SQLAlchemy URL."""
    dialect: Any = PGDialect_asyncpg
    _, address = dialect().create_connect_args(make_url(url))
    found: dict[str, Any] = address
    return found


async def connect(
    *,
    host: str | Sequence[str] | None = None,
    port: int | Sequence[int] | None = None,
    ssl: str | None = None,
    sslrootcert: str | None = None,
    timeout: float = CONNECT_TIMEOUT_SECONDS,  # noqa: ASYNC109 - asyncpg's parameter
    logs_failure: bool = True,
    **options: Any,
) -> "asyncpg.Connection[Any]":
    """Open a connection; raise ServiceUnavailable if it fails for any reason.

    Of several hosts, the first one is used that accepts the connection and has the
    `target_session_attrs` of the options. They share the timeout, so that a host that does not
    respond leaves time for the others. asyncpg would wait for the first one only.

    OSError covers refused, unreachable, unresolved and timed out. PostgresError covers a starting
    server, too many connections, and an unknown user or database. See `refused_setting`.
    """
    hosts = host if isinstance(host, (list, tuple)) else [host]
    ports = port if isinstance(port, (list, tuple)) else [port]
    attributes = options.pop("target_session_attrs", None)
    rounds = [attributes] if attributes != "prefer-standby" else ["standby", "any"]
    failure: Exception | None = None
    options |= {"timeout": timeout / len(hosts), **_tls_options(ssl, sslrootcert)}
    for target, (each_host, each_port) in product(rounds, zip(hosts, ports, strict=True)):
        try:
            connection: asyncpg.Connection[Any] = await asyncpg.connect(
                host=each_host, port=each_port, target_session_attrs=target, **options
            )
        except asyncpg.TargetServerAttributeNotMatched as error:
            failure = failure or error  # that another host is full or does not answer tells more
        except (*TRY_NEXT_HOST, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            failure = error
            if not _may_try_next(error):
                break
        else:
            return connection
    assert failure is not None  # noqa: S101 - for mypy
    if logs_failure:
        log_database_error(failure)
    raise ServiceUnavailable from failure


def _may_try_next(error: Exception) -> bool:
    is_unavailable = (sqlstate(error) or "").startswith(TRY_NEXT_STATES)
    return is_unavailable or isinstance(error, TRY_NEXT_HOST)


@contextmanager
def closed_on_failure(connection: "asyncpg.Connection[Any]") -> Iterator[None]:
    """Close a new connection if the block fails, without waiting for the server."""
    try:
        yield
    except BaseException:
        connection.terminate()
        raise


def has_several_hosts(url: str) -> bool:
    """Return whether a SQLAlchemy URL names several hosts."""
    return isinstance(address_of(url).get("host"), list)


def refused_setting(error: ServiceUnavailable, name: str) -> SetupError | None:
    """Return the error for a connection that is refused until somebody corrects the URL `name`.

    Returns None for a failure after which the same connection may succeed.
    """
    reason = refusal_reason(error.__cause__)
    if reason is None:
        return None
    password = "DATABASE_OWNER_PASSWORD" if name == "DATABASE_OWNER_URL" else "DATABASE_PASSWORD"
    return SetupError(
        f"{name} does not work: {reason}. Correct it, or {password} (by default, containers use"
        " POSTGRES_PASSWORD)"
    )


def _tls_options(mode: str | None, certificates: str | None) -> dict[str, Any]:
    """Return arguments of asyncpg.connect for `sslmode` and `sslrootcert`.

    Without `sslrootcert`, `verify-ca` and `verify-full` trust the operating system's certificate
    authorities. asyncpg would look for a file in the home directory. It reads `sslrootcert` only
    from a DSN.
    """
    if certificates is not None:
        query = urlencode({"sslmode": mode or "prefer", "sslrootcert": certificates})
        return {"dsn": f"postgresql://?{query}"}
    if mode in {"verify-ca", "verify-full"}:
        return {"ssl": _system_context(checks_host=mode == "verify-full")}
    return {"ssl": mode}


@cache  # reading the certificates takes milliseconds
def _system_context(*, checks_host: bool) -> SSLContext:
    context = create_default_context()
    context.check_hostname = checks_host
    return context
