"""Webhooks when a process is killed or the database restarts, and the commands of the page."""

import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks

from app.core.config import PROJECT_DIR
from app.services.integrations.delivering import CLAIM_DURATION, PER_WEBHOOK
from tests import postgres
from tests.postgres import fetch
from tests.processes import HOST, Api, Checkout, free_port, serving, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.checkout]

SHORT_DELAY = (
    "from datetime import timedelta; from app.services.integrations import delivering;"
    " delivering.FIRST_DELAY = timedelta(seconds=0.2)"
)
PAGE = PROJECT_DIR / "docs" / "integrations" / "webhooks.md"


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    """A server of its own, because transactions of other tests hold back events."""
    with postgres.server() as server:
        yield server


class Received:
    """What a receiver got: the ids and types of messages that it accepted, and those in work."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.accepted: list[str] = []
        self.in_work: set[str] = set()
        self.seconds = 0.0
        self.secret = ""
        self.url = ""


@contextmanager
def receiving() -> Iterator[Received]:
    """Run a receiver that checks signatures, in threads of this process."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            name = self.headers["webhook-id"]
            standardwebhooks.Webhook(received.secret).verify(body, dict(self.headers))
            with received.lock:
                received.in_work.add(name)
            time.sleep(received.seconds)  # the work of the receiver
            with received.lock:
                received.accepted.append(name)
                received.in_work.discard(name)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    received.url = f"http://{HOST}:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def subscribe(api: Api, headers: dict[str, str], received: Received) -> None:
    new = {"url": received.url, "events": ["article.published"]}
    created = api.client.post("/webhooks", json=new, headers=headers)
    assert created.status_code == 201, created.text
    received.secret = created.json()["secret"]


def publish(api: Api, headers: dict[str, str], number: int) -> None:
    article = {"title": f"No. {number}", "content": "Long enough.", "published": True}
    assert api.client.post("/articles", json=article, headers=headers).status_code == 201


def delivered(database: str) -> int:
    rows = fetch(database, "SELECT count(*) FROM webhook_deliveries WHERE delivered_at IS NOT NULL")
    count: int = rows[0][0]
    return count


CLAIMED = "delivered_at IS NULL AND next_attempt_at BETWEEN now() AND $1"


def claimed(database: str, until: datetime) -> int:
    """Return for how many messages a process has a claim that ends before this time."""
    rows = fetch(database, f"SELECT count(*) FROM webhook_deliveries WHERE {CLAIMED}", until)
    count: int = rows[0][0]
    return count


def end_claims(database: str, until: datetime) -> None:
    """Let claims end at once that would end before this time."""
    fetch(database, f"UPDATE webhook_deliveries SET next_attempt_at = now() WHERE {CLAIMED}", until)


@contextmanager
def replica(checkout: Checkout, database: str) -> Iterator[Api]:
    with serving(
        checkout,
        first=SHORT_DELAY,
        DATABASE_URL=database,
        ENVIRONMENT="test",
        WEBHOOK_PRIVATE_ADDRESSES="true",
    ) as api:
        yield api


def test_killed_process_loses_nothing(checkout: Checkout, server: postgres.Server) -> None:
    count = 24
    with receiving() as received, replica(checkout, server.url) as first:
        with replica(checkout, server.url) as other:
            headers = other.bearer("ada")
            subscribe(other, headers, received)
            received.seconds = 0.1
            for number in range(count):
                publish(other, headers, number)
            wait_until(lambda: len(received.accepted) >= 4, "some arrive", log=first.process.log)
            wait_until(lambda: received.in_work, "some are in flight", log=first.process.log)
            with received.lock:
                other.process.kill()
                before, in_work = set(received.accepted), set(received.in_work)
            until = datetime.now(UTC) + CLAIM_DURATION
        wait_until(
            lambda: delivered(server.url) + claimed(server.url, until) == count,
            "all others arrive",
            log=first.process.log,
        )
        end_claims(server.url, until)
        wait_until(lambda: delivered(server.url) == count, "all arrive", log=first.process.log)
    counts = Counter(received.accepted)
    assert len(counts) == count
    repeated = {name for name, times in counts.items() if times > 1}
    assert len(repeated) <= PER_WEBHOOK  # what the killed process had in flight
    assert repeated <= before | in_work
    assert max(counts.values()) <= 2


def test_database_restarts(checkout: Checkout, server: postgres.Server) -> None:
    """All connections end while messages are in flight.

    Not by a crash: servers of tests may lose their last commits then.
    """
    count = 12
    with receiving() as received, replica(checkout, server.url) as api:
        headers = api.bearer("ada")
        subscribe(api, headers, received)
        received.seconds = 0.2
        for number in range(count):
            publish(api, headers, number)
        for _ in range(2):
            wait_until(lambda: received.in_work, "some are in flight", log=api.process.log)
            server.stop()
            server.start()

        def all_arrive() -> bool:
            # A delivery that could not be recorded would be repeated after half a minute.
            end_claims(server.url, datetime.now(UTC) + CLAIM_DURATION - timedelta(seconds=5))
            return delivered(server.url) >= count

        wait_until(all_arrive, "all arrive", log=api.process.log)
    assert len(set(received.accepted)) == count


def test_commands_of_the_page(checkout: Checkout, server: postgres.Server, tmp_path: Path) -> None:
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (program,) = [text for kind, text in blocks if kind == "python"]
    commands = "\n".join(text for kind, text in blocks if kind == "bash")
    (shown,) = [text for kind, text in blocks if kind == "text"]
    (tmp_path / "receiver.py").write_text(program)
    python = Path(sys.executable).parent
    with replica(checkout, server.url) as api:
        ended = subprocess.run(
            ["bash", "-euo", "pipefail"],
            input=commands,
            cwd=tmp_path,
            env={
                "PATH": f"{python}:{os.environ['PATH']}",
                "API": api.url,
                "TOKEN": api.bearer("ada")["Authorization"].removeprefix("Bearer "),
                "RECEIVER_PORT": str(free_port()),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}\n{api.process.log}"
    assert ended.stdout == shown
