"""Where mail arrives in tests: what is due is delivered when the test says so."""

import re
from email.message import EmailMessage

from app.core.config import Settings
from app.db.session import Database
from app.services.accounts.mail_delivery import DeliveryError
from app.services.accounts.mail_dispatch import MailDispatcher


class Inbox:
    """Takes all mail, for whomever it is; or refuses it, while `refusal` is set."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.refusal: DeliveryError | None = None
        self.refused: list[EmailMessage] = []
        self._arrived: list[EmailMessage] = []

    async def deliver(self) -> list[EmailMessage]:
        """Deliver what is due; what arrives by that."""
        self._arrived = []
        dispatcher = MailDispatcher(self.database, settings=self.settings, send=self._take)
        await dispatcher.deliver_due()
        return self._arrived

    async def token(self) -> str:
        """The token in the one mail that is due."""
        (message,) = await self.deliver()
        return token_in(message)

    async def _take(self, message: EmailMessage) -> None:
        if self.refusal is not None:
            self.refused.append(message)
            raise self.refusal
        self._arrived.append(message)


def token_in(message: EmailMessage) -> str:
    found = re.findall(r"#token=(\S+)", message.get_content())
    assert len(found) == 1, message.get_content()
    token: str = found[0]
    return token
