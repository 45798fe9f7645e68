"""Boot the real stack, use it through nginx, scale it, and remove it: `make smoke`.

Twice: as a newcomer starts it, and as production runs it. It is a compose project of its own on a
free port, beside whatever else runs here, and is taken down with its data at the end, also after a
failure or Ctrl-C. Needs no packages.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hardening
import smoke
from containers import Project, project_name, stop_on_terminate, why_no_docker

REPLICAS = 3
PATIENCE = 30


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Poll until the condition holds. Raises SmokeError where it does not in time."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > PATIENCE:
            raise smoke.SmokeError(f"{what}: not within {PATIENCE} s")
        time.sleep(0.5)
    print(f"  ok  {what} (after {time.monotonic() - started:.1f} s)")


def access_log(project: Project) -> list[dict[str, Any]]:
    """What nginx has logged of requests."""
    lines = project.output("logs", "--no-log-prefix", "--no-color", "nginx").splitlines()
    # Other lines are nginx's own; some versions of compose put a control sequence before each.
    return [json.loads(line[line.index("{") :]) for line in lines if '{"time"' in line]


def replicas_that_answered(project: Project) -> set[str]:
    """Addresses of the backends that nginx's access log names."""
    entries = access_log(project)
    return {entry["upstream"] for entry in entries if entry["upstream_status"] == "200"}


def check_address(project: Project, found: str) -> None:
    """The address that a session shows is the one that nginx was asked from."""
    peers = {entry["client"] for entry in access_log(project) if entry["path"] == "/auth/login"}
    smoke.require("and that is the peer of nginx", peers == {found}, (found, peers))


def check_terminator(project: Project, client: smoke.Client) -> None:
    """nginx, told of a TLS terminator, believes what that says last about the client."""
    if project.run("up", "--detach", "--wait", "--no-deps", "nginx") != 0:
        raise smoke.SmokeError("nginx did not start with TRUSTED_PROXY")
    claimed = {"X-Forwarded-For": f"{smoke.FORGED}, 198.51.100.7"}

    def is_believed() -> bool:
        client.send("GET", "/articles", headers=claimed)
        return {entry["client"] for entry in access_log(project)} == {"198.51.100.7"}

    wait_for("a trusted proxy's last word is the client's address", is_believed)


def check_replicas(project: Project, client: smoke.Client) -> None:
    """The edge follows the scaling by itself, and every replica answers."""

    def all_answer() -> bool:
        for _ in range(REPLICAS * 4):
            answer = client.send("GET", "/articles")
            if answer.status != 200:
                raise smoke.SmokeError(f"while scaling: {answer.status} {answer.body}")
        return len(replicas_that_answered(project)) >= REPLICAS

    wait_for(f"{REPLICAS} replicas answer", all_answer)


def check_outage(project: Project, client: smoke.Client) -> None:
    """Without a database: 503 in the one shape; and recovery without a restart."""
    project.run("stop", "--timeout", "5", "db")
    answer = client.send("GET", "/articles")
    smoke.expect(
        "database down: 503 with Retry-After",
        answer.status == 503 and bool(answer.headers["Retry-After"]),
        answer,
    )
    project.run("start", "db")
    wait_for("recovery", lambda: client.send("GET", "/articles").status == 200)
    project.run("stop", "--timeout", "5", "backend")
    answer = client.send("GET", "/articles", headers={"X-Request-ID": "outage-0001"})
    smoke.expect(
        "backend down: nginx answers 503 in the one shape",
        answer.status == 503
        and bool(answer.headers["Retry-After"])
        and set(answer.body) == smoke.ERROR_FIELDS
        and answer.body["code"] == "service_unavailable"
        and answer.body["request_id"] == "outage-0001",
        answer,
    )


@contextmanager
def stack(what: str, **settings: str) -> Iterator[tuple[Project, smoke.Client]]:
    """A running stack with these settings, and a client of its edge."""
    port = os.environ.get("HTTP_PORT") or str(free_port())
    project = smoke_project(HTTP_PORT=port, HTTP_BIND="127.0.0.1", **settings)
    started = time.monotonic()
    with project.running():
        print(f"\n{what}: healthy after {time.monotonic() - started:.1f} s on port {port}")
        yield project, smoke.Client(f"http://127.0.0.1:{port}")


def smoke_project(**settings: str) -> Project:
    """Our compose project, with these settings."""
    return Project(project_name("smoke"), "docker-compose.yml", **settings)


def boot_for_development() -> None:
    """What `docker compose up` gives a newcomer: it works, and has the tools."""
    with stack("for development") as (project, client):
        check_address(project, smoke.tell_a_story(client))
        smoke.check_media(client)
        for command in ("pytest --version", "alembic check"):
            result = project.attempt("exec", "-T", "backend", *command.split())
            smoke.require(f"`{command}` in the backend", result.returncode == 0, result)


def boot_for_production() -> None:
    """What docs/operations.md tells operators to set, and all that they may then rely on."""
    settings = {
        "BACKEND_TARGET": "runtime",
        "ENVIRONMENT": "production",
        "SECRET_KEY": secrets.token_urlsafe(48),
        "POSTGRES_PASSWORD": secrets.token_urlsafe(48),
        "ALLOWED_HOSTS": "127.0.0.1,localhost",
        "CORS_ORIGINS": "https://www.example.com",
    }
    with stack("for production", **settings) as (project, client):
        check_address(project, smoke.tell_a_story(client))
        smoke.check_media(client)
        smoke.check_edge(client)
        smoke.check_limit(client)
        hardening.check_hosts(client)
        hardening.check_containers(project)
        unsafe = {**settings, "SECRET_KEY": "too-short", "ALLOWED_HOSTS": "*"}
        hardening.check_refusal(smoke_project(**unsafe))
        scaled = ("up", "--detach", "--wait", "--no-recreate", "--scale", f"backend={REPLICAS}")
        if project.run(*scaled) != 0:
            raise smoke.SmokeError("scaling failed")
        check_replicas(project, client)
        told = {**settings, "HTTP_PORT": str(client.port), "TRUSTED_PROXY": "0.0.0.0/0"}
        check_terminator(smoke_project(**told), client)
        check_outage(project, client)


def main() -> int:
    """Return the exit status."""
    if problem := why_no_docker():
        print(f"`make smoke` needs containers: {problem}.", file=sys.stderr)
        return 2
    stop_on_terminate()
    try:
        boot_for_development()
        boot_for_production()
    except (
        smoke.SmokeError,
        RuntimeError,
        OSError,
        ValueError,
        KeyError,
        subprocess.TimeoutExpired,
    ) as error:
        print(f"  FAILED  {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print("the real stack works")
    return 0


if __name__ == "__main__":
    sys.exit(main())
