"""The development mailbox."""

from datetime import datetime

from app.schemas.types import Output


class MailboxEntry(Output):
    """A mail. It has a subject and a text only after it was delivered."""

    id: int
    kind: str
    email: str
    created_at: datetime
    attempts: int
    next_attempt_at: datetime | None
    sent_at: datetime | None
    error: str | None
    subject: str | None
    text: str | None
