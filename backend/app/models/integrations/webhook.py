"""Webhooks: subscriptions to events, their deliveries, and the log of attempts."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, ForeignKey, Index, SmallInteger, String, Text, text, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey, TimestampMixin, current_time


class Webhook(TimestampMixin, Base):
    """A subscription: where to send which events. Its position is that of the last event read."""

    __tablename__ = "webhooks"

    id: Mapped[PrimaryKey]
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    url: Mapped[str] = mapped_column(String(2000))
    description: Mapped[str] = mapped_column(String(200), server_default="")
    events: Mapped[list[str]] = mapped_column(ARRAY(String(30)))
    """Values of EventKind."""
    tag: Mapped[str | None] = mapped_column(String(50))
    """If set, only events of articles with this tag."""
    author_id: Mapped[int | None] = mapped_column(BigInteger)
    """If set, only events of articles of this user."""
    language: Mapped[str | None] = mapped_column(String(10))
    """If set, only events of articles in this language."""
    payload_version: Mapped[int] = mapped_column(SmallInteger)
    sealed_secret: Mapped[str] = mapped_column(Text)
    """The secret of signatures, encrypted (app.auth.sealing)."""
    sealed_previous_secret: Mapped[str | None] = mapped_column(Text)
    previous_secret_until: Mapped[datetime | None]
    """Until when messages are signed with the previous secret, too."""
    is_active: Mapped[bool] = mapped_column(server_default=true())
    disabled_reason: Mapped[str | None] = mapped_column(String(200))
    """Why it was disabled after failures; None if a user did it."""
    event_xid: Mapped[int] = mapped_column(BigInteger)
    event_id: Mapped[int] = mapped_column(BigInteger)
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    """Failed attempts since the last success."""
    failing_since: Mapped[datetime | None]
    """The first of these attempts."""
    paused_until: Mapped[datetime | None]
    """After several failures in a row, nothing is sent before."""
    last_success_at: Mapped[datetime | None]


class WebhookDelivery(Base):
    """An event to send to a webhook. `next_attempt_at` is None once it was delivered or given up.

    A claim sets `next_attempt_at` to its end.
    """

    __tablename__ = "webhook_deliveries"

    id: Mapped[PrimaryKey]
    webhook_id: Mapped[int] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    message_id: Mapped[UUID] = mapped_column(default=uuid4)
    """Identifies the message for its receiver, also after a restore, and in each repetition."""
    event_id: Mapped[int | None] = mapped_column(BigInteger)
    """None for a test. No foreign key: events are deleted earlier."""
    kind: Mapped[str] = mapped_column(String(30))
    article_id: Mapped[int | None] = mapped_column(BigInteger)
    """Deliveries of the same article are sent in the order of their ids."""
    created_at: Mapped[datetime] = mapped_column(default=current_time)
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    first_attempt_at: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime | None] = mapped_column(default=current_time)
    delivered_at: Mapped[datetime | None]


Index("ix_webhook_deliveries_webhook", WebhookDelivery.webhook_id, WebhookDelivery.id)
_PENDING: dict[str, Any] = {"postgresql_where": text("next_attempt_at IS NOT NULL")}
Index(
    "ix_webhook_deliveries_pending",
    WebhookDelivery.webhook_id,
    WebhookDelivery.id,
    **_PENDING,
)
Index(
    "ix_webhook_deliveries_pending_article",
    WebhookDelivery.webhook_id,
    WebhookDelivery.article_id,
    WebhookDelivery.id,
    **_PENDING,
)


class WebhookAttempt(Base):
    """An attempt to deliver, with the beginning of the answer."""

    __tablename__ = "webhook_attempts"

    id: Mapped[PrimaryKey]
    delivery_id: Mapped[int] = mapped_column(
        ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), index=True
    )
    started_at: Mapped[datetime]
    milliseconds: Mapped[int]
    """The duration."""
    status: Mapped[int | None] = mapped_column(SmallInteger)
    """The status of the response; None without a response."""
    error: Mapped[str | None] = mapped_column(String(300))
    answer: Mapped[str | None] = mapped_column(Text)
    """The beginning of the response's body."""
