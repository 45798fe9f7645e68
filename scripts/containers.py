"""Shared parts of the Docker scripts: detection of Docker, and compose projects."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
MIRRORS = (
    "PYTHON_IMAGE",
    "POSTGRES_IMAGE",
    "NGINX_IMAGE",
    "PROMETHEUS_IMAGE",
    "DEBIAN_IMAGE",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
)
"""Settings of the sources of images and packages."""
TIMEOUT_SECONDS = 900
"""The limit of a command that builds images or runs checks. Only what hangs takes so long."""
TIMED_OUT = 124
"""The exit status of a command that was killed at that limit, as of the program `timeout`."""


def why_no_docker() -> str | None:
    """Return why containers cannot be used, or None if Docker and Compose are available."""
    if shutil.which("docker") is None and shutil.which("docker-compose") is None:
        return "Docker is not installed"
    try:
        result = subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "the Docker engine does not respond"
    if result.returncode != 0:
        return "the Docker engine does not respond"
    return None if compose_command() else "Docker Compose is not installed"


@cache
def compose_command(env_file: str | None = os.devnull) -> Sequence[str] | None:
    """Return `docker compose` or `docker-compose`; None if not installed.

    By default, it does not read `.env`: the settings of developers must not affect the checks. With
    `env_file=None`, it reads `.env`.
    """
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            version = subprocess.run([*command, "version"], capture_output=True, check=False)
        except OSError:
            continue
        if version.returncode == 0:
            return (*command, *(("--env-file", env_file) if env_file else ()))
    return None


def mirrors() -> dict[str, str]:
    """Return the mirrors in `.env`. Some hosts cannot build images without them."""
    try:
        lines = (ROOT / ".env").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    settings = (line.partition("=") for line in lines)
    return {
        name.strip(): value.strip().strip("'\"")
        for name, _, value in settings
        if name.strip() in MIRRORS and value.strip()
    }


def run_command(command: Sequence[str], **options: Any) -> int:
    """Run a command with options of `subprocess.run`. Return its exit status, or TIMED_OUT."""
    try:
        return subprocess.run(command, timeout=TIMEOUT_SECONDS, check=False, **options).returncode
    except subprocess.TimeoutExpired as error:
        print(f"pressroom: {error}", file=sys.stderr, flush=True)
        return TIMED_OUT


def project_name(purpose: str) -> str:
    """Return the name of a compose project, unique for this checkout and purpose."""
    return f"pressroom-{purpose}-{zlib.crc32(str(ROOT).encode()):08x}"


class Project:
    """A compose project with its name, files and environment."""

    def __init__(
        self,
        name: str,
        *files: str,
        directory: Path = ROOT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        command = compose_command()
        if command is None:
            raise RuntimeError("Docker Compose is not installed")
        self._directory = directory
        named = [part for file in files for part in ("--file", str(self._directory / file))]
        self._command = [*command, "--project-name", name, *named]
        # `running` builds the images; other commands need not build them again.
        built = {"PULL_POLICY": "missing"}
        self._environment = {**built, **mirrors(), **os.environ, **(environment or {})}

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of a compose subcommand."""
        return [*self._command, *arguments]

    def run(self, *arguments: str, output: IO[bytes] | None = None) -> int:
        """Run a subcommand. Its output goes to `output`, or to ours. Return the exit status."""
        return run_command(
            self.command(*arguments),
            env=self._environment,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )

    def run_streamed(self, *arguments: str, write: Callable[[bytes], None]) -> int:
        """Run a subcommand, pass each line of its output to `write`, and return the exit status.

        It is killed after TIMEOUT_SECONDS.
        """
        with subprocess.Popen(
            self.command(*arguments),
            env=self._environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:

            def stop() -> None:
                write(f"pressroom: it is killed after {TIMEOUT_SECONDS} s\n".encode())
                process.kill()

            limit = threading.Timer(TIMEOUT_SECONDS, stop)
            limit.start()
            try:
                for line in process.stdout or ():
                    write(line)
            except BaseException:  # also Ctrl-C, as in subprocess.run
                process.kill()
                raise
            finally:
                limit.cancel()
        return process.returncode

    def run_captured(
        self, *arguments: str, seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a subcommand and return its exit status and output."""
        return subprocess.run(
            self.command(*arguments),
            env=self._environment,
            cwd=self._directory,
            check=False,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def output(self, *arguments: str) -> str:
        """Run a subcommand and return its output. Raises RuntimeError if it fails."""
        result = self.run_captured(*arguments)
        if result.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    @contextmanager
    def running(self, *up: str, attempts: int = 1) -> Iterator[int]:
        """Start the project, and always remove it with its volumes at the end.

        Yields the number of the attempt that succeeded. If an attempt or the block fails, prints
        the logs of the containers. Raises RuntimeError after the last attempt.
        """
        self.run("down", "--volumes", "--remove-orphans", "--timeout", "0")
        try:
            for attempt in range(1, attempts + 1):
                if self.run("up", "--build", "--detach", "--wait", *up) == 0:
                    break
                self.run("ps", "--all")
                self.run("logs", "--tail", "40")
                print(f"the containers did not start (attempt {attempt} of {attempts})", flush=True)
            else:
                raise RuntimeError("the containers did not start")
            try:
                yield attempt
            except Exception:
                self.run("logs", "--tail", "40")
                raise
        finally:
            # A second Ctrl-C must not interrupt the cleanup.
            previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
            self.run("down", "--volumes", "--remove-orphans", "--timeout", "0")
            signal.signal(signal.SIGINT, previous)


def exit_status(check: Callable[[], None], *failures: type[Exception]) -> int:
    """Run checks of containers, and return the exit status: 130 if they are interrupted.

    A failure is printed. `failures` are more errors than those of containers and of their answers.
    """
    expected: tuple[type[Exception], ...] = (
        *failures,
        RuntimeError,
        OSError,
        ValueError,
        KeyError,
        subprocess.SubprocessError,
    )
    stop_on_terminate()
    try:
        check()
    except expected as error:
        print(f"  FAILED  {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def stop_on_terminate() -> None:
    """Raise KeyboardInterrupt on SIGTERM, so that containers are stopped."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
