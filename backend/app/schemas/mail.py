"""The mail queue, and the development mailbox."""

from datetime import datetime
from enum import StrEnum

from app.schemas.page import CursorQuery
from app.schemas.types import Output


class QueuedMail(Output):
    """A mail in the queue, and its delivery."""

    id: int
    kind: str
    email: str
    created_at: datetime
    attempts: int
    next_attempt_at: datetime | None
    sent_at: datetime | None
    error: str | None


class MailboxEntry(QueuedMail):
    """A mail. It has a subject and a text only after it was delivered."""

    subject: str | None
    text: str | None


class MailState(StrEnum):
    """The progress of a mail."""

    SENT = "sent"
    WAITING = "waiting"
    FAILED = "failed"
    """It was given up, dropped or cancelled."""


class MailQuery(CursorQuery):
    """Filter and page of the mail queue."""

    state: MailState | None = None


class MailResponse(QueuedMail):
    """A mail without its text, which contains a secret link."""

    state: MailState
