"""Connections of a process: to the primary, to replicas, and outside of the pools."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Protocol, TypeAlias
from weakref import WeakKeyDictionary

import asyncpg
from pydantic_core import from_json, to_json

from app.core.config import Settings
from app.core.errors import ServiceUnavailable
from app.db.connecting import address_of, closed_on_failure, connect, has_several_hosts
from app.db.failures import DRIVER_ERRORS, log_database_error, refusal_reason
from app.db.pool import ReadPool
from app.db.replicas import Address, Connect, Replication
from app.db.roles import parameters_of_sessions

Handlers: TypeAlias = Mapping[str, Callable[[str], object]]
"""Functions by channel, which get the payload of each notification."""
Open: TypeAlias = Callable[..., Awaitable["asyncpg.Connection[Any]"]]

APPLICATION = "pressroom"
LISTENER = "pressroom listener"
"""The `application_name` of connections that listen."""
PROBE = "pressroom probe"
"""The `application_name` of connections that check a primary or a replica."""
MAX_STATEMENT_SECONDS = 60
"""The highest `statement_timeout` that a unit of work may set for one statement."""
COMMAND_TIMEOUT_MARGIN_SECONDS = 5
"""How much longer asyncpg waits than `statement_timeout`, for the error of PostgreSQL."""
RECONNECT_SECONDS = 0.1
MAX_PROBE_CONNECT_SECONDS = 3.0
"""How long a connection to check a server, or to read from a replica, may take to open."""

_BEGIN_WITH_LOCK = """
    BEGIN;
    SET LOCAL idle_in_transaction_session_timeout = 0;
    SET LOCAL tcp_keepalives_idle = 60;
    SET LOCAL tcp_keepalives_interval = 10;
    SET LOCAL tcp_keepalives_count = 3
"""
"""With these intervals, PostgreSQL soon releases the lock of a host that is lost."""


class Listener(Protocol):
    """A connection that listens to channels of NOTIFY."""

    async def check(self, seconds: float) -> None:
        """Return after `seconds`, if the connection works. Raises ServiceUnavailable."""


class Connections:
    """Opens the connections for the settings. All functions raise ServiceUnavailable."""

    def __init__(self, settings: Settings) -> None:
        if settings.database_url is None:
            raise ValueError("DATABASE_URL is not set")
        self._settings = settings
        self.url = settings.database_url
        self._direct_url = settings.database_direct_url or self.url
        self.is_pooled = self._direct_url != self.url
        """Whether DATABASE_URL leads to a pooler: it does not pass on parameters of sessions."""
        read_url = settings.database_read_url
        self._read_url = None if read_url in {self.url, self._direct_url} else read_url
        self._opened: WeakKeyDictionary[asyncpg.Connection[Any], float] = WeakKeyDictionary()
        """When the connections to the primary were opened."""
        self.replication: Replication | None = None
        """Several servers; None for one."""
        if self._read_url is not None or has_several_hosts(self._direct_url):
            self.replication = self._create_replication()

    @property
    def per_process(self) -> int:
        """The number of connections that a process may open to the server of the primary.

        One listens for events, and one checks the primary if there are several servers.
        """
        pools = 0 if self.is_pooled else 2 * self._settings.database_pool_size
        return pools + 1 + (self.replication is not None)

    def _create_replication(self) -> Replication:
        return Replication(
            connect_to_primary=partial(self._connect_probe, address_of(self._direct_url)),
            connect_probe=self._connect_probe,
            connect_to_read=self._connect_to_replica,
            read_from=None if self._read_url is None else address_of(self._read_url),
            open_pool=self.open_read_pool,
            max_lag=self._settings.database_read_max_lag,
            max_lost=self._settings.database_failover_wait,
            give_up=self._drop,
        )

    def options(
        self, *, max_statement_seconds: float, pooled: bool | None = None
    ) -> dict[str, Any]:
        """Return the options of a connection; `pooled`: through a pooler."""
        seconds = self._settings.database_statement_timeout
        server_settings = {"application_name": APPLICATION, "timezone": "UTC"}
        if not (self.is_pooled if pooled is None else pooled):
            server_settings |= parameters_of_sessions(seconds)
        # PostgreSQL cancels a slow statement; this timeout is for a server that does not respond.
        command_timeout = max(seconds, max_statement_seconds) + COMMAND_TIMEOUT_MARGIN_SECONDS
        return {
            "timeout": self._settings.database_connect_timeout,
            "command_timeout": command_timeout,
            "server_settings": server_settings,
        }

    def open_read_pool(self, connect: Connect) -> ReadPool:
        """Return a pool of connections for reading."""
        settings = self._settings
        return ReadPool(
            connect, size=settings.database_pool_size, timeout=settings.database_pool_timeout
        )

    async def connect_to_read(self) -> "asyncpg.Connection[Any]":
        """Open a connection for a reader to the primary; it returns parsed JSON."""
        options = self.options(max_statement_seconds=0)
        return await _with_json(await connect(**address_of(self.url), **options))

    async def _connect_to_replica(self, address: Address) -> "asyncpg.Connection[Any]":
        options = self._quick_options(APPLICATION)
        return await _with_json(await connect(**address, **options))

    async def _connect_probe(self, address: Address) -> "asyncpg.Connection[Any]":
        return await connect(**address, **self._quick_options(PROBE))

    def _quick_options(self, name: str) -> dict[str, Any]:
        """Return options for a server that is given up soon; another one may answer."""
        options = self.options(max_statement_seconds=0, pooled=False)
        options["server_settings"]["application_name"] = name
        timeout = min(options["timeout"], MAX_PROBE_CONNECT_SECONDS)
        return {**options, "timeout": timeout, "logs_failure": False}

    # --- a new primary

    def waiting(self, open_connection: Open) -> Open:
        """Return a function that opens a connection, and waits for a new primary if necessary."""
        replication = self.replication
        if replication is None:
            return open_connection

        async def wait_and_open(**options: Any) -> "asyncpg.Connection[Any]":
            started = time.monotonic()
            while True:
                try:
                    connection = await open_connection(**options)
                except ServiceUnavailable as error:
                    lost_since = replication.lost_since or started
                    waited = time.monotonic() - lost_since
                    is_refused = refusal_reason(error.__cause__) is not None
                    if is_refused or waited > self._settings.database_failover_wait:
                        raise
                    await asyncio.sleep(RECONNECT_SECONDS)
                else:
                    self._opened[connection] = time.monotonic()
                    return connection

        return wait_and_open

    def _drop(self, before: float) -> None:
        """Close the connections to a lost primary, which were opened before a time.

        A pooler has connections of its own, and holds back statements until it finds the new one.
        """
        if self.is_pooled:
            return
        for connection, opened_at in list(self._opened.items()):
            if opened_at <= before:
                connection.terminate()

    # --- connections outside of the pools

    @asynccontextmanager
    async def _own_connection(self, name: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
        """Open a connection outside of the pools, and close it after the block."""
        options = self.options(max_statement_seconds=0, pooled=False)
        options["server_settings"]["application_name"] = name
        connection = await connect(**address_of(self._direct_url), **options)
        try:
            yield connection
        finally:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=self._settings.database_connect_timeout)

    @asynccontextmanager
    async def hold_lock(self, lock: int) -> AsyncIterator[bool]:
        """Hold the lock on a connection of its own: the pools may have only one connection each.

        The lock belongs to a transaction, because poolers may share connections between
        transactions. It has no snapshot while it is idle, so that VACUUM can remove rows.
        """
        async with self._own_connection(APPLICATION) as connection:
            try:
                await connection.execute(_BEGIN_WITH_LOCK)
                is_held: bool = await connection.fetchval(
                    "SELECT pg_try_advisory_xact_lock($1)", lock
                )
            except DRIVER_ERRORS as error:
                log_database_error(error)
                raise ServiceUnavailable from error
            yield is_held

    @asynccontextmanager
    async def listen(self, handlers: Handlers) -> AsyncIterator[Listener]:
        """Listen on a connection of its own."""
        async with self._own_connection(LISTENER) as connection:
            listener = _Listener(connection, self._settings.database_connect_timeout)
            try:
                for channel, handle in handlers.items():
                    await connection.add_listener(
                        channel, lambda *received, handle=handle: handle(received[3])
                    )
            except DRIVER_ERRORS as error:
                log_database_error(error)
                raise ServiceUnavailable from error
            yield listener


class _Listener:
    def __init__(self, connection: "asyncpg.Connection[Any]", timeout_seconds: float) -> None:
        self._connection = connection
        self._timeout_seconds = timeout_seconds
        self._ended = asyncio.Event()
        connection.add_termination_listener(lambda _: self._ended.set())

    async def check(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        try:
            await self._connection.execute("SELECT 1", timeout=self._timeout_seconds)
        except (*DRIVER_ERRORS, TimeoutError) as error:
            raise ServiceUnavailable from error


async def _with_json(connection: "asyncpg.Connection[Any]") -> "asyncpg.Connection[Any]":
    """Let a connection return parsed JSON."""
    with closed_on_failure(connection):
        await connection.set_type_codec(
            "jsonb", schema="pg_catalog", encoder=to_json, decoder=from_json, format="text"
        )
    return connection
