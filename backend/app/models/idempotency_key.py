"""Idempotency keys: what a client was answered, to be answered again."""

from datetime import datetime

from sqlalchemy import SmallInteger, Text
from sqlalchemy.dialects.postgresql import BYTEA, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base


class IdempotencyKey(Base):
    """The answer to a request that its sender may repeat, written together with its effect."""

    __tablename__ = "idempotency_keys"

    key: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    """A hash of who asks and the key that they chose; of nobody's, with what they sent."""
    fingerprint: Mapped[bytes] = mapped_column(BYTEA)
    """An HMAC of the request, which may hold a password: no other may come under the same key."""
    status: Mapped[int] = mapped_column(SmallInteger)
    headers: Mapped[dict[str, str]] = mapped_column(JSONB)
    sealed_body: Mapped[str] = mapped_column(Text)
    """Encrypted: it may hold a secret that is shown only once."""
    created_at: Mapped[datetime] = mapped_column(index=True)
