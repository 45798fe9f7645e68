"""A Python interpreter that starts fast, because it has imported the application already.

Importing it takes seconds, and all workers of pytest-xdist need it, as do the servers that they
start. `prepared` therefore creates one process that imports it. The program forked.py replaces
`python -c CODE`: it runs the code in a fork of that process.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import F_DUPFD_CLOEXEC, fcntl
from importlib import import_module
from multiprocessing import forkserver, resource_tracker
from multiprocessing.spawn import set_executable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coverage import Coverage

MODULES = ("tests.preloaded", "tests.factories", "tests.patterns", "hypothesis", "mcp")
SOCKET = "PRESSROOM_TEST_SOCKET"
"""The environment variable with the address of the process."""
PROGRAM = Path(__file__).with_name("forked.py")

_measured: "list[Coverage]" = []


@contextmanager
def prepared(*, cover: bool) -> Iterator[None]:
    """Run the process, and set SOCKET to its address.

    With `cover`, the coverage of the imports is measured.
    """
    with (
        TemporaryDirectory(prefix="pr-", dir="/tmp") as directory,  # its path must be short
        socket.socket(socket.AF_UNIX) as listener,
    ):
        os.environ[SOCKET] = f"{directory}/socket"
        listener.bind(os.environ[SOCKET])
        listener.listen()
        number = listener.fileno()
        options = ["cover"] if cover else []
        command = [sys.executable, "-m", "tests.interpreter", str(number), *options]
        # It ends when this process closes its input.
        with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[number]):
            listener.close()
            yield


def start_fork_server() -> None:
    """Let the fork server of multiprocessing in this process be such a fork, too."""
    resource_tracker.ensure_running()
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"  # for the program
    set_executable(str(PROGRAM))
    forkserver.ensure_running()
    set_executable(sys.executable)
    os.environ["PATH"] = path


def import_modules() -> None:
    for module in MODULES:
        import_module(module)


def measure_imports() -> None:
    """Import with coverage. One of the forks saves it."""
    from coverage import Coverage

    coverage = Coverage(data_suffix=True)
    coverage.start()
    import_modules()
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
    sys.argv = ["-c"]
    return arguments[arguments.index("-c") + 1]


if __name__ == "__main__":
    sys.modules["tests.interpreter"] = sys.modules["__main__"]  # forks import it by this name
    measure_imports() if "cover" in sys.argv else import_modules()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        code = next_code(requests)
    sys.modules["__main__"] = main = ModuleType("__main__")
    exec(code, vars(main))
