"""Limits per user or client address: their use, and overrides by administrators."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey


class LimitUse(Base):
    """The use of one kind of limit by a user or an address, as of `counted_at`.

    A rate is a leaky bucket: within one window, its level falls by the whole limit. A total stays
    until it is measured again.
    """

    __tablename__ = "limit_uses"

    subject: Mapped[str] = mapped_column(String(80), primary_key=True)
    """`user 42`, or `address` and a keyed hash. No foreign key: rows are deleted after a day."""
    kind: Mapped[str] = mapped_column(String(40), primary_key=True)
    level: Mapped[float]
    amount: Mapped[float]
    """The limit that applied to the last count."""
    seconds: Mapped[float | None]
    """The limit's window; None for a total."""
    counted_at: Mapped[datetime]


class LimitOverride(Base):
    """The amount of one kind that an administrator has set for a user."""

    __tablename__ = "limit_overrides"
    __table_args__ = (CheckConstraint("amount >= 0", name="amount_not_negative"),)

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    kind: Mapped[str] = mapped_column(String(40), primary_key=True)
    amount: Mapped[int] = mapped_column(BigInteger)


class UploadReservation(Base):
    """Space reserved for an upload until it completes, fails or expires."""

    __tablename__ = "upload_reservations"

    id: Mapped[PrimaryKey]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    bytes: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime]


Index("ix_upload_reservations_user_id", UploadReservation.user_id)
