"""Attempts to guess a password or a code, counted by whom they are against and where from."""

from datetime import datetime

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base


class Attempt(Base):
    """How often one key was tried lately. The key is a hash: names that people type are secrets."""

    __tablename__ = "attempts"

    key: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    failures: Mapped[float]
    """As of `tried_at`; they wear off with time (a leaky bucket)."""
    pending: Mapped[int]
    """Attempts that have begun and are not decided yet."""
    tried_at: Mapped[datetime]
    closed_until: Mapped[datetime | None]


Index("ix_attempts_tried_at", Attempt.tried_at)
