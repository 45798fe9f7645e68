"""The mailbox of an installation in development."""

from datetime import datetime

from app.schemas.types import Output


class MailboxEntry(Output):
    """One mail; without a subject and a text until it is delivered, or where it was dropped."""

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
