"""Pools of threads: whose turn it is, and how much may wait."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from app.core.errors import ServiceUnavailable, TooManyAtOnce
from app.core.threads import FairThreadPool

ANN, BOB, EVE = 1, 2, 3


class Blocked:
    """A pool whose only thread is busy until `release`; `order` says what it did afterwards."""

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
        """Have the pool write down `name` for a user."""
        work = self.threads.run(lambda: self.order.append(name), user_id=user_id)
        return asyncio.create_task(work)


@pytest.fixture
def pool() -> Iterator[Blocked]:
    pool = Blocked()
    yield pool
    pool.release()


async def _turn() -> None:
    """Let tasks start."""
    await asyncio.sleep(0)


async def test_users_take_turns(pool: Blocked) -> None:
    tasks = [pool.run(f"eve {number}", EVE) for number in (1, 2, 3)]
    tasks += [pool.run("ann 1", ANN), pool.run("ann 2", ANN), pool.run("nobody", None)]
    await _turn()
    pool.release()
    await asyncio.gather(*tasks)
    assert pool.order == ["eve 1", "ann 1", "nobody", "eve 2", "ann 2", "eve 3"]


async def test_a_user_may_have_so_many(pool: Blocked) -> None:
    tasks = [pool.run("eve", EVE) for _ in range(3)]
    await _turn()
    with pytest.raises(TooManyAtOnce, match="3 of your long texts") as refused:
        await pool.run("eve", EVE)
    assert refused.value.headers == {"Retry-After": "1"}
    tasks.append(pool.run("bob", BOB))
    await _turn()
    pool.release()
    await asyncio.gather(*tasks)
    await pool.run("eve again", EVE)
    assert pool.order == ["eve", "bob", "eve", "eve", "eve again"]


async def test_all_together_may_have_so_many(pool: Blocked) -> None:
    tasks = [pool.run("job", user_id) for user_id in (ANN, BOB, EVE, ANN, BOB, EVE)]
    await _turn()
    for user_id in (ANN, 4, None):
        with pytest.raises(ServiceUnavailable):
            await pool.run("one too many", user_id)
    pool.release()
    await asyncio.gather(*tasks)
    assert pool.order == ["job"] * 6
    assert not pool.threads._counts  # a user who has nothing left takes no memory
    assert not pool.threads._queues


async def test_what_is_cancelled_while_it_waits_is_not_done(pool: Blocked) -> None:
    task, other = pool.run("unwanted", EVE), pool.run("wanted", ANN)
    await _turn()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pool.release()
    await other
    assert pool.order == ["wanted"]
    assert not pool.threads._counts


async def test_errors_come_out_and_the_thread_goes_on(pool: Blocked) -> None:
    pool.release()
    with pytest.raises(ZeroDivisionError):
        await pool.threads.run(lambda: 1 / 0, user_id=EVE)
    await pool.run("next", EVE)
    assert pool.order == ["next"]


async def test_a_job_that_is_still_running_counts_although_nobody_waits_for_it(
    pool: Blocked,
) -> None:
    """A client who leaves and comes again gets no more of the thread than one who stays."""
    pool.release()
    started, finish = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        finish.wait(10)

    running = asyncio.create_task(pool.threads.run(work, user_id=EVE))
    await _turn()
    started.wait(10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert pool.threads._counts[EVE] == 1
    finish.set()
    await pool.run("next", EVE)
    assert pool.order == ["next"]
