"""Idempotency keys with stored responses."""

from datetime import datetime

from sqlalchemy import SmallInteger, Text
from sqlalchemy.dialects.postgresql import BYTEA, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base


class IdempotencyKey(Base):
    """The response to a request, written in the transaction of the request."""

    __tablename__ = "idempotency_keys"

    key: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    """A hash of the user and the key; for anonymous clients, of the key and the request."""
    fingerprint: Mapped[bytes] = mapped_column(BYTEA)
    """An HMAC of the request, which detects a different request with the same key."""
    status: Mapped[int] = mapped_column(SmallInteger)
    headers: Mapped[dict[str, str]] = mapped_column(JSONB)
    sealed_body: Mapped[str] = mapped_column(Text)
    """Encrypted, because it may contain a secret that is shown only once."""
    created_at: Mapped[datetime] = mapped_column(index=True)
