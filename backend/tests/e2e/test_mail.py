"""Mail is delivered after an outage of the mail server, and its link works once. Development needs
no mail server."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage

import httpx
import pytest

from tests import postgres
from tests.databases import migrated_database
from tests.inbox import token_in
from tests.postgres import fetch, holding, wait_until_blocked
from tests.processes import (
    DEADLINE,
    GUNICORN,
    HOST,
    PASSWORD,
    UVICORN,
    Api,
    Checkout,
    Fork,
    connected,
    free_port,
    serving,
    wait_until,
)
from tests.smtp import MailServer, mail_server

pytestmark = pytest.mark.e2e

NEW = "a better password"
SOON = """
import app.main
create_jobs = app.main.create_jobs
app.main.create_jobs = lambda *arguments: [
    job._replace(interval=0.5) if job.name == "mail delivery" else job
    for job in create_jobs(*arguments)
]
"""
"""Due mails are looked for more often."""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture
def server(port: int) -> Iterator[MailServer]:
    with mail_server(port) as server:
        yield server


@pytest.fixture(scope="module")
def api(checkout: Checkout, database: str, port: int) -> Iterator[Api]:
    """Start two processes that deliver mail."""
    with serving(
        checkout,
        GUNICORN,
        first=SOON,
        DATABASE_URL=database,
        ENVIRONMENT="test",
        WEB_CONCURRENCY="2",
        PUBLIC_URL="https://blog.example.com",
        MAIL_FROM="The Blog <blog@example.com>",
        SMTP_HOST=HOST,
        SMTP_PORT=str(port),
        SMTP_SECURITY="none",
    ) as api:
        yield api


def verify(api: Api, message: EmailMessage) -> httpx.Response:
    body = {"token": token_in(message), "password": PASSWORD}
    return api.client.post("/auth/email/verify", json=body)


def forget(api: Api, username: str) -> None:
    body = {"email": f"{username}@example.com"}
    assert api.client.post("/auth/password/forgot", json=body).status_code == 202


def reset(api: Api, message: EmailMessage, password: str = NEW) -> httpx.Response:
    body = {"token": token_in(message), "password": password}
    return api.client.post("/auth/password/reset", json=body)


def test_email_verification_and_password_reset(api: Api, server: MailServer) -> None:
    headers = api.bearer("ada")
    message = server.wait_for_mail_to("ada@example.com")
    assert message["From"] == "The Blog <blog@example.com>"
    assert "https://blog.example.com/verify-email#token=" in message.get_content()
    assert verify(api, message).status_code == 204
    me = api.client.get("/auth/me", headers=headers).json()
    assert me["email_verified_at"] is not None

    forget(api, "ada")
    assert reset(api, server.wait_for_mail_to("ada@example.com", number=2)).status_code == 204
    assert api.client.get("/auth/me", headers=headers).status_code == 401
    assert api.log_in("ada").status_code == 401
    assert api.log_in("ada", password=NEW).status_code == 200
    notice = server.wait_for_mail_to("ada@example.com", number=3)
    assert "was changed" in notice["Subject"]
    for secret in (token_in(message), PASSWORD, NEW):
        assert secret not in api.process.log


def test_unavailable_mail_server_delays_only_mail(api: Api, database: str, port: int) -> None:
    assert api.register("patient").status_code == 201
    failed = "SELECT attempts FROM mails WHERE email = 'patient@example.com' AND error IS NOT NULL"
    wait_until(lambda: fetch(database, failed), "an attempt fails", log=api.process.log)
    with mail_server(port) as server:
        message = server.wait_for_mail_to("patient@example.com")
        assert verify(api, message).status_code == 204
    assert "Traceback" not in api.process.log


def test_each_mail_is_sent_once(api: Api, server: MailServer, database: str) -> None:
    names = [f"many{number}" for number in range(20)]
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(api.register, names))
    left = "SELECT 1 FROM mails WHERE email LIKE 'many%' AND sent_at IS NULL"
    wait_until(lambda: not fetch(database, left), "all is sent", log=api.process.log)
    arrived = [message["To"] for message in server.messages]
    assert sorted(arrived) == sorted(f"{name}@example.com" for name in names)


def test_link_works_once_for_concurrent_requests(
    api: Api, server: MailServer, database: str
) -> None:
    api.register("twice")
    server.wait_for_mail_to("twice@example.com")
    forget(api, "twice")
    message = server.wait_for_mail_to("twice@example.com", number=2)
    passwords = [f"password of client {number}" for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        with holding(database, "SELECT 1 FROM users WHERE username = 'twice' FOR UPDATE"):
            resets = [threads.submit(reset, api, message, password) for password in passwords]
            wait_until_blocked(database, requests=4)
        statuses = [each.result().status_code for each in resets]
    assert sorted(statuses) == [204, 400, 400, 400]
    logins = [api.log_in("twice", password=password).status_code for password in passwords]
    assert logins == [200 if status == 204 else 401 for status in statuses]


def test_concurrent_resets_of_a_user(api: Api, server: MailServer, database: str) -> None:
    """Two links of a user are used concurrently, without a deadlock."""
    api.register("hasty")
    server.wait_for_mail_to("hasty@example.com")
    forget(api, "hasty")
    first = server.wait_for_mail_to("hasty@example.com", number=2)
    fetch(database, "UPDATE mails SET sent_at = sent_at - interval '1 minute'")
    forget(api, "hasty")
    second = server.wait_for_mail_to("hasty@example.com", number=3)
    with ThreadPoolExecutor(2) as threads:
        with holding(database, "SELECT 1 FROM users WHERE username = 'hasty' FOR UPDATE"):
            resets = [threads.submit(reset, api, message) for message in (first, second)]
            wait_until_blocked(database, requests=2)
        assert sorted(each.result().status_code for each in resets) == [204, 400]


def test_delivery_resumes_after_a_database_outage(
    checkout: Checkout, port: int, server: MailServer
) -> None:
    with postgres.server() as database:
        database.stop()
        with serving(
            checkout,
            DATABASE_URL=database.url,
            ENVIRONMENT="test",
            SMTP_HOST=HOST,
            SMTP_PORT=str(port),
            SMTP_SECURITY="none",
        ) as api:
            failed = "mail delivery failed: ServiceUnavailable"
            wait_until(lambda: failed in api.process.log, "delivery fails", log=api.process.log)
            database.start()
            wait_until(
                lambda: api.client.get("/health/ready").status_code == 200, "the API is ready"
            )
            api.register("survivor")
            server.wait_for_mail_to("survivor@example.com")
            assert api.process.log.count(failed) == 1
            assert "Traceback" not in api.process.log


def test_development_needs_no_mail_server(checkout: Checkout, own_database: str) -> None:
    with serving(checkout, first=SOON, DATABASE_URL=own_database) as api:
        api.register("grace")
        pattern = r"http://localhost:8000/studio/verify-email#token=(\S+)"
        token: str = wait_until(
            lambda: re.findall(pattern, api.process.log), "it is printed", log=api.process.log
        )[0]
        wait_until(lambda: token in api.client.get("/dev/mailbox").text, "it is in the mailbox")
        (entry,) = api.client.get("/dev/mailbox.json").json()
        assert entry["email"] == "grace@example.com"
        body = {"token": token, "password": PASSWORD}
        assert api.client.post("/auth/email/verify", json=body).status_code == 204
        assert entry["text"] in api.process.log


def test_server_stops_during_mail_delivery(checkout: Checkout, own_database: str) -> None:
    import signal
    import socket

    patient = f"{SOON}\nimport app.jobs.mail as mail; mail.RESPONSE_TIMEOUT_SECONDS = 3600"
    port = free_port()
    command = (*UVICORN, "--port", str(port))
    silent = socket.create_server((HOST, 0))
    settings = {
        "DATABASE_URL": own_database,
        "BCRYPT_COST": "4",
        "ENVIRONMENT": "test",
        "SMTP_HOST": HOST,
        "SMTP_PORT": str(silent.getsockname()[1]),
        "SMTP_SECURITY": "none",
    }
    with (
        silent,
        Fork(*command, checkout=checkout, settings=settings, first=patient) as process,
        connected(process, port) as api,
    ):
        api.register("waiting")
        silent.settimeout(DEADLINE)
        connection, _ = silent.accept()  # and says nothing
        with connection:
            process.send(signal.SIGTERM)
            assert process.wait() in {0, -signal.SIGTERM}
        assert "Traceback" not in process.log
