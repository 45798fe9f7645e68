"""The production stack and helpers for the nginx tests."""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from tests.processes import HIGH_LIMITS, HOST, PASSWORD, SECRET_KEY, free_port, wait_until

SERVICES = "docker-compose.yml"
WITH_TLS = "docker-compose.tls.yml"
OBSERVE = "docker-compose.observe.yml"
ORIGIN = "https://www.example.com"
CACHED_KEYS = "grep -rha '^KEY: ' /var/cache/nginx/pages"
"""A command that prints the keys of all pages in nginx's cache."""
LASTING = ("db", "backend", "nginx", "nginx-config")
"""The services that do not end, so all but `migrate`."""
FRONT_END = f"http://localhost:{free_port()}"
"""The origin of the page in test_browser.py."""
PRODUCTION = {
    "BACKEND_TARGET": "runtime",
    "ENVIRONMENT": "production",
    "SECRET_KEY": SECRET_KEY,
    "POSTGRES_PASSWORD": "pressroom-edge",
    "DATABASE_URL": "",  # that of the tests is another one
    "ALLOWED_HOSTS": f"{HOST},localhost,blog.example.com,*.example.org",
    "CORS_ORIGINS": f"{ORIGIN},{FRONT_END}",
    "HTTP_BIND": HOST,
    "WEB_CONCURRENCY": "2",
    # Each process computes a hash at its start, and each new user needs two.
    "BCRYPT_COST": "4",
    # All test requests come from one address.
    "EDGE_REQUESTS_PER_SECOND": "100000",
    "EDGE_ATTEMPTS_PER_MINUTE": "6000",
    "LIMITS": HIGH_LIMITS,
    "REDIRECTS_PREFIX": "/old",
    "WEB_READER": "true",
    "WEB_STUDIO": "true",
}


def project_of_worker(purpose: str) -> str:
    """Return the name of a compose project, unique for each process of pytest-xdist."""
    from containers import project_name

    name: str = project_name(f"{purpose}{os.environ.get('PYTEST_XDIST_WORKER', '')}")
    return name


@dataclass(frozen=True)
class Stack:
    """A running compose project."""

    port: int
    settings: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[str] = (SERVICES,)
    purpose: str = "edge-tests"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def project(self) -> Any:
        """Return the project from scripts/containers.py."""
        from containers import Project

        name = project_of_worker(self.purpose)
        return Project(name, *self.files, environment=self.environment)

    @property
    def environment(self) -> dict[str, str]:
        return {**PRODUCTION, "HTTP_PORT": str(self.port), **self.settings}

    def up(self, *arguments: str) -> None:
        """Run `docker compose up` and wait until all services are healthy."""
        result = self.project.run_captured("up", "--detach", "--wait", *arguments, seconds=300)
        assert result.returncode == 0, result.stderr[-3000:]

    def scale(self, replicas: int) -> None:
        """Run this number of backends, and wait until they are healthy."""
        self.up("--no-recreate", "--no-deps", "--scale", f"backend={replicas}", "backend")

    def recover(self) -> None:
        """Start stopped services and wait until Docker reports all of them as healthy.

        `--wait` ends at a container that is still unhealthy from the outage.
        """
        arguments = ("up", "--detach", "--wait", "--no-recreate", "--no-deps", *LASTING)
        wait_until(
            lambda: self.project.run_captured(*arguments, seconds=300).returncode == 0,
            "all services are healthy",
            seconds=120,
        )

    def wait_for_change_feed(self) -> None:
        """Wait until nginx has read the change feed once. It then empties its cache."""
        self.wait_inside("nginx", "[ -f /tmp/cursor ]")

    def wait_until_not_cached(self, *slugs: str) -> None:
        """Wait until nginx's cache has no page whose key contains one of these slugs."""
        patterns = " ".join(f"-e {slug}" for slug in slugs)
        self.wait_inside("nginx", f"! {CACHED_KEYS} | grep -qF {patterns}")

    def wait_inside(self, service: str, condition: str, *, seconds: int = 60) -> None:
        """Wait until a condition of the shell holds in a container.

        One command waits, because each `docker compose exec` takes 0.1 s of CPU time.
        """
        loop = f"until {condition}; do sleep 0.2; done"
        self.project.output("exec", "-T", service, "timeout", str(seconds), "sh", "-c", loop)

    @contextmanager
    def additional_nginx(self, *files: str, **settings: str) -> Iterator["Stack"]:
        """Run another nginx with other files or settings, for the same backend."""
        changed = Stack(self.port, {**self.settings, **settings}, (*self.files, *files))
        changed.up("--no-deps", "nginx", "nginx-config")
        changed.wait_for_change_feed()
        try:
            yield changed
        finally:
            self.up("--no-deps", "nginx", "nginx-config")
            self.wait_for_change_feed()

    def client(self, **options: Any) -> httpx.Client:
        """Return a client with persistent connections."""
        # Not for TLS, so it need not load certificates, which takes 20 ms.
        return httpx.Client(base_url=self.url, timeout=40, verify=False, **options)

    def send_raw(self, data: bytes, *, seconds: float = 15) -> tuple[bytes, bool]:
        """Send bytes. Return the response and whether the connection was closed after it.

        nginx waits up to five seconds for the rest of a rejected body.
        """
        answer = b""
        with socket.create_connection((HOST, self.port), timeout=seconds) as connection:
            connection.sendall(data)
            try:
                while received := connection.recv(65536):
                    answer += received
            except TimeoutError:
                return answer, False
            except ConnectionResetError:
                pass
        return answer, True


def register(client: httpx.Client, username: str | None = None) -> dict[str, str]:
    """Register a user and return the headers for requests."""
    username = username or f"edge{uuid4().hex[:12]}"
    account = {"email": f"{username}@example.com", "username": username, "name": username}
    response = client.post("/users", json={**account, "password": PASSWORD})
    assert response.status_code == 201, response.text
    form = {"username": username, "password": PASSWORD}
    token = client.post("/auth/login", data=form).json()["access_token"]
    return {"Authorization": f"Bearer {token}"}


def publish(client: httpx.Client, headers: Mapping[str, str], **fields: Any) -> dict[str, Any]:
    """Create an article, published by default."""
    article = {"title": "At the edge", "content": "Where the network ends.", "published": True}
    response = client.post("/articles", json={**article, **fields}, headers=dict(headers))
    assert response.status_code == 201, response.text
    written: dict[str, Any] = response.json()
    return written


def is_cached(client: httpx.Client, path: str) -> bool:
    """Return whether nginx caches the path, after three requests."""
    states = [client.get(path).headers.get("X-Cache") for _ in range(3)]
    return states[-1] in {"HIT", "STALE", "UPDATING"}


def wait_for_state(client: httpx.Client, path: str, *states: str) -> httpx.Response:
    """Repeat a request until its cache state is one of `states`, and return the response."""

    def answer() -> httpx.Response | None:
        response = client.get(path)
        return response if response.headers.get("X-Cache") in states else None

    found = wait_until(answer, f"{path} is {states}")
    assert found is not None
    return found
