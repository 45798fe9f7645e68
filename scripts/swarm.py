"""Run Pressroom as a Docker Swarm stack on this host: `make swarm-up`, `make swarm-down`.

`up` builds the images, creates secrets, deploys deploy/swarm/stack.yml, and waits until all of it
works. `down` removes the stack with its data and secrets. Requires no packages.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from containers import ROOT, compose_command, exit_status, mirrors, run_command, why_no_docker
from smoke import Client, SmokeError

FOLDER = ROOT / "deploy" / "swarm"
STACK = FOLDER / "stack.yml"
BUCKET = FOLDER / "stack.bucket.yml"
DATA = ROOT / ".data" / "swarm"
LABEL = "com.docker.stack.namespace"
TIMEOUT_SECONDS = 300.0
BUILT = (
    "etcd-1",
    "patroni-1",
    "haproxy",
    "pgbouncer",
    "backend",
    "nginx-1",
    "nginx-exporter",
    "barman",
    "prometheus",
)
"""A service of each image. Others have the same ones."""
READ_CLUSTER = (
    "exec 3<>/dev/tcp/127.0.0.1/8008 && printf 'GET /cluster HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
)
"""Prints the members of Patroni. `patronictl` takes much more CPU time."""
SECRETS = (
    "secret_key",
    "database_password",
    "postgres_password",
    "replication_password",
    "patroni_password",
    "barman_password",
    "monitor_password",
    "s3_access_key_id",
    "s3_secret_access_key",
)


def wait_for(what: str, condition: Callable[[], bool], *, seconds: float = TIMEOUT_SECONDS) -> None:
    """Poll until the condition holds. Raises SmokeError after `seconds`."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise SmokeError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.5)


class Swarm:
    """A stack on this host, in which every node is this host."""

    def __init__(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._data = DATA / name
        local = {
            # Without hosts, it is a trial: production requires their names.
            "ENVIRONMENT": "production" if os.environ.get("ALLOWED_HOSTS") else "development",
            "IMAGES": "pressroom-swarm",
            "SECRETS_DIR": str(self._data / "secrets"),
        }
        if not os.environ.get("S3_BUCKET"):
            local["S3_ENDPOINT_URL"] = "http://bucket:9000"
        self.environment = {**mirrors(), **local, **os.environ, **(environment or {})}
        self.ports = [self.environment.get(f"HTTP_PORT_{n}") or str(8079 + n) for n in (1, 2)]

    @property
    def _mine(self) -> tuple[str, str]:
        """Options of Docker commands for what belongs to this stack."""
        return "--filter", f"label={LABEL}={self.name}"

    @property
    def _files(self) -> list[Path]:
        return [STACK] if self.environment.get("S3_BUCKET") else [STACK, BUCKET]

    def docker(self, *arguments: str, seconds: float = 120) -> str:
        """Run a Docker command and return its output. Raises SmokeError if it fails."""
        result = self.run(*arguments, seconds=seconds)
        if result.returncode != 0:
            raise SmokeError(f"docker {' '.join(arguments[:3])}: {result.stderr.strip()}")
        return result.stdout

    def run(self, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a Docker command, and return its exit status and output."""
        return subprocess.run(
            ["docker", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def build(self, *services: str) -> None:
        """Build the images of these services, with the output. Raises SmokeError."""
        files = [part for file in self._files for part in ("--file", str(file))]
        command = [*(compose_command() or ()), *files, "build", *services]
        if run_command(command, env=self.environment) != 0:
            raise SmokeError("the images cannot be built")

    def deploy(self, **settings: str) -> None:
        """Deploy the stack with these settings in addition; does not wait."""
        self.environment |= settings
        files = [part for file in self._files for part in ("--compose-file", str(file))]
        options = ("--resolve-image", "never", "--detach=true", *files)
        self.docker("stack", "deploy", *options, self.name, seconds=300)

    def create_secrets(self) -> None:
        """Write a random value to a file for each secret that has none."""
        folder = Path(self.environment["SECRETS_DIR"])
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in SECRETS:
            file = folder / name
            if not file.exists():
                file.write_text(secrets.token_urlsafe(48) + "\n", encoding="utf-8")
                file.chmod(0o600)

    def services(self) -> list[dict[str, Any]]:
        """Return the `docker service inspect` data of all services."""
        mine = self.docker("service", "ls", "--quiet", *self._mine)
        found: list[dict[str, Any]] = json.loads(self.docker("service", "inspect", *mine.split()))
        return found

    def missing(self) -> list[str]:
        """Return the services that do not have all of their tasks, with the present definition."""
        tasks = json.loads(
            self.docker("inspect", *self.docker("stack", "ps", "--quiet", self.name).split())
        )
        return [
            service["Spec"]["Name"].removeprefix(f"{self.name}_")
            for service in self.services()
            if not _is_complete(service, tasks)
        ]

    def refresh(self) -> None:
        """Replace the tasks whose image was built again with the same tag, one after the other."""
        running = self.docker("ps", "--quiet", "--no-trunc", *self._mine).split()
        if not running:
            return
        used: dict[str, set[str]] = {}
        # A container may have ended meanwhile. The others are printed.
        for container in json.loads(self.run("container", "inspect", *running).stdout):
            service = container["Config"]["Labels"]["com.docker.swarm.service.name"]
            used.setdefault(service, set()).add(container["Image"])
        for service in self.services():
            spec = service["Spec"]
            # A task that is being replaced gets the new image anyway.
            if "ReplicatedJob" in spec["Mode"] or spec["Name"] not in used:
                continue
            image = spec["TaskTemplate"]["ContainerSpec"]["Image"].partition("@")[0]
            built = self.docker("image", "inspect", "--format", "{{.Id}}", image).strip()
            if used[spec["Name"]] - {built}:
                options = ("--force", "--no-resolve-image", "--quiet")
                self.docker("service", "update", *options, spec["Name"], seconds=TIMEOUT_SECONDS)

    def wait_until_complete(self, *, seconds: float = TIMEOUT_SECONDS) -> None:
        """Wait until all tasks run, and both nginx answer. Raises SmokeError."""
        try:
            wait_for("all services run", lambda: not self.missing(), seconds=seconds)
            for port in self.ports:
                wait_for(f"port {port} answers", partial(self.is_ready, port))
        except SmokeError as error:
            problems = self.docker(
                "stack", "ps", self.name, "--no-trunc", "--filter", "desired-state=running",
                "--format", "{{.Name}}: {{.CurrentState}} {{.Error}}",
            )  # fmt: skip
            raise SmokeError(f"{error}: {self.missing()}\n{problems}") from error

    def client(self, number: int = 1) -> Client:
        """Return a client for one of the two nginx."""
        return Client(f"http://127.0.0.1:{self.ports[number - 1]}")

    def is_ready(self, port: str) -> bool:
        """Return whether a backend is ready, through the nginx of this port."""
        try:
            return Client(f"http://127.0.0.1:{port}").send("GET", "/health/ready").status == 200
        except OSError:
            return False

    def containers(self, service: str) -> list[str]:
        """Return the ids of the running containers of a service."""
        label = f"label=com.docker.swarm.service.name={self.name}_{service}"
        return self.docker("ps", "--quiet", "--no-trunc", "--filter", label).split()

    def execute(self, service: str, *command: str, seconds: float = 120) -> str:
        """Run a command in a container of a service, and return its output."""
        running = self.containers(service)
        if not running:
            raise SmokeError(f"{service} does not run")
        return self.docker("exec", running[0], *command, seconds=seconds)

    def query(self, service: str, sql: str) -> str:
        """Return the output of a query on one member of Patroni, as its superuser."""
        psql = ("psql", "-U", "pressroom", "-d", "pressroom", "-AtX", "-v", "ON_ERROR_STOP=1")
        return self.execute(service, *psql, "-c", sql).strip()

    def members(self) -> list[dict[str, Any]]:
        """Return what Patroni reports of its members: `name`, `role`, `state` and more."""
        for member in ("patroni-1", "patroni-2", "patroni-3"):
            for container in self.containers(member):
                command = ("timeout", "5", "bash", "-c", READ_CLUSTER)
                head, _, body = self.run("exec", container, *command).stdout.partition("\n\n")
                if " 200 " in head:
                    found: list[dict[str, Any]] = json.loads(body)["members"]
                    return found
        raise SmokeError("no member of Patroni answers")

    def primary(self) -> str:
        """Return the name of the primary, or an empty string."""
        leaders = [str(each["name"]) for each in self.members() if each["role"] == "leader"]
        return leaders[0] if leaders else ""

    def up(self) -> None:
        """Build, deploy, and wait until it works. Raises SmokeError."""
        if self.docker("info", "--format", "{{.Swarm.LocalNodeState}}").strip() != "active":
            self.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
            self._data.mkdir(parents=True, exist_ok=True)
            (self._data / "initialized").touch()
        self.create_secrets()
        self.build(*BUILT, *(["bucket"] if BUCKET in self._files else []))
        self.deploy()
        self.refresh()
        self.wait_until_complete()

    def restore(self, moment: str, *, volume: str) -> None:
        """Start a new stack with the database of a moment, from the volume of another Barman.

        The stack needs the secrets of the other one. Its first member gets the files and ends the
        recovery. The replicas copy it, and the backends start after `pressroom after-restore`.
        Raises SmokeError.
        """
        first = f"{self.name}_patroni-1"
        self.docker("volume", "create", "--label", f"{LABEL}={self.name}", first)
        scripts = "/usr/local/lib/pressroom"
        self.docker(
            "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL",
            "--tmpfs", "/tmp",  # noqa: S108 - in a container
            "--tmpfs", "/var/run/postgresql:mode=1777",
            "--volume", f"{volume}:/var/lib/barman", "--volume", f"{first}:/var/lib/postgresql",
            f"{self.environment['IMAGES']}-barman:{self.environment.get('TAG') or '0.1.0'}",
            "bash", "-c", f'{scripts}/restore.sh "$0" && {scripts}/complete.sh', moment,
            seconds=3600,
        )  # fmt: skip
        alone = {"PATRONI_2_REPLICAS": "0", "PATRONI_3_REPLICAS": "0", "BACKEND_REPLICAS": "0"}
        self.deploy(**alone, AFTER_RESTORE="1")
        wait_for("the database is restored", lambda: "migrate" not in self.missing())
        for name in (*alone, "AFTER_RESTORE"):
            self.environment.pop(name)
        self.deploy()
        self.wait_until_complete()

    def down(self) -> None:
        """Remove the stack, its volumes and its secrets."""
        self.docker("stack", "rm", self.name)
        mine = ("--quiet", *self._mine)

        def have_ended() -> bool:
            # Their data is removed with them, so they need not end in order.
            if running := self.docker("ps", *mine).split():
                self.run("kill", *running)
            return not self.docker("ps", "--all", *mine)

        wait_for("the containers end", have_ended)
        wait_for("the networks are removed", lambda: not self.docker("network", "ls", *mine))
        volumes = self.docker("volume", "ls", *mine).split()
        if volumes:
            self.docker("volume", "rm", *volumes)
        if (self._data / "initialized").exists():
            self.docker("swarm", "leave", "--force")
        shutil.rmtree(self._data, ignore_errors=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the stack for the duration of the block."""
        try:
            self.up()
            yield
        finally:
            self.down()


def _is_complete(service: dict[str, Any], tasks: list[dict[str, Any]]) -> bool:
    """Return whether a service has its tasks: running ones, or completed ones of a job."""
    mode, template = service["Spec"]["Mode"], service["Spec"]["TaskTemplate"]
    mine = [each for each in tasks if each["ServiceID"] == service["ID"]]
    if "ReplicatedJob" in mode:
        iteration = service["JobStatus"]["JobIteration"].get("Index")
        states = [
            each["Status"]["State"]
            for each in mine
            if each.get("JobIteration", {}).get("Index") == iteration
        ]
        return "complete" in states
    running = [each for each in mine if each["DesiredState"] == "running"]
    return len(running) == mode["Replicated"]["Replicas"] and all(
        each["Status"]["State"] == "running" and _definition(each["Spec"]) == _definition(template)
        for each in running
    )


def _definition(task: dict[str, Any]) -> tuple[Any, ...]:
    """Return what decides whether a task must be replaced. Swarm adds two fields to services."""
    added = {"DNSConfig", "StopGracePeriod"}
    container = {name: value for name, value in task["ContainerSpec"].items() if name not in added}
    return container, task.get("ForceUpdate")


def main() -> int:
    """Return the exit status."""
    if problem := why_no_docker():
        print(f"This requires containers: {problem}.", file=sys.stderr)
        return 2
    swarm = Swarm(os.environ.get("STACK_NAME") or "pressroom")
    if sys.argv[1:] == ["down"]:
        return exit_status(swarm.down, SmokeError)
    status = exit_status(swarm.up, SmokeError)
    if status == 0:
        print("The API answers at " + " and ".join(f"http://localhost:{p}" for p in swarm.ports))
    return status


if __name__ == "__main__":
    sys.exit(main())
