"""Account tokens, which links in mails contain."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Enum, ForeignKey, String
from sqlalchemy.dialects.postgresql import BYTEA, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.enums import Purpose
from app.db.base import Base, PrimaryKey, current_time


class AccountToken(Base):
    """A token for one purpose, sent to `email`; deleted when it is used."""

    __tablename__ = "account_tokens"
    __table_args__ = (
        CheckConstraint(
            "(purpose = 'register') = (user_id IS NULL AND registration IS NOT NULL)",
            name="user_or_registration",
        ),
    )

    id: Mapped[PrimaryKey]
    purpose: Mapped[Purpose] = mapped_column(
        Enum(
            Purpose,
            native_enum=False,
            length=20,
            values_callable=lambda purposes: [purpose.value for purpose in purposes],
        )
    )
    user_id: Mapped[int | None] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    email: Mapped[str] = mapped_column(String(254))
    registration: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    token_hash: Mapped[bytes] = mapped_column(BYTEA, unique=True)
    created_at: Mapped[datetime] = mapped_column(default=current_time)
    expires_at: Mapped[datetime]
