"""A mail server for tests, which runs in a thread."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.processes import DEADLINE, HOST, wait_until


class MailServer:
    """Stores received mail. Rejects an address that begins with a number, with that status.

    Mail to slow.example is answered only after `release`.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.messages: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.waiting: list[str] = []
        """The addresses of slow.example that were not answered yet, and those that gave up."""
        self._released = threading.Event()

    def release(self) -> None:
        """Answer the mails that wait, and later ones at once."""
        self._released.set()

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address[:3].isdigit():
            return f"{address[:3]} no mail for {address}"
        if address.endswith("@slow.example"):
            self.waiting.append(address)
            await asyncio.to_thread(self._released.wait, DEADLINE)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.recipients += envelope.rcpt_tos
        self.messages.append(message)
        return "250 OK"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        # handled=True would mean that the response was already sent.
        return AuthResult(success=data.password == b"right", handled=False)

    def wait_for_mails(self, number: int) -> None:
        """Wait until `number` mails have arrived."""
        wait_until(lambda: len(self.messages) >= number, f"{number} mails arrive")

    def wait_for_mail_to(self, email: str, *, number: int = 1) -> EmailMessage:
        """Wait for `number` mails to an address, and return the last one."""

        def found() -> list[EmailMessage]:
            return [message for message in list(self.messages) if message["To"] == email]

        wait_until(lambda: len(found()) >= number, f"{number} mails to {email} arrive")
        return found()[-1]


@contextmanager
def mail_server(
    port: int, *, tls: ssl.SSLContext | None = None, **options: Any
) -> Iterator[MailServer]:
    """Run a mail server on `port`. It offers STARTTLS if there is a `tls` context."""
    handler = MailServer(port)
    controller = Controller(
        handler,
        hostname=HOST,
        port=port,
        tls_context=tls,
        authenticator=handler.authenticate,
        **options,
    )
    controller.start()
    try:
        yield handler
    finally:
        handler.release()
        controller.stop()
