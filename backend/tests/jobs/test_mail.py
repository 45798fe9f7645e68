"""The SMTP transport, with a real mail server: delivery, rejection, TLS and login."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select

from app.core.config import Settings, SmtpSecurity
from app.db.session import Database
from app.jobs.background import Job, run_jobs
from app.jobs.mail import smtp_transport
from app.models import Mail
from app.services import outbox
from app.services.accounts import mail_dispatch
from app.services.accounts.mail_delivery import DeliveryError
from app.services.accounts.mail_dispatch import MailDispatcher
from app.services.accounts.mail_texts import MailText, compose
from app.services.outbox import MailKind
from tests.databases import migrated_database
from tests.factories import create_user
from tests.processes import HOST, free_port, wait_until
from tests.smtp import MailServer, mail_server


def mail_to(recipient: str, settings: Settings) -> EmailMessage:
    return compose(MailText.PASSWORD_CHANGED, recipient=recipient, settings=settings)


def using(settings: Settings, port: int, security: SmtpSecurity, **more: Any) -> Settings:
    where = {"smtp_host": HOST, "smtp_port": port, "smtp_security": security}
    return settings.model_copy(update=where | more)


class Dispatching(NamedTuple):
    """A database and settings with which mail is delivered."""

    database: Database
    settings: Settings

    async def queue(self, kind: MailKind, email: str) -> None:
        """Create a user with this address, and queue a mail."""
        async with self.database.unit_of_work() as session:
            user = await create_user(session, email=email)
            outbox.queue(session, kind, email=email, user_id=user.id)

    @asynccontextmanager
    async def running(self, *, connections: int) -> AsyncIterator[None]:
        """Deliver mail while the block runs."""
        dispatcher = MailDispatcher(
            self.database,
            settings=self.settings,
            send=smtp_transport(self.settings),
            connections=connections,
        )
        async with run_jobs([Job("mail delivery", dispatcher.deliver_due, interval=0.01)]):
            yield


@pytest.fixture
def server() -> Iterator[MailServer]:
    with mail_server(free_port()) as server:
        yield server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a self-signed certificate for HOST, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    file = tmp_path_factory.mktemp("certificate") / "mail.pem"
    file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(pem)
    )
    return file


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.parametrize(
    ("email", "recipient"),
    [
        ("ada@example.com", "ada@example.com"),
        ("ada@exämple.com", "ada@xn--exmple-cua.com"),
        ("büro@exämple.com", "büro@xn--exmple-cua.com"),
    ],
)
async def test_mail_is_delivered(
    server: MailServer, settings: Settings, email: str, recipient: str
) -> None:
    settings = using(settings, server.port, SmtpSecurity.NONE)
    sent = mail_to(email, settings)
    await smtp_transport(settings)(sent)
    (message,) = server.messages
    assert server.recipients == [recipient]
    assert message["Subject"] == sent["Subject"]
    assert message.get_content().replace("\r\n", "\n") == sent.get_content()


@pytest.mark.parametrize(("code", "permanent"), [("550", True), ("451", False)])
async def test_rejected_recipient_is_reported(
    server: MailServer, settings: Settings, code: str, permanent: bool
) -> None:
    settings = using(settings, server.port, SmtpSecurity.NONE)
    with pytest.raises(DeliveryError) as refused:
        await smtp_transport(settings)(mail_to(f"{code}@example.com", settings))
    assert refused.value.reason == f"SMTPRecipientsRefused {code}"
    assert refused.value.permanent is permanent


@pytest.mark.parametrize("security", SmtpSecurity)
async def test_unreachable_server_is_reported(settings: Settings, security: SmtpSecurity) -> None:
    settings = using(settings, free_port(), security)
    with pytest.raises(DeliveryError) as failed:
        await smtp_transport(settings)(mail_to("ada@example.com", settings))
    assert failed.value.reason == "SMTPConnectError"
    assert not failed.value.permanent


@pytest.fixture
def own_url() -> Iterator[str]:
    with migrated_database() as url:
        yield url


class TestDispatcher:
    """Several connections, with committed rows."""

    @pytest.fixture
    async def real(
        self, settings: Settings, server: MailServer, own_url: str
    ) -> AsyncIterator[Dispatching]:
        smtp = using(settings, server.port, SmtpSecurity.NONE, database_url=own_url)
        database = Database.from_settings(smtp)
        yield Dispatching(database, smtp)
        await database.dispose()

    async def test_slow_domain_does_not_delay_other_mail(
        self, real: Dispatching, server: MailServer
    ) -> None:
        for number in range(9):
            await real.queue(MailKind.VERIFY_EMAIL, f"user{number}@slow.example")
        for number in range(5):
            await real.queue(MailKind.VERIFY_EMAIL, f"user{number}@example.com")
        async with real.running(connections=4):
            await asyncio.to_thread(server.wait_for_mails, 5)
            assert {each["To"].partition("@")[2] for each in server.messages} == {"example.com"}
            await asyncio.to_thread(wait_until, lambda: len(server.waiting) > 1, "two mails wait")
            assert len(server.waiting) == 2
            server.release()
            await asyncio.to_thread(server.wait_for_mails, 14)

    async def test_domain_that_was_slow_gets_one_connection(
        self, real: Dispatching, server: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mail_dispatch, "SLOW_SECONDS", 0)
        for number in range(6):
            await real.queue(MailKind.VERIFY_EMAIL, f"user{number}@slow.example")
        await real.queue(MailKind.VERIFY_EMAIL, "user@example.com")
        async with real.running(connections=4):
            # The last mail comes before a second one to the slow domain.
            await asyncio.to_thread(server.wait_for_mail_to, "user@example.com")
            server.release()
            await asyncio.to_thread(server.wait_for_mails, 7)

    async def test_password_resets_come_first(self, real: Dispatching, server: MailServer) -> None:
        for number in range(3):
            await real.queue(MailKind.VERIFY_EMAIL, f"user{number}@example.com")
        await real.queue(MailKind.RESET_PASSWORD, "forgetful@example.com")
        async with real.running(connections=1):
            await asyncio.to_thread(server.wait_for_mails, 4)
        assert server.recipients[0] == "forgetful@example.com"

    async def test_one_connection_is_reserved_for_password_resets(
        self, real: Dispatching, server: MailServer
    ) -> None:
        for domain in ("slow.example", "example.com"):
            await real.queue(MailKind.VERIFY_EMAIL, f"user@{domain}")
        async with real.running(connections=2):
            await asyncio.to_thread(wait_until, lambda: server.waiting, "a mail waits")
            await real.queue(MailKind.RESET_PASSWORD, "forgetful@example.com")
            await asyncio.to_thread(server.wait_for_mails, 1)
            assert server.recipients == ["forgetful@example.com"]
            server.release()
            await asyncio.to_thread(server.wait_for_mails, 3)

    async def test_delivery_of_a_mail_has_a_time_limit(
        self, real: Dispatching, server: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It does not wait for the response to QUIT either."""
        monkeypatch.setattr("app.jobs.mail.RESPONSE_TIMEOUT_SECONDS", 3600)
        await real.queue(MailKind.VERIFY_EMAIL, "user@slow.example")
        settings = real.settings.model_copy(update={"mail_timeout": 0.1})
        dispatcher = MailDispatcher(real.database, settings=settings, send=smtp_transport(settings))
        async with asyncio.timeout(60):
            await dispatcher.deliver_due()
        async with real.database.unit_of_work() as session:
            mail = (await session.scalars(select(Mail))).one()
        assert (mail.error, mail.sent_at) == ("TimeoutError", None)
        assert mail.next_attempt_at is not None

    async def test_deliveries_are_cancelled_at_shutdown(
        self, real: Dispatching, server: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.jobs.mail.RESPONSE_TIMEOUT_SECONDS", 3600)
        await real.queue(MailKind.VERIFY_EMAIL, "user@slow.example")
        async with asyncio.timeout(60), real.running(connections=4):
            await asyncio.to_thread(wait_until, lambda: server.waiting, "a mail waits")
        assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint({"mail delivery"})


@pytest.mark.parametrize("login", [{}, {"smtp_username": "press", "smtp_password": "right"}])
@pytest.mark.parametrize("security", [SmtpSecurity.STARTTLS, SmtpSecurity.TLS])
async def test_missing_encryption_prevents_delivery(
    settings: Settings,
    security: SmtpSecurity,
    login: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An attacker could otherwise read the mail and the password."""
    monkeypatch.setattr("app.jobs.mail.RESPONSE_TIMEOUT_SECONDS", 1)
    with mail_server(free_port(), auth_require_tls=False) as server:
        settings = using(settings, server.port, security, **login)
        with pytest.raises(DeliveryError) as failed:
            await smtp_transport(settings)(mail_to("ada@example.com", settings))
        assert not failed.value.permanent
        assert (server.messages, server.logins) == ([], [])


async def test_untrusted_certificate_is_rejected(tls: ssl.SSLContext, settings: Settings) -> None:
    with mail_server(free_port(), tls=tls) as server:
        settings = using(settings, server.port, SmtpSecurity.STARTTLS)
        with pytest.raises(DeliveryError):
            await smtp_transport(settings)(mail_to("ada@example.com", settings))
        assert server.messages == []


async def test_login_uses_tls(
    tls: ssl.SSLContext, certificate: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with mail_server(free_port(), tls=tls, auth_required=True) as server:
        login = {"smtp_username": "press", "smtp_password": "right"}
        settings = using(settings, server.port, SmtpSecurity.STARTTLS, **login)
        await smtp_transport(settings)(mail_to("ada@example.com", settings))
        assert len(server.messages) == 1
        assert server.logins == [(b"press", b"right")]

        wrong = settings.model_copy(update={"smtp_password": "a wrong one"})
        with pytest.raises(DeliveryError) as failed:
            await smtp_transport(wrong)(mail_to("ada@example.com", settings))
        assert failed.value.reason == "SMTPAuthenticationError 535"
        assert not failed.value.permanent
