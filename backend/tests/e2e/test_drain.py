"""A stopping worker loses no requests on persistent connections.

The tests use raw sockets to simulate a proxy, which may send a request while the worker stops.
"""

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from app.core.config import PROJECT_DIR
from app.server.protocol import DRAIN_SECONDS
from tests.e2e.test_shutdown import refuses_connections
from tests.processes import (
    DEADLINE,
    GUNICORN,
    HOST,
    PRODUCTION,
    Api,
    Checkout,
    Command,
    Fork,
    connected,
    free_port,
    get,
    serving,
    wait_until,
)

pytestmark = pytest.mark.e2e


@pytest.fixture
def api(checkout: Checkout, module_database: str) -> Iterator[Api]:
    with serving(checkout, GUNICORN, DATABASE_URL=module_database, **PRODUCTION) as api:
        yield api


class PersistentConnection:
    """A persistent connection with sequential requests."""

    def __init__(self, api: Api) -> None:
        self._socket = socket.create_connection((HOST, httpx.URL(api.url).port or 0), timeout=20)

    def close(self) -> None:
        self._socket.close()

    def send(self, method: str, path: str, body: bytes = b"") -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self._socket.sendall(head.encode() + b"\r\n" + body)

    def receive(self) -> httpx.Response:
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive_bytes()
        head, _, body = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = httpx.Headers(
            [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        )
        while len(body) < int(headers["Content-Length"]):
            body += self._receive_bytes()
        return httpx.Response(int(status.split(" ")[1]), headers=headers, content=body)

    def _receive_bytes(self) -> bytes:
        received = self._socket.recv(65536)
        assert received, "the connection was closed before the response"
        return received

    def is_closed(self) -> bool:
        """Wait until the server closes the connection, without a reset."""
        return self._socket.recv(1) == b""


def workers(api: Api) -> list[int]:
    children = Path(f"/proc/{api.process.pid}/task/{api.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def test_open_connections_are_answered_after_sigterm_and_idle_ones_closed(api: Api) -> None:
    with (
        closing(PersistentConnection(api)) as used,
        closing(PersistentConnection(api)) as fresh,
        closing(PersistentConnection(api)) as idle,
    ):
        for connection in (used, idle):
            connection.send("GET", "/health/live")
            assert connection.receive().headers.get("Connection") is None
        api.process.send(signal.SIGTERM)
        wait_until(lambda: refuses_connections(api), "no new connection", log=api.process.log)
        for connection in (used, fresh):
            connection.send("POST", "/users", b"{}")
            response = connection.receive()
            assert response.status_code == 422
            assert response.headers["Connection"] == "close"
            assert connection.is_closed()
        assert idle.is_closed()
        assert api.process.wait() == 0


@pytest.mark.checkout
def test_idle_connections_outlive_the_keep_alive_of_nginx() -> None:
    template = PROJECT_DIR / "nginx" / "templates" / "edge.conf.template"
    found = re.search(r"^ *keepalive_timeout (\d+)s;", template.read_text(), re.MULTILINE)
    assert found is not None
    assert int(found[1]) < DRAIN_SECONDS


def test_stops_immediately_without_connections(checkout: Checkout, module_database: str) -> None:
    port = free_port()
    endless = "import app.server.protocol as protocol; protocol.DRAIN_SECONDS = 3600"
    settings = {
        **PRODUCTION,
        "DATABASE_URL": module_database,
        "BCRYPT_COST": "4",
        "WEB_CONCURRENCY": "1",
        "GRACEFUL_TIMEOUT": "3600",
    }
    command = (*GUNICORN, "--bind", f"{HOST}:{port}")
    with (
        Fork(*command, checkout=checkout, settings=settings, first=endless) as process,
        connected(process, port) as api,
    ):
        api.client.close()
        process.send(signal.SIGTERM)
        assert process.wait() == 0


def test_unaccepted_connection_is_not_reset(api: Api) -> None:
    """The kernel has accepted the connection, and the worker stops before it does."""
    (worker,) = workers(api)
    os.kill(worker, signal.SIGSTOP)
    waiting = [PersistentConnection(api) for _ in range(5)]
    for connection in waiting:
        connection.send("POST", "/users", b"{}")
    api.process.send(signal.SIGTERM)
    os.kill(worker, signal.SIGCONT)
    assert [connection.receive().status_code for connection in waiting] == [422] * 5
    for connection in waiting:
        connection.close()


def ignores_connections(api: Api) -> bool:
    """Whether the server neither accepts nor refuses a connection."""
    address = httpx.URL(api.url)
    with socket.socket() as probe:
        probe.settimeout(0.3)
        try:
            probe.connect((address.host, address.port or 0))
        except TimeoutError:
            return True
    return False


def test_no_connection_is_established_between_the_last_accept_and_close(api: Api) -> None:
    """The kernel would reset it, after the client has sent a request."""
    (worker,) = workers(api)
    os.kill(worker, signal.SIGSTOP)
    with closing(PersistentConnection(api)) as waiting:
        waiting.send("POST", "/users", b"{}")
        api.process.send(signal.SIGTERM)
        wait_until(lambda: ignores_connections(api), "no new connection", log=api.process.log)
        os.kill(worker, signal.SIGCONT)
        assert waiting.receive().status_code == 422
    assert api.process.wait() == 0
    assert refuses_connections(api)


def test_failed_sigusr2_leaves_the_server_reachable(
    checkout: Checkout, module_database: str
) -> None:
    """The new process cannot start. It shares the listening socket until it ends."""
    port = free_port()
    settings = {**PRODUCTION, "DATABASE_URL": module_database, "WEB_CONCURRENCY": "1"}
    failing = "import os\ndef fail(*_): raise OSError('no such program')\nos.execvpe = fail"
    command = (*GUNICORN, "--bind", f"{HOST}:{port}")
    with (
        Fork(*command, checkout=checkout, settings=settings, first=failing) as process,
        connected(process, port) as api,
    ):
        process.send(signal.SIGUSR2)
        wait_until(lambda: "no such program" in process.log, "the new process fails")
        wait_until(lambda: is_answered(api), "an answer", log=process.log)


def is_answered(api: Api) -> bool:
    try:
        return get(f"{api.url}/health/live", timeout=0.5).status_code == 200
    except httpx.TransportError:
        return False


def test_socket_of_a_supervisor_goes_on_listening(checkout: Checkout, module_database: str) -> None:
    with socket.create_server((HOST, 0)) as listener:
        settings = {
            **PRODUCTION,
            "DATABASE_URL": module_database,
            "WEB_CONCURRENCY": "1",
            "BIND": f"fd://{listener.fileno()}",
        }
        command = [sys.executable, "-m", *GUNICORN]
        with Command(
            command, checkout=checkout, settings=settings, pass_fds=[listener.fileno()]
        ) as process:
            wait_until(lambda: "Application startup" in process.log, "start", log=process.log)
            process.send(signal.SIGTERM)
            assert process.wait() == 0
        socket.create_connection(listener.getsockname(), timeout=0.5).close()


def test_sighup_replaces_workers_without_lost_requests(api: Api) -> None:
    before = workers(api)
    with closing(PersistentConnection(api)) as kept:
        kept.send("GET", "/health/live")
        kept.receive()
        api.process.send(signal.SIGHUP)
        wait_until(lambda: set(workers(api)) - set(before), "a new worker", log=api.process.log)
        kept.send("POST", "/users", b"{}")
        assert kept.receive().status_code == 422
    wait_until(lambda: not set(workers(api)) & set(before), "the old one ends")
    assert get(f"{api.url}/health/live").status_code == 200


def test_max_requests_restart_loses_no_request(checkout: Checkout, module_database: str) -> None:
    renewing = ("--max-requests", "20", "--max-requests-jitter", "5")
    port = free_port()
    settings = {**PRODUCTION, "DATABASE_URL": module_database, "BCRYPT_COST": "4"}
    command = (*GUNICORN, *renewing, "--bind", f"{HOST}:{port}")
    with (
        Fork(*command, checkout=checkout, settings=settings) as process,
        connected(process, port) as api,
    ):
        pids = set(workers(api))
        deadline = time.monotonic() + DEADLINE
        while len(pids) < 3:  # the number of requests per worker depends on timing
            assert time.monotonic() < deadline
            response = api.client.post("/users", json={})
            assert response.status_code == 422, response.text
            pids |= set(workers(api))
