"""What a process measures while it serves: pools, queues, memory and the event loop."""

import asyncio
import resource
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from app.core import metrics, threads
from app.core.logging import get_logger
from app.db.failures import is_disk_full
from app.db.session import Database

logger = get_logger(__name__)

_MEMORY = Path("/proc/self/statm")


@asynccontextmanager
async def measured(database: Database) -> AsyncIterator[None]:
    """Write the metrics of this process once a second, and at the end of the block."""
    recorder = metrics.recorder()
    if recorder is None:
        yield
        return
    writer = _Writer(recorder, database)
    task = asyncio.create_task(writer.repeat(), name="metrics")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        writer.write()
        with suppress(OSError, ValueError):
            recorder.close()


class _Writer:
    """Writes the metrics of a process."""

    def __init__(self, recorder: metrics.Recorder, database: Database) -> None:
        self._recorder = recorder
        self._database = database
        self._timeouts: Mapping[str, int] = {}
        self._has_failed = False

    async def repeat(self) -> None:
        """Write once a second, and measure how late the event loop is."""
        loop = asyncio.get_running_loop()
        while True:
            planned = loop.time() + metrics.WRITE_SECONDS
            await asyncio.sleep(metrics.WRITE_SECONDS)
            delay = max(loop.time() - planned, 0.0)
            self._recorder.observe("pressroom_event_loop_delay_seconds", delay)
            self.write()

    def write(self) -> None:
        """Write everything that was counted. A full disk is logged once, and stops nothing."""
        try:
            self._sample()
            self._recorder.write()
        except (OSError, ValueError, RuntimeError) as error:
            if not self._has_failed:
                logger.warning(f"metrics are not written: {error}; check METRICS_DIR")
            self._has_failed = True

    def _sample(self) -> None:
        recorder = self._recorder
        states = self._database.pool_states()
        for name, state in states.items():
            recorder.set("pressroom_pool_connections", state.in_use, name, "in_use")
            recorder.set("pressroom_pool_connections", state.idle, name, "idle")
            recorder.set("pressroom_pool_waiting", state.waiting, name)
            # A pool that replaces another one after a failover starts at zero.
            known = self._timeouts.get(name, 0)
            new = state.timeouts - known if state.timeouts >= known else state.timeouts
            recorder.count("pressroom_pool_timeouts_total", name, by=new)
        self._timeouts = {name: state.timeouts for name, state in states.items()}
        recorder.set("pressroom_database_disk_full", float(is_disk_full()))
        for pool in tuple(threads.POOLS):
            recorder.set("pressroom_thread_queue", pool.jobs, pool.name)
        recorder.set("pressroom_process_resident_memory_bytes", _resident_bytes())


def _resident_bytes() -> int:
    if _MEMORY.exists():
        return int(_MEMORY.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # not Linux: the maximum
