"""Pools of threads for work that would block the event loop, with a fair queue.

Awaiting a thread may take seconds. A caller must hold neither a database connection nor a lock
meanwhile: it prepares first, and opens the transaction last.
"""

import asyncio
import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from app.core.errors import ServiceUnavailable, TooManyAtOnce

LOWEST_PRIORITY = 19

Result = TypeVar("Result")


class _Job(NamedTuple):
    user_id: int | None
    work: Callable[[], Any]
    future: Future[Any]


class Threads:
    """A pool of threads that serves users in turn: each gets one job done before any gets two.

    The number of jobs is limited, running ones included: in all, and for each user.
    """

    def __init__(
        self,
        name: str,
        *,
        size: int,
        what: str,
        max_jobs: int,
        max_jobs_each: int | None = None,
        low_priority: bool = False,
    ) -> None:
        """`what` names the jobs in error messages, in the plural, such as "long articles"."""
        self._pool = ThreadPoolExecutor(
            size, thread_name_prefix=name, initializer=_lower_priority if low_priority else None
        )
        self._what = what
        self._max_jobs = max_jobs
        self._max_jobs_each = max_jobs_each
        self._lock = threading.Lock()
        self._queues: dict[int | None, deque[_Job]] = {}
        """The waiting jobs of each user; the user whose turn is next comes first."""
        self._counts: Counter[int | None] = Counter()
        """How many jobs each user has, waiting or running."""

    async def run(self, work: Callable[[], Result], *, user_id: int | None = None) -> Result:
        """Call `work` in a thread. Jobs without a user share one queue, and have no limit each.

        Raises TooManyAtOnce if the user has too many jobs, ServiceUnavailable if all users together
        have too many, and what `work` raises.
        """
        return await asyncio.wrap_future(self.submit(work, user_id=user_id))

    def submit(self, work: Callable[[], Result], *, user_id: int | None = None) -> Future[Result]:
        """The same, without waiting for the result."""
        future: Future[Result] = Future()
        with self._lock:
            limit = None if user_id is None else self._max_jobs_each
            if limit is not None and self._counts[user_id] >= limit:
                raise TooManyAtOnce(
                    f"{limit} of your {self._what} are being processed already: wait for their"
                    " answers, then send this one again"
                )
            if self._counts.total() >= self._max_jobs:
                raise ServiceUnavailable(f"Too many {self._what} at once; try again in a moment")
            self._counts[user_id] += 1
            self._queues.setdefault(user_id, deque()).append(_Job(user_id, work, future))
        self._pool.submit(self._run_next)
        return future

    def _run_next(self) -> None:
        """Run one job of the user whose turn it is. There is a call of this for each job."""
        with self._lock:
            user_id = next(iter(self._queues))
            queue = self._queues.pop(user_id)
            job = queue.popleft()
            if queue:
                self._queues[user_id] = queue  # behind all others
        result, error = None, None
        is_wanted = job.future.set_running_or_notify_cancel()
        if is_wanted:
            try:
                result = job.work()
            except BaseException as raised:  # noqa: BLE001 - the future raises it
                error = raised
        with self._lock:
            self._counts[user_id] -= 1
            if not self._counts[user_id]:
                del self._counts[user_id]
        if error is not None:
            job.future.set_exception(error)
        elif is_wanted:
            job.future.set_result(result)


def _lower_priority() -> None:
    """Let the threads that answer requests run first; on Linux, niceness is per thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
