"""Fair thread pools: the order of jobs, and their limits."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from app.core.errors import ServiceUnavailable, TooManyAtOnce
from app.core.threads import FairThreadPool

ANN, BOB, EVE = 1, 2, 3


class BlockedPool:
    """A pool whose only thread is busy until `release`; `order` lists the jobs that ran later."""

    def __init__(self) -> None:
        self.threads = FairThreadPool(
            "test", size=1, what="long texts", max_jobs=7, max_jobs_per_user=3
        )
        self.order: list[str] = []
        self._started, self._released = threading.Event(), threading.Event()
        self.first = self.threads.submit(self._block)
        self._started.wait(10)

    def _block(self) -> None:
        self._started.set()
        self._released.wait(10)

    def release(self) -> None:
        self._released.set()

    def run(self, name: str, user_id: int | None) -> "asyncio.Task[None]":
        """Submit a job of this user that appends `name` to `order`."""
        work = self.threads.run(lambda: self.order.append(name), user_id=user_id)
        return asyncio.create_task(work)


@pytest.fixture
def pool() -> Iterator[BlockedPool]:
    pool = BlockedPool()
    yield pool
    pool.release()


async def start_tasks() -> None:
    """Let the created tasks run until they wait."""
    await asyncio.sleep(0)


async def test_users_are_served_round_robin(pool: BlockedPool) -> None:
    tasks = [pool.run(f"eve {number}", EVE) for number in (1, 2, 3)]
    tasks += [pool.run("ann 1", ANN), pool.run("ann 2", ANN), pool.run("nobody", None)]
    await start_tasks()
    pool.release()
    await asyncio.gather(*tasks)
    assert pool.order == ["eve 1", "ann 1", "nobody", "eve 2", "ann 2", "eve 3"]


async def test_jobs_per_user_are_limited(pool: BlockedPool) -> None:
    tasks = [pool.run("eve", EVE) for _ in range(3)]
    await start_tasks()
    with pytest.raises(TooManyAtOnce, match="3 of your long texts") as refused:
        await pool.run("eve", EVE)
    assert refused.value.retry_after == 1
    tasks.append(pool.run("bob", BOB))
    await start_tasks()
    pool.release()
    await asyncio.gather(*tasks)
    await pool.run("eve again", EVE)
    assert pool.order == ["eve", "bob", "eve", "eve", "eve again"]


async def test_total_jobs_are_limited(pool: BlockedPool) -> None:
    tasks = [pool.run("job", user_id) for user_id in (ANN, BOB, EVE, ANN, BOB, EVE)]
    await start_tasks()
    for user_id in (ANN, 4, None):
        with pytest.raises(ServiceUnavailable):
            await pool.run("one too many", user_id)
    pool.release()
    await asyncio.gather(*tasks)
    assert pool.order == ["job"] * 6
    assert not pool.threads._counts  # users without jobs are removed
    assert not pool.threads._queues


async def test_cancelled_job_does_not_run(pool: BlockedPool) -> None:
    task, other = pool.run("unwanted", EVE), pool.run("wanted", ANN)
    await start_tasks()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pool.release()
    await other
    assert pool.order == ["wanted"]
    assert not pool.threads._counts


async def test_exception_is_raised_and_the_thread_continues(pool: BlockedPool) -> None:
    pool.release()
    with pytest.raises(ZeroDivisionError):
        await pool.threads.run(lambda: 1 / 0, user_id=EVE)
    await pool.run("next", EVE)
    assert pool.order == ["next"]


async def test_cancelled_running_job_still_counts(
    pool: BlockedPool,
) -> None:
    """A client cannot exceed its limit by closing connections and repeating requests."""
    pool.release()
    started, finish = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        finish.wait(10)

    running = asyncio.create_task(pool.threads.run(work, user_id=EVE))
    await start_tasks()
    started.wait(10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert pool.threads._counts[EVE] == 1
    finish.set()
    await pool.run("next", EVE)
    assert pool.order == ["next"]
