"""An inbox for the mails of a test, which the test delivers explicitly."""

import re
from email.message import EmailMessage

from app.core.config import Settings
from app.db.session import Database
from app.services.accounts.mail_delivery import DeliveryError
from app.services.accounts.mail_dispatch import MailDispatcher


class Inbox:
    """Receives all mails, or rejects them with `error` while it is set."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.error: DeliveryError | None = None
        self.rejected: list[EmailMessage] = []
        self._received: list[EmailMessage] = []

    async def deliver(self) -> list[EmailMessage]:
        """Deliver all mails that are due, and return them."""
        self._received = []
        dispatcher = MailDispatcher(self.database, settings=self.settings, send=self._receive)
        await dispatcher.deliver_due()
        return self._received

    async def token(self) -> str:
        """Deliver the only mail that is due, and return the token in it."""
        (message,) = await self.deliver()
        return token_in(message)

    async def _receive(self, message: EmailMessage) -> None:
        if self.error is not None:
            self.rejected.append(message)
            raise self.error
        self._received.append(message)


def token_in(message: EmailMessage) -> str:
    """Return the token in the link of a mail."""
    found = re.findall(r"#token=(\S+)", message.get_content())
    assert len(found) == 1, message.get_content()
    token: str = found[0]
    return token
