"""After SIGTERM, running requests finish, new ones are not accepted, and the exit status is 0."""

import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.postgres import holding, wait_until_blocked
from tests.processes import GUNICORN, PRODUCTION, Api, Checkout, serving, wait_until

pytestmark = pytest.mark.e2e


def refuses_connections(api: Api) -> bool:
    address = httpx.URL(api.url)
    with socket.socket() as probe:
        return probe.connect_ex((address.host, address.port or 0)) != 0


def test_running_login_finishes_after_sigterm(checkout: Checkout, own_database: str) -> None:
    with (
        serving(checkout, GUNICORN, DATABASE_URL=own_database, **PRODUCTION) as api,
        ThreadPoolExecutor(1) as threads,
    ):
        api.register("patient")
        with holding(own_database, "LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE"):
            login = threads.submit(api.log_in, "patient")
            wait_until_blocked(own_database)
            api.process.send(signal.SIGTERM)
            wait_until(lambda: refuses_connections(api), "no new connection", log=api.process.log)
            assert not login.done()
        assert login.result().status_code == 200
        assert login.result().json()["access_token"]
        assert api.process.wait() == 0
        assert '"path": "/auth/login", "status": 200' in api.process.log
