"""A PostgreSQL that hangs without closing connections results in 503, until it recovers."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests import postgres
from tests.postgres import processes_of
from tests.processes import Checkout, serving, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.checkout]

STATEMENT_SECONDS = 1
SHORT_MARGIN = (
    "import app.db.connections as connections; connections.COMMAND_TIMEOUT_MARGIN_SECONDS = 1"
)
"""The application gives up some seconds after PostgreSQL should have."""


@contextmanager
def hanging(server: postgres.Server) -> Iterator[None]:
    """Suspend all processes of the server. Sockets stay open, but are not read."""
    stopped = processes_of(server.directory)
    assert stopped
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in stopped:
            process.send_signal(signal.SIGCONT)


def test_reads_time_out_and_recover(checkout: Checkout) -> None:
    with postgres.server() as server:
        settings = {
            "DATABASE_URL": server.url,
            "DATABASE_STATEMENT_TIMEOUT": str(STATEMENT_SECONDS),
            "DATABASE_POOL_SIZE": "1",
            "DATABASE_POOL_TIMEOUT": "1",
            "DATABASE_CONNECT_TIMEOUT": "1",
        }
        with serving(checkout, first=SHORT_MARGIN, **settings) as api:
            assert api.client.get("/articles").status_code == 200
            with hanging(server):
                for _ in range(2):  # on the pooled connection, and on a new one
                    answer = api.client.get("/articles")
                    assert answer.status_code == 503
                    assert answer.headers["Retry-After"]
                assert api.client.get("/health/live").status_code == 200
            wait_until(lambda: api.client.get("/articles").status_code == 200, "it reads again")
