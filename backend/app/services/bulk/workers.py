"""Processes that work for an import, each at the other end of a pipe.

A process ends when the pipe is closed, also by `kill -9` of the importing process.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any
from weakref import finalize

from app.core.logging import get_logger
from app.core.threads import LOWEST_PRIORITY, lower_priority

logger = get_logger(__name__)

_ENDED = (EOFError, BrokenPipeError, ConnectionResetError)


class WorkerEnded(Exception):
    """The process was killed."""


class Worker:
    """A process. It ends with this object."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.close = finalize(self, _end, process, connection, self._lock)
        """Ends the process, also while a thread waits for it."""

    def send(self, message: Any) -> None:
        """Send a message. If the process has ended, `receive` raises an error."""
        with suppress(OSError):
            self._connection.send(message)

    def receive(self) -> Any:
        """Return a message of the process, or raise the exception that it sent.

        Raises WorkerEnded.
        """
        try:
            with self._lock:
                message = self._connection.recv()
        except (EOFError, OSError):
            raise WorkerEnded from None
        if isinstance(message, Exception):
            raise message
        return message


def start_worker(name: str, target: Callable[..., None], *arguments: Any) -> Worker | None:
    """Call a function in a process, with its end of the pipe and these arguments.

    It may raise the exceptions of a pipe whose other end is closed.

    Return None if this process may not use two processors, or cannot start a process.
    """
    # A daemon may not have children.
    if _cpu_count() < 2 or multiprocessing.current_process().daemon:
        return None
    # A copy of a process with threads has their locks, but not the threads that release them.
    is_fork = sys.platform == "linux" and threading.active_count() == 1
    fork, spawn = multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")
    context = fork if is_fork else spawn
    try:
        here, there = context.Pipe()
        with there:
            parts = (there, here if is_fork else None, target, arguments)
            process = context.Process(target=_run, args=parts, name=name, daemon=True)
            process.start()
    except OSError as error:
        logger.warning(f"A process for {name} cannot be started: {error.strerror}")
        return None
    return Worker(process, here)


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


def _run(
    connection: Connection,
    other_end: Connection | None,
    target: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    """Run in the process. `other_end` is that of a forked process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the importing process ends this one
    set_up_collector()
    if other_end is not None:
        other_end.close()
    else:
        lower_priority(LOWEST_PRIORITY)  # the importing process is a server
    with suppress(*_ENDED):
        target(connection, *arguments)
