"""Start the stack, test it through nginx, scale it, and remove it: `make smoke`.

The stack is started twice, with the settings for development and for production. The second one
has Prometheus (docker-compose.observe.yml), which must know all that its dashboards show, and
backups (docker-compose.backup.yml), and reads its secrets from files. It is a separate compose
project on a free port. It is removed with its data at the end, also after a failure or Ctrl-C.
Requires no packages.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from random import SystemRandom
from typing import Any

import hardening
import observing
import smoke
from containers import Project, exit_status, project_name, why_no_docker

SERVICES = "docker-compose.yml"
OBSERVE = "docker-compose.observe.yml"
BACKUP = "docker-compose.backup.yml"
SECRETS = ("docker-compose.secrets.yml", "docker-compose.backup-secrets.yml")
REPLICAS = 3
TIMEOUT_SECONDS = 30


def free_port() -> int:
    """Return a free port below the ephemeral ones, which clients may take meanwhile."""
    for port in SystemRandom().sample(range(20_000, 32_768), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("100 ports are in use")


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Poll until the condition holds. Raises SmokeError after TIMEOUT_SECONDS."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > TIMEOUT_SECONDS:
            raise smoke.SmokeError(f"{what}: not within {TIMEOUT_SECONDS} s")
        time.sleep(0.5)
    print(f"  ok  {what} (after {time.monotonic() - started:.1f} s)")


def access_log(project: Project) -> list[dict[str, Any]]:
    """Return the entries of nginx's access log."""
    lines = project.output("logs", "--no-log-prefix", "--no-color", "nginx").splitlines()
    # There are other lines, and some versions of compose prefix lines with a control sequence.
    return [json.loads(line[line.index("{") :]) for line in lines if '{"time"' in line]


def answering_replicas(project: Project) -> set[str]:
    """Return the addresses of the backends in nginx's access log."""
    entries = access_log(project)
    return {entry["upstream"] for entry in entries if entry["upstream_status"] == "200"}


def check_client_address(project: Project, found: str) -> None:
    """Check that the address of a session is that of nginx's client."""
    peers = {entry["client"] for entry in access_log(project) if entry["path"] == "/auth/login"}
    smoke.require("the session has the address of nginx's client", peers == {found}, (found, peers))


def check_trusted_proxy(project: Project, client: smoke.Client) -> None:
    """Check that nginx uses the last X-Forwarded-For entry of a trusted proxy."""
    if project.run("up", "--detach", "--wait", "--no-deps", "nginx-config") != 0:
        raise smoke.SmokeError("nginx did not apply TRUSTED_PROXY")
    headers = {"X-Forwarded-For": f"{smoke.FORGED_ADDRESS}, 198.51.100.7"}

    def is_client_address() -> bool:
        client.send("GET", "/articles", headers=headers)
        *_, last = (entry for entry in access_log(project) if entry["path"] == "/articles")
        return bool(last["client"] == "198.51.100.7")

    wait_for("the last entry of a trusted proxy is the client address", is_client_address)


def check_replicas(project: Project, client: smoke.Client) -> None:
    """Check that nginx discovers new replicas, and that each replica answers."""

    def all_answer() -> bool:
        for _ in range(REPLICAS * 4):
            response = client.send("GET", "/articles")
            if response.status != 200:
                raise smoke.SmokeError(f"while scaling: {response.status} {response.body}")
        return len(answering_replicas(project)) >= REPLICAS

    wait_for(f"{REPLICAS} replicas answer", all_answer)


def check_outage(project: Project, client: smoke.Client) -> None:
    """Check the errors without a database and without a backend, and recovery without a restart."""
    project.run("stop", "--timeout", "5", "db")
    response = client.send("GET", "/articles")
    smoke.expect(
        "database down: 503 with Retry-After",
        response.status == 503 and bool(response.headers["Retry-After"]),
        response,
    )
    project.run("start", "db")
    wait_for("recovery", lambda: client.send("GET", "/articles").status == 200)
    project.run("stop", "--timeout", "5", "backend")
    response = client.send("GET", "/articles", headers={"X-Request-ID": "outage-0001"})
    smoke.expect(
        "backend down: nginx answers 503 in the error format",
        response.status == 503
        and bool(response.headers["Retry-After"])
        and set(response.body) == smoke.ERROR_FIELDS
        and response.body["code"] == "service_unavailable"
        and response.body["request_id"] == "outage-0001",
        response,
    )


def check_observing(project: Project, client: smoke.Client, prometheus: int) -> None:
    """Check that Prometheus knows what its dashboards show, and that nothing depends on it."""
    server = observing.Prometheus(f"http://127.0.0.1:{prometheus}")
    wait_for(
        f"Prometheus reads the exporters and {REPLICAS} replicas",
        lambda: observing.check_targets(server, replicas=REPLICAS),
    )
    observing.check_rules(server)
    observing.check_dashboards(server)
    project.run("stop", "--timeout", "1", "nginx-log-exporter", "postgres-exporter")
    down = [("nginx-log", "down"), ("postgres", "down")]
    wait_for(
        "exporters that are stopped are shown as down",
        lambda: sorted(each for each in server.targets() if each[1] == "down") == down,
    )
    project.run("stop", "--timeout", "1", "prometheus")
    response = client.send("GET", "/articles?limit=9")
    smoke.expect("requests go on without them", response.status == 200, response)


def check_backups(project: Project, values: Collection[str]) -> None:
    """Check that a backup is made and that WAL is archived, with the secrets from files."""

    def is_encrypted() -> bool:
        listed = project.output("exec", "-T", "backup", "pressroom", "backup", "list", "--json")
        return any(each.get("key") for each in json.loads(listed)["backups"])

    wait_for("an encrypted backup is made", is_encrypted)
    result = project.run_captured("exec", "-T", "barman", "barman", "check", "pressroom")
    smoke.require("Barman has a base backup, and receives WAL", result.returncode == 0, result)
    shown = {
        service
        for service, container in hardening.containers(project).items()
        if any(value in entry for entry in container["Config"]["Env"] for value in values)
    }
    smoke.require("no container has a secret in its environment", not shown, shown)


@contextmanager
def secret_files() -> Iterator[tuple[str, Collection[str]]]:
    """Yield a folder with a file for each secret, as in docs/settings.md, and their values."""
    names = ("secret_key", "database_password", "postgres_password", "barman_password")
    values = {name: secrets.token_urlsafe(48) for name in names}
    # Building the image would be printed in front of the key.
    run = ("--progress", "quiet", "run", "--rm", "--no-deps", "-T")
    key = (*run, "backend", "pressroom", "backup", "new-key")
    values["backup_key"] = smoke_project(BACKEND_TARGET="runtime").output(*key).strip()
    with tempfile.TemporaryDirectory() as folder:
        for name, value in values.items():
            file = Path(folder, name)
            file.write_text(f"{value}\n", encoding="utf-8")
            file.chmod(0o444)
        yield folder, values.values()


@contextmanager
def running_stack(
    what: str, *files: str, **settings: str
) -> Iterator[tuple[Project, smoke.Client]]:
    """Run the stack with more files and settings. Yields the project and a client for nginx."""
    port = os.environ.get("HTTP_PORT") or str(free_port())
    project = smoke_project(*files, HTTP_PORT=port, HTTP_BIND="127.0.0.1", **settings)
    started = time.monotonic()
    with project.running():
        print(f"\n{what}: healthy after {time.monotonic() - started:.1f} s on port {port}")
        yield project, smoke.Client(f"http://127.0.0.1:{port}")


def smoke_project(*files: str, **settings: str) -> Project:
    """Return the compose project of this script, with more files and these settings."""
    # A DATABASE_URL for tests must not affect the stack.
    environment = {"DATABASE_URL": "", **settings}
    return Project(project_name("smoke"), SERVICES, *files, environment=environment)


def boot_for_development() -> None:
    """Test the defaults of `docker compose up`: the API works, and the tools are installed."""
    with running_stack("for development") as (project, client):
        check_client_address(project, smoke.check_publishing(client))
        smoke.check_media(client)
        smoke.check_development(client)
        for command in ("pytest --version", "alembic check"):
            result = project.run_captured("exec", "-T", "backend", *command.split())
            smoke.require(f"`{command}` in the backend", result.returncode == 0, result)


def boot_for_production() -> None:
    """Test the production settings of docs/operations/install.md, and their guarantees."""
    prometheus = free_port()
    settings = {
        "BACKEND_TARGET": "runtime",
        "ENVIRONMENT": "production",
        "DATABASE_MONITOR_PASSWORD": secrets.token_urlsafe(48),
        "PROMETHEUS_PORT": str(prometheus),
        "PROMETHEUS_INTERVAL": "1s",
        "ALLOWED_HOSTS": "127.0.0.1,localhost,blog.example.com",
        "CORS_ORIGINS": "https://www.example.com",
    }
    files = (OBSERVE, BACKUP, *SECRETS)
    with (
        secret_files() as (folder, values),
        running_stack("for production", *files, SECRETS_DIR=folder, **settings) as (
            project,
            client,
        ),
    ):
        check_client_address(project, smoke.check_publishing(client))
        smoke.check_media(client)
        smoke.check_edge(client)
        smoke.check_limit(client)
        hardening.check_hosts(client)
        hardening.check_containers(project)
        check_backups(project, values)
        unsafe = {**settings, "SECRET_KEY": "too-short", "ALLOWED_HOSTS": "*"}
        hardening.check_unsafe_settings(smoke_project(OBSERVE, **unsafe))
        scaled = ("up", "--detach", "--wait", "--no-recreate", "--scale", f"backend={REPLICAS}")
        if project.run(*scaled) != 0:
            raise smoke.SmokeError("scaling failed")
        check_replicas(project, client)
        check_observing(project, client, prometheus)
        trusting = {**settings, "HTTP_PORT": str(client.port), "TRUSTED_PROXY": "0.0.0.0/0"}
        check_trusted_proxy(smoke_project(OBSERVE, **trusting), client)
        check_outage(project, client)


def boot() -> None:
    """Test the stack with both settings."""
    with ThreadPoolExecutor(1) as beside:
        # Images are built meanwhile. If that fails, the start of the stack shows why.
        images = ("nginx-exporter", "backup", "barman")
        beside.submit(smoke_project(OBSERVE, BACKUP).run_captured, "build", *images)
        boot_for_development()
    boot_for_production()
    print("the stack works")


def main() -> int:
    """Return the exit status."""
    if problem := why_no_docker():
        print(f"`make smoke` requires containers: {problem}.", file=sys.stderr)
        return 2
    return exit_status(boot, smoke.SmokeError)


if __name__ == "__main__":
    sys.exit(main())
