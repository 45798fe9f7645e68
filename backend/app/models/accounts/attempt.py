"""Attempts to guess passwords or codes, counted by user and client."""

from datetime import datetime

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base


class Attempt(Base):
    """Recent attempts for one key. The key is a hash, because a typed name may be a password."""

    __tablename__ = "attempts"

    key: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    failures: Mapped[float]
    """The level of a leaky bucket as of `tried_at`; it decays with time."""
    pending: Mapped[int]
    """Attempts without a result yet."""
    tried_at: Mapped[datetime]
    closed_until: Mapped[datetime | None]


Index("ix_attempts_tried_at", Attempt.tried_at)
