"""The stack of deploy/swarm, and how its parts fail."""

import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.edge.stack import ORIGIN, PRODUCTION
from tests.processes import HOST, free_port, wait_until
from tests.swarm.load import PREFIX, Load

PURPOSE = "swarm"
MEMBERS = ("patroni-1", "patroni-2", "patroni-3")
SETTINGS = {name: PRODUCTION[name] for name in ("ENVIRONMENT", "ALLOWED_HOSTS")} | {
    "CORS_ORIGINS": ORIGIN,
    "WEB_CONCURRENCY": "1",
    # All test requests come from one address.
    "EDGE_REQUESTS_PER_SECOND": "100000",
    "EDGE_ATTEMPTS_PER_MINUTE": "6000",
}


@dataclass(frozen=True)
class Cluster:
    """A stack on this host."""

    swarm: Any
    """The stack of scripts/swarm.py."""

    @classmethod
    def create(cls, purpose: str, **settings: str) -> "Cluster":
        """Return a stack with free ports; does not start it."""
        from containers import project_name
        from swarm import Swarm

        ports = {name: str(free_port()) for name in ("HTTP_PORT_1", "HTTP_PORT_2")}
        name = project_name(purpose)
        if purpose == PURPOSE and os.environ.get("STACK_NAME"):
            name = os.environ["STACK_NAME"]
            ports = {port: os.environ.get(port) or free for port, free in ports.items()}
        return cls(Swarm(name, {**SETTINGS, **ports, **settings}))

    @property
    def urls(self) -> list[str]:
        return [f"http://{HOST}:{port}" for port in self.swarm.ports]

    @property
    def primary(self) -> str:
        name: str = wait_until(self.swarm.primary, "there is a primary")
        return name

    @property
    def replicas(self) -> list[str]:
        primary = self.primary
        return [member for member in MEMBERS if member != primary]

    def kill(self, service: str, *, stay: bool = False) -> None:
        """Kill a container of a service with SIGKILL, and remove it.

        Swarm starts another one, unless it is to stay away.
        """
        container = self.swarm.containers(service)[0]
        self.swarm.docker("kill", "--signal", "KILL", container)
        if stay:
            self.scale(service, 0)
        self.swarm.run("rm", "--force", container)

    def scale(self, service: str, replicas: int) -> None:
        name = f"{self.swarm.name}_{service}={replicas}"
        self.swarm.docker("service", "scale", "--detach", name)

    def switch_over(self, target: str) -> None:
        """Make a replica the primary, by command."""
        options = ("--candidate", target, "--force", "pressroom")
        self.swarm.execute(target, "patronictl", "switchover", *options)

    def accepts_writes(self, member: str) -> bool:
        """Return whether a member is a primary, also without an answer of etcd."""
        from smoke import SmokeError

        try:
            return bool(self.swarm.query(member, "SELECT pg_is_in_recovery()") == "f")
        except SmokeError:
            return False

    def backend_image(self, folder: Path, *, tag: str) -> None:
        """Build an image of the backend with the migrations of a folder in addition."""
        images = self.swarm.environment["IMAGES"]
        dockerfile = f"FROM {images}-backend:0.1.0\nCOPY *.py alembic/versions/\n"
        (folder / "Dockerfile").write_text(dockerfile)
        options = ("--quiet", "--tag", f"{images}-backend:{tag}")
        self.swarm.docker("build", *options, str(folder), seconds=300)

    def is_healthy(self) -> bool:
        """Return whether there is a primary with two replicas that stream its WAL."""
        from smoke import SmokeError

        try:
            states = Counter(each["state"] for each in self.swarm.members())
            return states == {"running": 1, "streaming": 2} and not self.swarm.missing()
        except SmokeError:
            return False

    def wait_until_healthy(self, *, seconds: float = 120) -> None:
        wait_until(self.is_healthy, "the cluster is complete", seconds=seconds)

    def stored_titles(self) -> Counter[str]:
        """Return the number of stored articles of the load by title."""
        sql = f"SELECT title FROM articles WHERE title LIKE '{PREFIX} %'"
        return Counter(self.swarm.query(self.primary, sql).split("\n"))

    def check_writes(self, load: Load) -> str:
        """Check that each acknowledged write is stored, that none is stored twice, and that writers
        read what they wrote. Return the figures.
        """
        found = self.stored_titles()
        lost = [title for _, title in load.acknowledged if not found[title]]
        doubled = [title for title in load.sent if found[title] > 1]
        assert not lost
        assert not doubled
        assert not load.stale, load.stale[:3]
        return f"{len(load.acknowledged)} acknowledged writes, 0 lost, 0 doubled, 0 stale reads"

    @contextmanager
    def cut_off(self, service: str) -> Iterator[None]:
        """Drop all packets of a container, in its network namespace."""
        pid = self.swarm.docker(
            "inspect", "--format", "{{.State.Pid}}", self.swarm.containers(service)[0]
        ).strip()
        for chain in ("INPUT", "OUTPUT"):
            _iptables(pid, "--insert", chain, "--jump", "DROP")
        try:
            yield
        finally:
            for chain in ("INPUT", "OUTPUT"):
                _iptables(pid, "--delete", chain, "--jump", "DROP")


def _iptables(pid: str, *arguments: str) -> None:
    # Patroni and its PostgreSQL still reach each other.
    device = "--in-interface" if "INPUT" in arguments else "--out-interface"
    command = ["nsenter", "--target", pid, "--net", "iptables", *arguments, "!", device, "lo"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def why_no_cut() -> str | None:
    """Return why the network of a container cannot be cut, or None."""
    if os.geteuid() != 0:
        return "only root can enter the network of a container"
    missing = [name for name in ("nsenter", "iptables") if shutil.which(name) is None]
    return f"{missing[0]} is not installed" if missing else None


@contextmanager
def event(load: Load) -> Iterator[float]:
    """Yield the monotonic time at which a failure begins; print what the clients got since."""
    started = time.monotonic()
    yield started
    print(f"{time.monotonic() - started:.1f} s: {load.summary(started)}")
