"""A process that reads a source, beside the one that writes it.

It surveys the source, and sends its records in chunks over a pipe. The pipe bounds what waits in
it. The process ends when the other end of the pipe is closed, also by `kill -9`.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from weakref import finalize

from app.core.logging import get_logger
from app.core.threads import lower_priority
from app.services.bulk.comments import size_of
from app.services.bulk.foreign import Progress, ReadOptions, SourceError, Survey
from app.services.bulk.ndjson import ResolveAuthor
from app.services.bulk.records import ParsedRecord

logger = get_logger(__name__)

MIN_BYTES = 4 * 1024 * 1024
"""The size of a file from which a process takes less time than its start."""
CHUNK_RECORDS = 50
CHUNK_CHARACTERS = 256 * 1024
PROGRESS_SECONDS = 0.1


class _Chunk(NamedTuple):
    records: list[ParsedRecord]
    read: int
    """For `Progress`."""


class _End(NamedTuple):
    resolve_author: ResolveAuthor
    """With what it noted."""


class ReadingProcess:
    """A process that surveys and reads one source. It ends with this object."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._finalizer = finalize(self, _end, process, connection, self._lock)

    def close(self) -> None:
        """End the process, also while a thread waits for it."""
        self._finalizer()

    def survey(self, advance: Progress) -> Survey:
        """Return the survey, without its index. Raises SourceError and OSError."""
        while not isinstance(message := self._receive(), Survey):
            advance(message)
        return message

    def read(
        self, options: ReadOptions, *, resolve_author: ResolveAuthor, advance: Progress
    ) -> Iterator[ParsedRecord]:
        """Yield the records, after the survey. Raises SourceError and OSError.

        `resolve_author` is called in the process. Its state is copied back at the end.
        """
        with suppress(OSError):  # if the process has ended, `_receive` raises an error
            self._connection.send((options, resolve_author))
        while isinstance(message := self._receive(), _Chunk):
            advance(message.read)
            yield from message.records
        if isinstance(state := getattr(resolve_author, "__dict__", None), dict):
            state.update(vars(message.resolve_author))
        self.close()

    def _receive(self) -> Any:
        try:
            with self._lock:
                message = self._connection.recv()
        except (EOFError, OSError):
            raise SourceError("The process that reads the source ended: it was killed") from None
        if isinstance(message, Exception):
            raise message
        return message


def start(path: Path, module: ModuleType) -> ReadingProcess | None:
    """Start a process for a file. `module` has the functions `survey` and `read` of its format.

    Return None if the process would not save time, or cannot be started.
    """
    if _cpu_count() < 2 or not path.is_file() or path.stat().st_size < MIN_BYTES:
        return None
    if multiprocessing.current_process().daemon:  # it may not have children
        return None
    # A copy of a process with threads has their locks, but not the threads that release them.
    is_fork = sys.platform == "linux" and threading.active_count() == 1
    fork, spawn = multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")
    context = fork if is_fork else spawn
    try:
        here, there = context.Pipe()
        with there:
            parts = (there, here if is_fork else None, path, module.survey, module.read)
            process = context.Process(target=_serve, args=parts, name="reading", daemon=True)
            process.start()
    except OSError as error:
        logger.warning(f"The source is read in the same process: {error.strerror}")
        return None
    return ReadingProcess(process, here)


def set_up_collector() -> None:
    """Let the garbage collector run rarely: it would take a tenth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _cpu_count() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _end(process: BaseProcess, connection: Connection, lock: threading.Lock) -> None:
    process.kill()
    process.join()
    with lock:  # a thread that waits gets the end of the pipe
        connection.close()


def _serve(
    connection: Connection,
    other_end: Connection | None,
    path: Path,
    survey: Callable[[Path, Progress], Survey],
    read: Callable[..., Iterator[ParsedRecord]],
) -> None:
    """Survey and read the source, in the process. `other_end` is that of a forked process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process ends this one
    set_up_collector()
    if other_end is not None:
        other_end.close()
    else:
        lower_priority()  # the other one is a server
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            _send_all(connection, path, survey, read)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # noqa: BLE001 - raised by the other process
            connection.send(_portable(error))


def _send_all(
    connection: Connection,
    path: Path,
    survey: Callable[[Path, Progress], Survey],
    read: Callable[..., Iterator[ParsedRecord]],
) -> None:
    progress = _SentProgress(connection)
    found = survey(path, progress.advance)
    connection.send(progress.take())
    connection.send(found._replace(index=None))
    options, resolve_author = connection.recv()
    records = read(path, found, options, resolve_author=resolve_author, advance=progress.add)
    chunk: list[ParsedRecord] = []
    size = 0
    for item in records:
        chunk.append(item)
        size += len(item.record.content) + size_of(item.record.comments) if item.record else 0
        if len(chunk) >= CHUNK_RECORDS or size >= CHUNK_CHARACTERS:
            connection.send(_Chunk(chunk, progress.take()))
            chunk, size = [], 0
    connection.send(_Chunk(chunk, progress.take()))
    connection.send(_End(resolve_author))


class _SentProgress:
    """Adds up what was read, and sends it from time to time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._count = 0
        self._sent_at = time.monotonic()

    def add(self, count: int) -> None:
        self._count += count

    def advance(self, count: int) -> None:
        self.add(count)
        if time.monotonic() - self._sent_at > PROGRESS_SECONDS:
            self._connection.send(self.take())
            self._sent_at = time.monotonic()

    def take(self) -> int:
        count, self._count = self._count, 0
        return count


def _portable(error: Exception) -> Exception:
    """Return an error that the other process can raise."""
    if isinstance(error, SourceError | OSError):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")
