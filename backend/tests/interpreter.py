"""A Python interpreter that starts fast, because it has imported the application already.

Importing it takes seconds, and all workers of pytest-xdist need it, as do the servers that they
start. `prepared` therefore creates one process that imports it, and the test modules. The program
forked.py replaces `python -c CODE`: it runs the code in a fork of that process.
"""

import gc
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from fcntl import F_DUPFD_CLOEXEC, F_GETFL, F_SETFL, F_SETOWN, fcntl
from functools import partial
from importlib import import_module
from multiprocessing import forkserver, resource_tracker
from multiprocessing.spawn import set_executable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from coverage import Coverage

MODULES = ("tests.preloaded", "tests.factories", "tests.patterns", "hypothesis", "mcp")
SOCKET = "PRESSROOM_TEST_SOCKET"
"""The environment variable with the address of the process."""
PROGRAM = Path(__file__).with_name("forked.py")
SPAWNED = "--multiprocessing-fork"
"""An argument of processes that multiprocessing starts with the method `spawn`."""

_measured: "list[Coverage]" = []


@contextmanager
def prepared(arguments: Sequence[str], *, cover: bool) -> Iterator[None]:
    """Run both processes, and set SOCKET to the address of the one with the test modules.

    `arguments` are the files and folders of pytest. With `cover`, the coverage of the imports is
    measured.
    """
    with (
        TemporaryDirectory(prefix="pr-", dir="/tmp") as directory,  # its path must be short
        socket.socket(socket.AF_UNIX) as for_workers,
        socket.socket(socket.AF_UNIX) as for_servers,
    ):
        numbers = []
        for listener, name in ((for_workers, "workers"), (for_servers, "servers")):
            listener.bind(f"{directory}/{name}")
            listener.listen()
            numbers.append(listener.fileno())
        os.environ[SOCKET] = for_workers.getsockname()
        options = [*map(str, numbers), "cover" if cover else "", *arguments]
        command = [sys.executable, "-m", "tests.interpreter", *options]
        # They end when this process closes their input.
        with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=numbers):
            for_workers.close()
            for_servers.close()
            yield


def start_fork_server() -> None:
    """Let the fork server of multiprocessing in this process be such a fork, too."""
    resource_tracker.ensure_running()
    with forks_of_multiprocessing():
        forkserver.ensure_running()


@contextmanager
def forks_of_multiprocessing() -> Iterator[None]:
    """Let processes that multiprocessing starts be such forks, if this process is one."""
    path = os.environ["PATH"]
    if SOCKET in os.environ:
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"  # for the program
        set_executable(str(PROGRAM))
    try:
        yield
    finally:
        set_executable(sys.executable)
        os.environ["PATH"] = path


class ImportedModule(pytest.Module):
    """A test module that is imported, without its tests."""

    def collect(self) -> list[pytest.Item]:
        assert self.obj
        return []


class Importing:
    """A plugin of pytest that imports the test modules."""

    def pytest_pycollect_makemodule(
        self, module_path: Path, parent: pytest.Collector
    ) -> ImportedModule:
        return ImportedModule.from_parent(parent, path=module_path)


def import_application() -> None:
    for module in MODULES:
        import_module(module)


def import_tests(arguments: Sequence[str]) -> None:
    """Import the test modules as pytest does, with rewritten assertions.

    The workers import again what fails here, and report it.
    """
    from app.core.config import get_settings

    options = ["-n0", "--collect-only", "--noconftest", "-pno:unraisableexception"]
    gc.disable()
    files = [each.partition("::")[0] for each in arguments]
    with redirect_stdout(io.StringIO()):
        pytest.main([*options, *files], plugins=[Importing()])
    gc.enable()
    get_settings.cache_clear()


def measure(imports: Callable[[], None]) -> None:
    """Import with coverage. One of the workers saves it."""
    from coverage import Coverage

    coverage = Coverage(data_suffix=True)
    coverage.start()
    imports()
    coverage.stop()
    _measured.append(coverage)


def save_coverage() -> None:
    """Write the coverage of the imports, if it was measured, for pytest-cov to combine.

    pytest-cov in each worker deletes existing files when it starts.
    """
    for coverage in _measured:
        coverage.save()


def next_code(listener: socket.socket) -> str:
    """Fork for each call of the program. Return its code in the fork; exit at the end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks leave no zombies
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return adopt(connection)
        connection.close()
    sys.exit()


def adopt(connection: socket.socket) -> str:
    """Take over the file descriptors and arguments of the program; return its code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    message, received, _, _ = socket.recv_fds(connection, 65_536, 64)
    content = json.loads(message)
    lowest = 1 + max(connection.fileno(), *content["numbers"])
    # It stays open until this process ends. The numbers of the others are those of the program.
    kept = fcntl(connection.detach(), F_DUPFD_CLOEXEC, lowest)
    moved = [fcntl(each, F_DUPFD_CLOEXEC, kept) for each in received]
    os.closerange(0, kept)
    for source, target in zip(moved, content["numbers"], strict=True):
        os.dup2(source, target, inheritable=target <= 2)
        os.close(source)
    arguments: list[str] = content["arguments"]
    code = arguments.index("-c") + 1
    sys.argv = ["-c", *arguments[code + 1 :]]
    if SPAWNED in arguments:
        end_with_the_program(kept)
    return arguments[code]


def end_with_the_program(connection: int) -> None:
    """Let SIGIO end this process when the program is killed, which has the other end."""
    fcntl(connection, F_SETOWN, os.getpid())
    fcntl(connection, F_SETFL, fcntl(connection, F_GETFL) | os.O_ASYNC)


def listen(numbers: Sequence[int], arguments: Sequence[str], *, cover: bool) -> str:
    """Import everything, and return the code of a call in its fork.

    Servers fork from a process without the test modules, whose imports may change the application.
    """
    for_workers, for_servers = (socket.socket(fileno=number) for number in numbers)
    measure(import_application) if cover else import_application()
    if os.fork() == 0:
        os.environ[SOCKET] = for_servers.getsockname()
        for_servers.close()
        imports = partial(import_tests, arguments)
        measure(imports) if cover else imports()
        return next_code(for_workers)
    for_workers.close()
    return next_code(for_servers)


if __name__ == "__main__":
    sys.modules["tests.interpreter"] = sys.modules["__main__"]  # forks import it by this name
    given = sys.argv[1:]
    code = listen([int(given[0]), int(given[1])], given[3:], cover=given[2] == "cover")
    sys.modules["__main__"] = main = ModuleType("__main__")
    exec(code, vars(main))
