"""A process that reads a source, beside the one that writes it.

It surveys the source, and sends its records in chunks. The pipe bounds what waits in it.
"""

import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from app.services.bulk.comments import size_of
from app.services.bulk.foreign import Progress, ReadOptions, SourceError, Survey
from app.services.bulk.ndjson import ResolveAuthor
from app.services.bulk.records import ParsedRecord
from app.services.bulk.workers import Worker, WorkerEnded, start_worker

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
    """A copy with the state that it has in the process."""


class ReadingProcess:
    """A process that surveys and reads one source. It ends with this object."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def close(self) -> None:
        """End the process, also while a thread waits for it."""
        self._worker.close()

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
        self._worker.send((options, resolve_author))
        while isinstance(message := self._receive(), _Chunk):
            advance(message.read)
            yield from message.records
        if isinstance(state := getattr(resolve_author, "__dict__", None), dict):
            state.update(vars(message.resolve_author))
        self.close()

    def _receive(self) -> Any:
        try:
            return self._worker.receive()
        except WorkerEnded:
            raise SourceError("The process that reads the source ended: it was killed") from None


def start(path: Path, module: ModuleType) -> ReadingProcess | None:
    """Start a process for a file. `module` has the functions `survey` and `read` of its format.

    Return None if the process would not save time, or cannot be started.
    """
    if not path.is_file() or path.stat().st_size < MIN_BYTES:
        return None
    worker = start_worker("reading", _serve, path, module.survey, module.read)
    return None if worker is None else ReadingProcess(worker)


def _serve(
    connection: Connection,
    path: Path,
    survey: Callable[[Path, Progress], Survey],
    read: Callable[..., Iterator[ParsedRecord]],
) -> None:
    """Survey and read the source, in the process."""
    try:
        _send_all(connection, path, survey, read)
    except (EOFError, BrokenPipeError, ConnectionResetError):  # of the pipe
        raise
    except Exception as error:  # noqa: BLE001 - raised by the importing process
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
    """Return an error that the importing process can raise."""
    if isinstance(error, SourceError | OSError):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")
