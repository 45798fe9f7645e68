"""Postal addresses of a user."""

from typing import TYPE_CHECKING

from sqlalchemy import CheckConstraint, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.base import Base, PrimaryKey, TimestampMixin

if TYPE_CHECKING:
    from app.models.accounts.user import User


class Address(TimestampMixin, Base):
    __tablename__ = "addresses"
    __table_args__ = (CheckConstraint("country ~ '^[A-Z]{2}$'", name="country_alpha_2"),)

    id: Mapped[PrimaryKey]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    label: Mapped[str] = mapped_column(String(50))
    line1: Mapped[str] = mapped_column(String(200))
    line2: Mapped[str | None] = mapped_column(String(200))
    city: Mapped[str] = mapped_column(String(100))
    region: Mapped[str | None] = mapped_column(String(100))
    postal_code: Mapped[str | None] = mapped_column(String(20))
    country: Mapped[str] = mapped_column(String(2))

    user: Mapped["User"] = relationship(back_populates="addresses", lazy="raise")
