"""The mail queue, which a background task delivers."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey, current_time


class Mail(Base):
    """A queued mail. Its text, which contains the token, is composed on delivery.

    `next_attempt_at` is when it is due; NULL after it was sent, dropped or given up.
    """

    __tablename__ = "mails"

    id: Mapped[PrimaryKey]
    kind: Mapped[str] = mapped_column(String(30))
    email: Mapped[str] = mapped_column(String(254))
    user_id: Mapped[int | None] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    details: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(default=current_time, index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime | None] = mapped_column(default=current_time)
    sent_at: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(String(300))
    subject: Mapped[str | None] = mapped_column(String(200))
    text: Mapped[str | None] = mapped_column(Text)
    """Stored only in development, for /dev/mailbox."""


Index("ix_mails_email", func.lower(Mail.email), Mail.created_at)
Index("ix_mails_due", Mail.next_attempt_at, postgresql_where=text("next_attempt_at IS NOT NULL"))
Index(
    "ix_mails_failed",
    Mail.id,
    postgresql_where=text("next_attempt_at IS NULL AND sent_at IS NULL"),
)
