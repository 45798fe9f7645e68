"""The real stack, as production runs it, and what the tests of the edge do with it."""

import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from app.core.config import PROJECT_DIR
from tests.processes import GENEROUS, HOST, PASSWORD, SECRET_KEY, wait_until

sys.path.insert(0, str(PROJECT_DIR / "scripts"))  # no package: the Makefile runs them

SERVICES = "docker-compose.yml"
WITH_TLS = "docker-compose.tls.yml"
ORIGIN = "https://www.example.com"
PRODUCTION = {
    "BACKEND_TARGET": "runtime",
    "ENVIRONMENT": "production",
    "SECRET_KEY": SECRET_KEY,
    "POSTGRES_PASSWORD": "pressroom-edge",
    "ALLOWED_HOSTS": f"{HOST},localhost,blog.example.com,*.example.org",
    "CORS_ORIGINS": ORIGIN,
    "HTTP_BIND": HOST,
    "WEB_CONCURRENCY": "2",
    # All that the tests send comes from one address.
    "EDGE_REQUESTS_PER_SECOND": "100000",
    "EDGE_ATTEMPTS_PER_MINUTE": "6000",
    "LIMITS": GENEROUS,
}


@dataclass(frozen=True)
class Stack:
    """A compose project that is up, and a client of its edge."""

    port: int
    settings: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[str] = (SERVICES,)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def project(self) -> Any:
        """The project, by scripts/containers.py."""
        from containers import Project, project_name

        return Project(project_name("edge-tests"), *self.files, **self.environment)

    @property
    def environment(self) -> dict[str, str]:
        return {**PRODUCTION, "HTTP_PORT": str(self.port), **self.settings}

    def up(self, *arguments: str) -> None:
        """Bring it to the state that its settings and files describe; wait until it is healthy."""
        result = self.project.run_captured("up", "--detach", "--wait", *arguments, seconds=300)
        assert result.returncode == 0, result.stderr[-3000:]

    def recover(self) -> None:
        """Start what was stopped; return when Docker too has seen that all of it is healthy."""

        def is_up() -> bool:
            arguments = ("up", "--detach", "--wait", "--no-recreate")
            return self.project.run_captured(*arguments, seconds=300).returncode == 0

        wait_until(is_up, "the stack has recovered", seconds=60)

    @contextmanager
    def edge_with(self, *files: str, **settings: str) -> Iterator["Stack"]:
        """The same, with another nginx in front of it until the block ends."""
        changed = Stack(self.port, {**self.settings, **settings}, (*self.files, *files))
        changed.up("--no-deps", "nginx")
        try:
            yield changed
        finally:
            self.up("--no-deps", "nginx")

    def client(self, **options: Any) -> httpx.Client:
        """A client of the edge, which keeps its connections."""
        return httpx.Client(base_url=self.url, timeout=40, **options)

    def raw(self, sent: bytes, *, seconds: float = 15) -> tuple[bytes, bool]:
        """What comes back for these bytes, and whether the connection was closed after it.

        nginx waits up to five seconds for the rest of a body that it has refused.
        """
        answer = b""
        with socket.create_connection((HOST, self.port), timeout=seconds) as connection:
            connection.sendall(sent)
            try:
                while received := connection.recv(65536):
                    answer += received
            except TimeoutError:
                return answer, False
            except ConnectionResetError:
                pass
        return answer, True


def register(client: httpx.Client, username: str | None = None) -> dict[str, str]:
    """The headers with which a new user asks."""
    username = username or f"edge{uuid4().hex[:12]}"
    account = {"email": f"{username}@example.com", "username": username, "name": username}
    made = client.post("/users", json={**account, "password": PASSWORD})
    assert made.status_code == 201, made.text
    form = {"username": username, "password": PASSWORD}
    token = client.post("/auth/login", data=form).json()["access_token"]
    return {"Authorization": f"Bearer {token}"}


def publish(client: httpx.Client, headers: Mapping[str, str], **fields: Any) -> dict[str, Any]:
    """A new article, published unless `fields` say otherwise."""
    article = {"title": "At the edge", "content": "Where the network ends.", "published": True}
    made = client.post("/articles", json={**article, **fields}, headers=dict(headers))
    assert made.status_code == 201, made.text
    written: dict[str, Any] = made.json()
    return written


def is_stored(client: httpx.Client, path: str) -> bool:
    """Whether the edge answers by itself: asked until it does, or clearly does not."""
    states = [client.get(path).headers.get("X-Cache") for _ in range(3)]
    return states[-1] in {"HIT", "STALE", "UPDATING"}


def wait_for_state(client: httpx.Client, path: str, *states: str) -> httpx.Response:
    """The first answer that comes from the cache in one of these ways."""

    def answer() -> httpx.Response | None:
        response = client.get(path)
        return response if response.headers.get("X-Cache") in states else None

    found = wait_until(answer, f"{path} is {states}")
    assert found is not None
    return found
