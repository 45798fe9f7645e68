"""What the scripts share to drive Docker: finding it, and a compose project of one's own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIRRORS = ("PYTHON_IMAGE", "POSTGRES_IMAGE", "NGINX_IMAGE", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")
"""Settings about where things come from, not about what they are."""


def why_no_docker() -> str | None:
    """Say what is missing for containers, or None where an engine and compose answer."""
    if shutil.which("docker") is None and shutil.which("docker-compose") is None:
        return "Docker is not installed"
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "no Docker engine answers"
    if answer.returncode != 0:
        return "no Docker engine answers"
    return None if compose_command() else "Docker Compose is not installed"


def compose_command() -> list[str] | None:
    """`docker compose`, else `docker-compose`, else None; told to read no `.env`.

    What developers set there for their own stack must not change what is checked.
    """
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            version = subprocess.run([*command, "version"], capture_output=True, check=False)
        except OSError:
            continue
        if version.returncode == 0:
            return [*command, "--env-file", os.devnull]
    return None


def mirrors() -> dict[str, str]:
    """The mirrors that `.env` names: without them, some hosts could not build at all."""
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


def project_name(purpose: str) -> str:
    """A compose project that belongs to this checkout and purpose alone."""
    return f"pressroom-{purpose}-{zlib.crc32(str(ROOT).encode()):08x}"


class Project:
    """One compose project: a name, its files, and the environment that compose fills in."""

    def __init__(self, name: str, *files: str, **environment: str) -> None:
        command = compose_command()
        if command is None:
            raise RuntimeError("Docker Compose is not installed")
        named = [part for file in files for part in ("--file", str(ROOT / file))]
        self._command = [*command, "--project-name", name, *named]
        self._environment = {**mirrors(), **os.environ, **environment}

    def command(self, *arguments: str) -> list[str]:
        """The whole command line for a compose subcommand."""
        return [*self._command, *arguments]

    def run(self, *arguments: str) -> int:
        """Run a subcommand, its output going to ours; return its exit status."""
        return subprocess.run(
            self.command(*arguments), env=self._environment, cwd=ROOT, check=False
        ).returncode

    def attempt(self, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a subcommand and return how it ended and what it printed."""
        return subprocess.run(
            self.command(*arguments),
            env=self._environment,
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def output(self, *arguments: str) -> str:
        """Run a subcommand and return what it printed. Raises RuntimeError where it fails."""
        result = self.attempt(*arguments)
        if result.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    @contextmanager
    def running(self, *up: str) -> Iterator[None]:
        """Bring the project up, and take it and its volumes away again, whatever happens.

        Raises RuntimeError, after printing the containers' logs, where it does not come up.
        """
        self.run("down", "--volumes", "--remove-orphans", "--timeout", "1")
        try:
            if self.run("up", "--build", "--detach", "--wait", *up) != 0:
                self.run("ps", "--all")
                self.run("logs", "--tail", "60")
                raise RuntimeError("the containers did not come up")
            yield
        finally:
            # A second Ctrl-C must not leave half of it running.
            previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
            self.run("down", "--volumes", "--remove-orphans", "--timeout", "1")
            signal.signal(signal.SIGINT, previous)


def stop_on_terminate() -> None:
    """Make SIGTERM unwind like Ctrl-C, so that what was started is stopped."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
