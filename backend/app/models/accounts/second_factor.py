"""Second factors: secrets for time-based codes (RFC 6238), and recovery codes."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, current_time


class SecondFactor(Base):
    """A user's authenticator; required at login when `confirmed_at` is set."""

    __tablename__ = "second_factors"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    sealed_secret: Mapped[str] = mapped_column(String(300))
    """Encrypted with a key derived from SECRET_KEY."""
    created_at: Mapped[datetime] = mapped_column(default=current_time)
    confirmed_at: Mapped[datetime | None]
    last_step: Mapped[int | None] = mapped_column(BigInteger)
    """The time step of the last accepted code; this step and earlier ones are refused."""


class RecoveryCode(Base):
    """A code that replaces the authenticator once; deleted when it is used."""

    __tablename__ = "recovery_codes"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    code_hash: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
