"""/dev/mailbox: latest mails, only in development."""

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import Environment, Settings
from app.db.session import Database
from app.jobs.mail import log_transport
from app.main import create_app
from app.models import Mail
from app.services.accounts.mail_delivery import DeliveryError
from app.services.accounts.mail_dispatch import MailDispatcher
from tests.factories import create_user
from tests.inbox import Inbox


@pytest.fixture(scope="module")
def development(settings: Settings) -> Settings:
    return settings.model_copy(update={"environment": Environment.DEVELOPMENT})


@pytest.fixture(scope="module")
def shared_app(development: Settings) -> FastAPI:
    """An application in development."""
    return create_app(development)


async def test_shows_sent_mail(
    client: httpx.AsyncClient,
    session: AsyncSession,
    database: Database,
    development: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    page = await client.get("/dev/mailbox")
    assert "There are no mails" in page.text
    user = await create_user(session)
    await client.post("/auth/password/forgot", json={"email": user.email})
    assert "queued" in (await client.get("/dev/mailbox")).text
    with caplog.at_level("INFO"):
        dispatcher = MailDispatcher(database, settings=development, send=log_transport)
        await dispatcher.deliver_due()

    response = await client.get("/dev/mailbox.json")
    assert response.headers["Cache-Control"] == "no-store"
    (entry,) = response.json()
    assert (entry["email"], entry["kind"]) == (user.email, "reset_password")
    assert entry["sent_at"] is not None
    assert "/reset-password#token=" in entry["text"]
    assert entry["text"] in caplog.text.replace("\\n", "\n")
    assert "details" not in entry

    page = await client.get("/dev/mailbox")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert entry["text"] in page.text
    assert user.email in page.text


async def test_content_is_escaped(client: httpx.AsyncClient, session: AsyncSession) -> None:
    attack = "<script>alert(1)</script>"
    session.add(Mail(kind="<i>", email="<b>@example.com", subject=attack, text=f"</pre>{attack}"))
    session.add(Mail(kind="<i>", email="x@example.com", error="<u>", next_attempt_at=None))
    await session.flush()
    page = (await client.get("/dev/mailbox")).text
    for tag in ("<script", "<i>", "<b>", "<u>"):
        assert tag not in page
    assert page.count("</pre>") == 2
    assert "&lt;script&gt;" in page


async def test_shows_the_latest_fifty_first(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    for number in range(51):
        session.add(Mail(kind="verify_email", email=f"user{number}@example.com"))
        await session.flush()
    entries = (await client.get("/dev/mailbox.json")).json()
    assert [entry["email"] for entry in entries] == [
        f"user{number}@example.com" for number in range(50, 0, -1)
    ]


async def test_shows_the_error_of_a_queued_mail(
    client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
) -> None:
    user = await create_user(session)
    await client.post("/auth/email/verify/resend", json={"email": user.email})
    inbox.error = DeliveryError("SMTPConnectError")
    await inbox.deliver()
    assert "queued (SMTPConnectError)" in (await client.get("/dev/mailbox")).text


@pytest.mark.parametrize("environment", [Environment.TEST, Environment.PRODUCTION])
async def test_mailbox_exists_only_in_development(
    settings: Settings, database: Database, environment: Environment
) -> None:
    app = create_app(settings.model_copy(update={"environment": environment}))
    app.state.database = database
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        for path in ("/dev/mailbox", "/dev/mailbox.json"):
            assert (await client.get(path)).status_code == 404


def test_mailbox_is_not_in_openapi(shared_app: FastAPI) -> None:
    routes = {
        route.path_format: route.include_in_schema
        for route in iter_route_contexts(shared_app.routes)
        if isinstance(route.original_route, APIRoute) and str(route.path_format).startswith("/dev")
    }
    assert routes == {"/dev/mailbox": False, "/dev/mailbox.json": False}


async def test_texts_are_stored_only_in_development(
    client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
) -> None:
    user = await create_user(session)
    await client.post("/auth/password/forgot", json={"email": user.email})
    assert len(await inbox.deliver()) == 1  # delivered with the settings of the tests
    (entry,) = (await client.get("/dev/mailbox.json")).json()
    assert (entry["subject"], entry["text"]) == (None, None)
