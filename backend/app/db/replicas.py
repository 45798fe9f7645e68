"""Replicas for reads: which of them are usable, and when a commit has reached them.

Two rules let every client read what was acknowledged to any client
(docs/decisions/0070-replicas.md):

- A process reads from a replica only if it has replayed everything that the primary had written at
  most `max_lag` seconds ago.
- After a commit, a process waits until each replica has replayed it, at most `max_lag` seconds.

So a replica that does not replay delays the commits of a moment. Then no process uses it, and no
process waits for it. Only durations are compared, never the clocks of two machines.
"""

import asyncio
import os
import socket
import time
import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import asyncpg

from app.core.errors import ServiceUnavailable
from app.core.logging import get_logger
from app.db.connecting import closed_on_failure
from app.db.failures import DRIVER_ERRORS, QUERY_CANCELED, refusal_reason, sqlstate
from app.db.pool import ConnectionPool, NoFreeConnection, PoolState, ReadPool
from app.db.reading import Arguments, Reader, Row, Statement

logger = get_logger(__name__)

DEFAULT_PORT = 5432
KEEP_SECONDS = 600.0
"""How long the positions of the primary are kept; a longer lag is not measured."""
RESOLVE_SECONDS = 5.0
"""How often the names of replicas are resolved again, and how long that may take."""
LEARN_SECONDS = 2 * RESOLVE_SECONDS
"""How long it takes until all processes know of a change of names."""
PROBATION = 1.5
"""How long a replica must have been fresh before a process uses it, in multiples of `max_lag`.

Commits do not wait for a replica that is further behind than that, or silent for longer. No process
uses it: between two checks that are at most `max_lag / 2` apart, a fresh replica cannot fall so far
behind.
"""
REPEAT_SECONDS = 0.1
"""The time between two attempts to read while there is no primary."""
FIRST_POLL_SECONDS, LAST_POLL_SECONDS = 0.001, 0.02
"""The time between two questions whether a replica has replayed a commit."""

IS_PRIMARY, UNCHECKED = "is the primary", "has not been checked yet"

_IDENTIFY = """
    SELECT system_identifier, pg_postmaster_start_time() AS started_at,
      current_database()::text AS database
    FROM pg_control_system()
"""
_POSITION = """
    SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
      ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn AS position,
      pg_is_in_recovery() AS in_recovery
"""

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[Any]
Connect: TypeAlias = "Callable[[], Awaitable[Connection]]"
Address: TypeAlias = Mapping[str, Any]
"""The arguments of `connect` for one server."""


class Identity(NamedTuple):
    """Which cluster and which server process a connection leads to."""

    cluster: int
    started_at: datetime
    database: str


class _Probe:
    """A connection that asks one server for its position, one question at a time."""

    def __init__(self, connect: Connect, timeout_seconds: float) -> None:
        self._connect = connect
        self._timeout_seconds = timeout_seconds
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self.identity: Identity | None = None
        """None without a connection."""

    async def ask(self) -> tuple[int, bool]:
        """Return the position, and whether the server is in recovery. Raises ServiceUnavailable.

        A primary reports what it has flushed, a replica what it has replayed.
        """
        async with self._lock:
            try:
                if self._connection is None or self._connection.is_closed():
                    await self._open()
                assert self._connection is not None  # noqa: S101 - for mypy
                row: Any = await self._connection.fetchrow(_POSITION, timeout=self._timeout_seconds)
            except BaseException as error:
                self.close()
                if isinstance(error, DRIVER_ERRORS):
                    raise ServiceUnavailable from error
                raise
            return int(row["position"] or 0), row["in_recovery"]

    async def _open(self) -> None:
        self.close()
        self._connection = await self._connect()
        found: Any = await self._connection.fetchrow(_IDENTIFY, timeout=self._timeout_seconds)
        self.identity = Identity(found["system_identifier"], found["started_at"], found["database"])

    def close(self) -> None:
        """Close the connection without waiting for the server."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection = self.identity = None


class Positions:
    """What the primary had written at which time of this process."""

    def __init__(self, resolution: float) -> None:
        """`resolution`: the seconds between two positions that are kept."""
        self._resolution = resolution
        self._positions: list[int] = []
        self._first: list[float] = []
        self._last: list[float] = []
        """When each position was first and last seen."""

    def __len__(self) -> int:
        return len(self._positions)

    def clear(self) -> None:
        """Forget all: the history of another primary may differ."""
        for each in (self._positions, self._first, self._last):
            each.clear()

    def add(self, position: int, at: float) -> None:
        """Note a position that was asked for at the time `at`."""
        if self._positions and position <= self._positions[-1]:
            self._last[-1] = at
            return
        if len(self._first) > 1 and at - self._first[-2] < self._resolution:
            self._remove(-1)
        self._positions.append(position)
        self._first.append(at)
        self._last.append(at)
        if self._last[0] < at - KEEP_SECONDS and len(self._last) > 1:
            self._remove(0)

    def _remove(self, index: int) -> None:
        for each in (self._positions, self._first, self._last):
            del each[index]

    def fresh_at(self, replayed: int) -> float:
        """Return a time: what was committed before it has been replayed."""
        index = bisect_right(self._positions, replayed) - 1
        return self._last[index] if index >= 0 else float("-inf")

    def behind_since(self, replayed: int) -> float:
        """Return the first known time at which the primary was ahead; infinity if it is not."""
        index = bisect_right(self._positions, replayed)
        return self._first[index] if index < len(self._positions) else float("inf")


class Replica:
    """A server of DATABASE_READ_URL: its pool, and what is known about its freshness."""

    def __init__(
        self,
        name: str,
        *,
        connect_probe: Connect,
        connect_to_read: Connect,
        open_pool: Callable[[Connect], ReadPool],
        max_lag: float,
        usable_from: float,
    ) -> None:
        self.name = name
        self.probe = _Probe(connect_probe, max_lag / 2)
        self._connect = connect_to_read
        self.pool = open_pool(self._connect_same)
        self._max_lag = max_lag
        self._usable_from = usable_from
        self.problem: str | None = UNCHECKED
        """Why it is not usable, apart from its lag."""
        self.is_refused = False
        """Whether somebody must correct the problem."""
        self.is_ahead = False
        self.failures = 0
        self.replayed = 0
        self.fresh_at = float("-inf")
        self.behind_since = float("inf")
        self.checked_at = float("-inf")
        self._silent_since: float | None = None
        """The time since which it does not answer; None if it does, or was not asked yet."""
        self._asked_at = float("-inf")
        self._fresh_since: float | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._poll: asyncio.Task[None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.removed_at: float | None = None

    async def _connect_same(self) -> "Connection":
        """Open a connection of the pool; it must lead to the server that is checked."""
        connection = await self._connect()
        with closed_on_failure(connection):
            found: Any = await connection.fetchrow(_IDENTIFY, timeout=self._max_lag)
            expected = self.probe.identity
            if expected is None or found["started_at"] != expected.started_at:
                if expected is not None:
                    self.refuse("leads to different servers: name each replica")
                raise ServiceUnavailable
        return connection

    def refuse(self, problem: str) -> None:
        """Do not use the replica until the problem is corrected."""
        if self.problem != problem:
            logger.error(f"DATABASE_READ_URL: {self.name} {problem}")
        self.problem, self.is_refused, self._fresh_since = problem, True, None
        self.note_silence(time.monotonic())

    def note_silence(self, asked_at: float) -> None:
        """Note that a question did not tell how far it is."""
        if self._silent_since is None:
            self._silent_since = asked_at

    def note_failure(self, asked_at: float) -> None:
        """Note that it does not answer. The second time, its connections are closed."""
        self.failures += 1
        self._fresh_since = None
        self.note_silence(asked_at)
        if not self.is_refused:
            if self.failures == 1:
                logger.warning(f"the replica {self.name} does not answer")
            self.problem = "does not answer"
        if self.failures == 2:
            self.pool.drop()

    def note_position(
        self, replayed: int, positions: Positions, *, asked_at: float, reference: float
    ) -> None:
        """Note what it has replayed. `reference`: the time at which the primary was last seen."""
        now = time.monotonic()
        self.replayed = max(replayed, self.replayed)
        if self.is_ahead:
            return
        if self.problem is not None:
            logger.info(f"the replica {self.name} answers")
        self.failures, self.problem, self.is_refused = 0, None, False
        self._silent_since = None
        self.compare(positions)
        is_fresh = min(now, reference) - self.fresh_at <= self._max_lag
        if not is_fresh or now - self.checked_at > self._max_lag / 2:
            self._fresh_since = None
        if is_fresh and self._fresh_since is None:
            self._fresh_since = now
        self.checked_at, self._asked_at = now, asked_at
        waiting, self._waiting = self._waiting, []
        for position, reached in waiting:
            if position > self.replayed:
                self._waiting.append((position, reached))
            elif not reached.done():
                reached.set_result(None)

    def compare_with_later(self, position: int, positions: Positions) -> None:
        """Compare with a position of the primary that was asked for later.

        A copy of a cluster has its identifier, and a replica of it may be ahead.
        """
        self.is_ahead = self.replayed > position
        if self.is_ahead:
            self.refuse("is ahead of the primary: it belongs to another cluster")
        self.compare(positions)

    def compare(self, positions: Positions) -> None:
        """Compare what it has replayed with what the primary has written."""
        self.fresh_at = max(self.fresh_at, positions.fresh_at(self.replayed))
        self.behind_since = positions.behind_since(self.replayed)

    def become_primary(self) -> None:
        """Use it no longer as a replica."""
        self.problem, self.is_refused = IS_PRIMARY, False
        self.forget()
        self.checked_at = self._silent_since = float("-inf")
        waiting, self._waiting = self._waiting, []
        for _, reached in waiting:
            if not reached.done():
                reached.set_result(None)

    def forget(self) -> None:
        """Forget its freshness: the primary is another one."""
        self.replayed, self.fresh_at, self.behind_since = 0, float("-inf"), float("inf")
        self._fresh_since = None

    def is_usable(self, now: float) -> bool:
        """Return whether reads may use it."""
        return (
            self.is_reachable(now)
            and now - self.fresh_at <= self._max_lag
            and self._fresh_since is not None
            and now - self._fresh_since >= PROBATION * self._max_lag
            and now >= self._usable_from
        )

    def is_reachable(self, now: float) -> bool:
        """Return whether it answers, and is a replica of this cluster."""
        is_checked = now - self.checked_at <= self._max_lag
        return self.problem is None and self.removed_at is None and is_checked

    def is_awaited(self, now: float) -> bool:
        """Return whether a process may use it, so that commits wait for it.

        Other processes may use one that this process has not asked, because it has just started or
        was stopped for a moment.
        """
        if self._silent_since is not None and now - self._silent_since > PROBATION * self._max_lag:
            return False
        is_unknown = now - self.checked_at > self._max_lag / 2
        return is_unknown or self._asked_at - self.behind_since <= PROBATION * self._max_lag

    def lag(self, now: float) -> float:
        """Return how many seconds it is behind at least."""
        return max(now - self.behind_since, 0.0)

    async def reach(self, position: int, check: "Callable[[Replica], Awaitable[None]]") -> None:
        """Return when it has replayed a position. `check` asks it once."""
        if position <= self.replayed:
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((position, reached))
        if self._poll is None or self._poll.done():
            self._poll = asyncio.create_task(self._ask_repeatedly(check), name=f"poll {self.name}")
        await reached

    async def _ask_repeatedly(self, check: "Callable[[Replica], Awaitable[None]]") -> None:
        delay = FIRST_POLL_SECONDS
        while self._waiting:
            before = self.replayed
            await check(self)
            self._waiting = [each for each in self._waiting if not each[1].done()]
            delay = (
                FIRST_POLL_SECONDS if self.replayed > before else min(2 * delay, LAST_POLL_SECONDS)
            )
            await asyncio.sleep(delay)

    async def close(self) -> None:
        """Close all connections."""
        tasks = [each for each in (self.task, self._poll) if each is not None]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.probe.close()
        await self.pool.close()


class Replication:
    """The primary and its replicas, as this process sees them.

    Until `start` is called, and without a usable replica, reads use the primary.
    """

    def __init__(
        self,
        *,
        connect_to_primary: Connect,
        connect_probe: Callable[[Address], Awaitable["Connection"]],
        connect_to_read: Callable[[Address], Awaitable["Connection"]],
        read_from: Address | None,
        open_pool: Callable[[Connect], ReadPool],
        max_lag: float,
        max_lost: float,
        give_up: Callable[[float], None],
    ) -> None:
        """`read_from` has the hosts of the replicas; `connect_…` take the address of one.

        `give_up` is called with a time: connections to the primary that were opened before it are
        useless. There is a new primary, or none has answered for more than `max_lost` seconds.
        """
        self._connect_probe, self._connect_to_read = connect_probe, connect_to_read
        self._read_from = read_from
        self._open_pool = open_pool
        self._max_lag = max_lag
        self._max_lost = max_lost
        self._give_up = give_up
        self._primary = _Probe(connect_to_primary, max_lag / 2)
        self._identity: Identity | None = None
        self._positions = Positions(resolution=max_lag / 20)
        self._seen_at = float("-inf")
        """When the primary last answered."""
        self.lost_since: float | None = None
        """The time since which the primary does not answer; None if it does."""
        self.primary_problem: str | None = None
        self._replicas: dict[str, Replica] = {}
        self._addresses: dict[str, Sequence[str]] = {}
        self._are_named = asyncio.Event()
        """Whether the replicas are known."""
        self._are_named.set()
        self._current: asyncio.Task[int | None] | None = None
        self._next: asyncio.Task[int | None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._has_started = False

    @property
    def has_replicas(self) -> bool:
        """Whether DATABASE_READ_URL is set."""
        return self._read_from is not None

    # --- reads

    def usable(self) -> ReadPool | None:
        """Return the pool of a usable replica; None if there is none.

        A process stays with one replica, so that its reads do not go back in time.
        """
        now = time.monotonic()
        return _of_this_process([each for each in self._replicas.values() if each.is_usable(now)])

    def last_resort(self) -> ReadPool | None:
        """Return the pool of a replica that was fresh when the primary was lost, or None.

        Of several, those that have replayed most: the others may lack what was acknowledged.
        """
        now = time.monotonic()
        fresh = [
            each
            for each in self._replicas.values()
            if each.is_reachable(now) and each.fresh_at >= self._seen_at - self._max_lag
        ]
        most = max((each.replayed for each in fresh), default=0)
        return _of_this_process([each for each in fresh if each.replayed == most])

    def serves_alone(self) -> bool:
        """Return whether a replica serves reads while the primary is lost."""
        return self.lost_since is not None and self.last_resort() is not None

    def alternatives(self, failed: ReadPool) -> list[ReadPool]:
        """Return the pools of other usable replicas."""
        now = time.monotonic()
        found = [each.pool for each in self._replicas.values() if each.is_usable(now)]
        return [each for each in found if each is not failed]

    # --- commits

    async def replicated(self) -> None:
        """Return when the replicas have what was committed before the call, or `max_lag` later."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._max_lag):
                await self._are_named.wait()
                now = time.monotonic()
                awaited = [each for each in self._replicas.values() if each.is_awaited(now)]
                if not awaited:
                    return
                position = await self._position()
                if position is None:
                    await asyncio.sleep(self._max_lag)
                for each in awaited:
                    await each.reach(position or 0, self._check)

    async def _position(self) -> int | None:
        """Return what the primary has flushed, asked after the call; None if it does not answer.

        Concurrent calls share the question.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._ask_after(self._current), name="position")
        return await asyncio.shield(self._next)

    async def _ask_after(self, former: "asyncio.Task[int | None] | None") -> int | None:
        if former is not None:
            await asyncio.wait([former])
        self._current, self._next = self._next, None  # later calls need a later answer
        asked_at = time.monotonic()
        try:
            position, in_recovery = await self._primary.ask()
        except ServiceUnavailable:
            return None
        if in_recovery:  # what a demoted primary has replayed may be less than what was committed
            return None
        self._note_primary(position, asked_at)
        return position

    # --- checks

    def start(self) -> None:
        """Check the servers in the background."""
        if self.has_replicas:
            self._are_named.clear()
        self._tasks = [
            asyncio.create_task(self._follow_primary(), name="primary"),
            asyncio.create_task(self._follow_names(), name="names of replicas"),
        ]

    async def stop(self) -> None:
        """End the checks, and close all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._primary.close()
        await asyncio.gather(*(each.close() for each in self._replicas.values()))
        self._tasks, self._replicas = [], {}

    async def _follow_primary(self) -> None:
        while True:
            await self.check_primary()
            await asyncio.sleep(self._max_lag / 4)

    async def check_primary(self) -> None:
        """Ask the primary for its position."""
        asked_at = time.monotonic()
        try:
            position, in_recovery = await self._primary.ask()
        except ServiceUnavailable:
            self._note_lost("does not answer")
            return
        if in_recovery:  # a demoted primary, or the URL of a replica
            self._primary.close()
            self._note_lost("leads to a replica, not to the primary")
            return
        self._note_primary(position, asked_at)

    def _note_lost(self, problem: str) -> None:
        now = time.monotonic()
        if self.lost_since is None:
            self.lost_since = now
        elif now - self.lost_since > self._max_lost:
            self._give_up(self.lost_since)
        if self.primary_problem != problem:
            logger.warning(f"the primary of DATABASE_URL {problem}")
        self.primary_problem = problem

    def _note_primary(self, position: int, asked_at: float) -> None:
        identity = self._primary.identity
        if self._identity is not None and identity != self._identity:
            logger.warning("there is a new primary")
            self._positions.clear()
            for each in self._replicas.values():
                each.forget()
            self._give_up(self._seen_at)
        elif self.lost_since is not None and self.primary_problem is not None:
            logger.info("the primary answers again")
        self._identity, self.lost_since, self.primary_problem = identity, None, None
        self._seen_at = asked_at
        self._positions.add(position, asked_at)
        for each in self._replicas.values():
            if each.checked_at < asked_at:
                each.compare_with_later(position, self._positions)
            else:
                each.compare(self._positions)

    async def _follow_names(self) -> None:
        if self._read_from is None:
            return
        try:
            while True:
                await self._update(await servers_of(self._read_from, self._addresses))
                self._are_named.set()
                await asyncio.sleep(RESOLVE_SECONDS)
        finally:
            self._are_named.set()  # after a failure, commits do not wait for it

    async def _update(self, servers: Mapping[str, Address]) -> None:
        """Add and remove replicas.

        Other processes may know a replica later or longer. A new one is therefore used later, and
        commits wait for a former one longer.
        """
        now = time.monotonic()
        delay = LEARN_SECONDS if self._has_started else 0.0
        self._has_started = True
        for name, address in servers.items():
            if name not in self._replicas:
                replica = self._replicas[name] = Replica(
                    name,
                    connect_probe=partial(self._connect_probe, address),
                    connect_to_read=partial(self._connect_to_read, address),
                    open_pool=self._open_pool,
                    max_lag=self._max_lag,
                    usable_from=now + delay,
                )
                replica.task = asyncio.create_task(self._follow(replica), name=f"replica {name}")
            self._replicas[name].removed_at = None
        for name, replica in list(self._replicas.items()):
            if name not in servers:
                replica.removed_at = replica.removed_at or now
                if now - replica.removed_at > LEARN_SECONDS:
                    del self._replicas[name]
                    await replica.close()

    async def _follow(self, replica: Replica) -> None:
        while True:
            await self._check(replica)
            await asyncio.sleep(self._max_lag / 4)

    async def _check(self, replica: Replica) -> None:
        """Ask a replica for its position."""
        asked_at = time.monotonic()
        try:
            replayed, in_recovery = await replica.probe.ask()
        except ServiceUnavailable:
            replica.note_failure(asked_at)
            return
        found, expected = replica.probe.identity, self._identity
        if found is None or expected is None:
            replica.note_silence(asked_at)
            return
        if found.cluster != expected.cluster or found.database != expected.database:
            replica.refuse("belongs to another cluster or database than DATABASE_URL")
        elif not in_recovery and (
            found.started_at == expected.started_at or self.lost_since is not None
        ):
            replica.become_primary()  # without a primary, it has been promoted
        elif not in_recovery:
            replica.refuse("is neither a replica nor the primary of DATABASE_URL")
        else:
            reference = self._seen_at if self.lost_since is not None else time.monotonic()
            replica.note_position(replayed, self._positions, asked_at=asked_at, reference=reference)

    # --- reports

    def problems(self) -> list[str]:
        """Return what is wrong with replicas, for operators."""
        now = time.monotonic()
        found = []
        for each in self._replicas.values():
            if each.removed_at is not None or each.problem in {IS_PRIMARY, UNCHECKED}:
                continue
            if each.problem is not None:
                found.append(f"The replica {each.name} {each.problem}")
            elif (lag := each.lag(now)) > self._max_lag:
                found.append(f"The replica {each.name} is {lag:.0f} s behind")
        return found

    def lags(self) -> dict[str, float]:
        """Return by how many seconds each replica is behind, also if it does not answer."""
        now = time.monotonic()
        return {
            each.name: each.lag(now)
            for each in self._replicas.values()
            if each.removed_at is None and not each.is_refused and each.problem != IS_PRIMARY
        }

    def states(self) -> list[PoolState]:
        """Return the states of the pools."""
        return [each.pool.state for each in self._replicas.values()]


def _of_this_process(replicas: Sequence[Replica]) -> ReadPool | None:
    """Choose one of several replicas; the processes of a host choose different ones."""
    if not replicas:
        return None
    if len(replicas) == 1:
        return replicas[0].pool
    ordered = sorted(replicas, key=lambda each: each.name)
    return ordered[choice(socket.gethostname(), os.getpid(), among=len(ordered))].pool


def choice(host: str, process: int, *, among: int) -> int:
    """Return a number below `among`: the processes of a host, and those of all hosts, differ.

    In containers, processes of different hosts have the same numbers.
    """
    return (zlib.crc32(host.encode()) + process) % among


class ReplicaReader(Reader):
    """Executes read statements on replicas, and on the primary if no replica is usable.

    A statement that fails with its connection is repeated elsewhere. So is one that a replica
    cancels because of a conflict with the replay. While a pooler does not reach a new primary yet,
    a statement waits.
    """

    def __init__(
        self, primary: ConnectionPool, replication: Replication, *, wait: float, echo: bool = False
    ) -> None:
        """`primary` is a pool of the primary. `wait`: how many seconds to wait for a new one."""
        super().__init__(primary, echo=echo)
        self._replication = replication
        self._wait = wait

    async def find(self, statement: Statement, key: int) -> Any:
        """Return the row of a key, like the base class, with a statement for each call.

        What a later call must read may be missing on the replica that was chosen for the first one.
        """
        return (await self.execute(statement, {"keys": [key]})).one_or_none()

    async def _fetch(self, pool: ConnectionPool, sql: str, arguments: Arguments) -> list[Row]:
        started = time.monotonic()
        while True:
            try:
                return await self._fetch_somewhere(pool, sql, arguments)
            except ServiceUnavailable as error:
                waited = time.monotonic() - (self._replication.lost_since or started)
                is_refused = refusal_reason(error.__cause__) is not None
                if is_refused or not _is_repeatable(error) or waited > self._wait:
                    raise
            await asyncio.sleep(REPEAT_SECONDS)

    async def _fetch_somewhere(
        self, pool: ConnectionPool, sql: str, arguments: Arguments
    ) -> list[Row]:
        replication = self._replication
        usable = replication.usable()
        if usable is not None:
            try:
                return await super()._fetch(usable, sql, arguments)
            except ServiceUnavailable as error:
                if not _is_repeatable(error):
                    raise
            for other in replication.alternatives(usable):
                with suppress(ServiceUnavailable):
                    return await super()._fetch(other, sql, arguments)
        if replication.lost_since is not None and (resort := replication.last_resort()) is not None:
            return await super()._fetch(resort, sql, arguments)
        try:
            return await super()._fetch(pool, sql, arguments)
        except ServiceUnavailable as error:
            if not _is_repeatable(error) or (resort := replication.last_resort()) is None:
                raise
        return await super()._fetch(resort, sql, arguments)


def _is_repeatable(error: ServiceUnavailable) -> bool:
    """Return whether a read may succeed on another server: it was neither slow nor waiting."""
    is_slow = sqlstate(error.__cause__) == QUERY_CANCELED
    return not is_slow and not isinstance(error, NoFreeConnection)


async def servers_of(
    hosts: Address, known: dict[str, Sequence[str]] | None = None
) -> Mapping[str, Address]:
    """Return the address of each server by name.

    Each host is a server. A name with several addresses means several servers, unless the
    certificate of the server is checked for the name. `known` keeps the addresses of names: a name
    that cannot be resolved has its former ones, or is one server that does not answer.
    """
    names, ports = hosts.get("host"), hosts.get("port")
    if not isinstance(names, list):
        names, ports = [names or "localhost"], [ports or DEFAULT_PORT]
    common = {
        name: value
        for name, value in hosts.items()
        if name not in {"host", "port", "target_session_attrs"}
    }
    known = {} if known is None else known
    checks_name = hosts.get("ssl") == "verify-full"

    async def resolve(name: str, port: int) -> Sequence[str]:
        if not checks_name and not name.startswith("/"):
            with suppress(OSError, UnicodeError):  # UnicodeError: an invalid name
                known[name] = await _addresses_of(name, port)
        return known.get(name, [name])

    places = list(zip(names, ports or [], strict=True))
    resolved = await asyncio.gather(*(resolve(*each) for each in places))
    return {
        f"{address}:{port}": {**common, "host": address, "port": port}
        for (_, port), addresses in zip(places, resolved, strict=True)
        for address in addresses
    }


async def _addresses_of(name: str, port: int) -> Sequence[str]:
    """Return the addresses of several servers, or the name of one. Raises OSError, UnicodeError."""
    async with asyncio.timeout(RESOLVE_SECONDS):
        resolved = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    by_family: dict[int, set[str]] = defaultdict(set)
    for family, _, _, _, (address, *_) in resolved:
        by_family[family].add(str(address))
    # A server may have an address of each family.
    addresses = max(by_family.values(), key=len)
    return sorted(addresses) if len(addresses) > 1 else [name]
