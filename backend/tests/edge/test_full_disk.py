"""A full disk of the database: reading goes on, and writes get 503 until somebody frees it."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from app.services.health import DISK_FULL
from tests.edge.stack import SERVICES, Stack, publish, register
from tests.processes import free_port, wait_until

VOLUME = "/var/lib/postgresql"
SMALL = {
    "services": {"db": {"volumes": [f"small:{VOLUME}"]}},
    "volumes": {
        "small": {
            "driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": "size=256m,mode=1777"},
        }
    },
}
# New connections need a little space, too, until PostgreSQL has written its cache of the catalogue.
FILL = f"dd if=/dev/zero of={VOLUME}/filler bs=1M; truncate --size=-256K {VOLUME}/filler"
WAIT_FOR_METRIC = """
import time, urllib.request
while b"pressroom_database_disk_full 1.0" not in urllib.request.urlopen(
    "http://127.0.0.1:9100/metrics"
).read():
    time.sleep(0.5)
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Stack]:
    """Run a stack whose database has a disk of 256 MB."""
    file = tmp_path / "small.yml"
    file.write_text(yaml.dump(SMALL))
    settings = {"WEB_CONCURRENCY": "1"}
    small = Stack(free_port(), settings, (SERVICES, str(file)), purpose="edge-disk")
    with small.project.running():
        yield small


def test_reading_goes_on_and_writing_fails(small: Stack) -> None:
    project = small.project
    with small.client() as client:
        author = register(client)
        path = f"/articles/{publish(client, author)['id']}"
        project.output("exec", "-T", "db", "sh", "-c", FILL)

        def write() -> httpx.Response:
            article = {"title": "Long", "content": secrets.token_urlsafe(100_000)}
            return client.post("/articles", json=article, headers=author)

        refused = wait_until(lambda: (found := write()).status_code == 503 and found, "a 503")
        assert isinstance(refused, httpx.Response)
        assert refused.json()["code"] == "database_full"
        assert refused.headers["Retry-After"] == "60"
        assert client.get(path, headers=author).status_code == 200  # not from nginx's cache
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["warnings"]) == (200, [DISK_FULL])
        assert "the disk of the database is full" in project.output("logs", "backend")
        project.output("exec", "-T", "backend", "timeout", "60", "python", "-c", WAIT_FOR_METRIC)

        project.output("exec", "-T", "db", "rm", f"{VOLUME}/filler")
        assert write().status_code == 201
