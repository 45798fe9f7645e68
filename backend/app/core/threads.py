"""Thread pools with a fair queue, for work that would block the event loop.

Waiting for a thread may take seconds. Callers must not hold a database connection or a lock while
they wait: run the work first, then open the transaction.

Short operations on files use `asyncio.to_thread` instead. Its queue holds at most one call of each
request.
"""

import asyncio
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar
from weakref import WeakSet

from app.core import metrics
from app.core.errors import ServiceUnavailable, TooManyAtOnce

LOWEST_PRIORITY = 19
"""The niceness of work that may wait until the processors are idle."""

Result = TypeVar("Result")


class _Job(NamedTuple):
    user_id: int | None
    work: Callable[[], Any]
    future: Future[Any]
    submitted: float


class FairThreadPool:
    """A thread pool that serves users round-robin: it takes one job of each user in turn.

    The number of waiting and running jobs is limited, in total and per user.
    """

    def __init__(
        self,
        name: str,
        *,
        size: int,
        what: str,
        max_jobs: int,
        max_jobs_per_user: int | None = None,
        niceness: int = 0,
    ) -> None:
        """`what` describes the jobs in error messages: a plural noun such as "long articles".

        `niceness` is that of the threads on Linux. Others have the priority of the event loop.
        """
        self._pool = ThreadPoolExecutor(
            size, thread_name_prefix=name, initializer=partial(lower_priority, niceness)
        )
        self.name = name
        self._what = what
        self._max_jobs = max_jobs
        self._max_jobs_per_user = max_jobs_per_user
        self._lock = threading.Lock()
        self._queues: dict[int | None, deque[_Job]] = {}
        """The waiting jobs of each user; the first user is served next."""
        self._counts: Counter[int | None] = Counter()
        """The number of waiting and running jobs of each user."""
        POOLS.add(self)

    @property
    def jobs(self) -> int:
        """Return the number of waiting and running jobs."""
        return self._counts.total()

    async def run(self, work: Callable[[], Result], *, user_id: int | None = None) -> Result:
        """Call `work` in a thread. Jobs without a user share one queue without a per-user limit.

        Raises TooManyAtOnce if the user has too many jobs, and ServiceUnavailable if there are too
        many in total. Exceptions of `work` are raised as well.
        """
        return await asyncio.wrap_future(self.submit(work, user_id=user_id))

    def submit(self, work: Callable[[], Result], *, user_id: int | None = None) -> Future[Result]:
        """Submit `work` like `run`, without waiting for the result."""
        future: Future[Result] = Future()
        with self._lock:
            limit = None if user_id is None else self._max_jobs_per_user
            if limit is not None and self._counts[user_id] >= limit:
                metrics.count("pressroom_limited_requests_total", self.name)
                raise TooManyAtOnce(
                    f"{limit} of your {self._what} are already being processed: wait for the"
                    " responses, then repeat this request"
                )
            if self._counts.total() >= self._max_jobs:
                raise ServiceUnavailable(f"Too many {self._what} at once; try again in a moment")
            self._counts[user_id] += 1
            self._queues.setdefault(user_id, deque()).append(
                _Job(user_id, work, future, time.perf_counter())
            )
        self._pool.submit(self._run_next)
        return future

    def _run_next(self) -> None:
        """Run one job of the next user. The pool calls this once for each submitted job."""
        with self._lock:
            user_id = next(iter(self._queues))
            queue = self._queues.pop(user_id)
            job = queue.popleft()
            if queue:
                self._queues[user_id] = queue  # moves to the end
        if (recorder := metrics.recorder()) is not None:
            recorder.observe_wait(self.name, time.perf_counter() - job.submitted)
        result, error = None, None
        is_active = job.future.set_running_or_notify_cancel()
        if is_active:
            try:
                result = job.work()
            except BaseException as raised:  # noqa: BLE001 - set on the future below
                error = raised
        with self._lock:
            self._counts[user_id] -= 1
            if not self._counts[user_id]:
                del self._counts[user_id]
        if error is not None:
            job.future.set_exception(error)
        elif is_active:
            job.future.set_result(result)


POOLS: WeakSet[FairThreadPool] = WeakSet()
"""The thread pools of this process, for its metrics."""


def lower_priority(niceness: int) -> None:
    """Set the niceness of this thread, if it is not 0. Only Linux has a niceness per thread."""
    if niceness and sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
