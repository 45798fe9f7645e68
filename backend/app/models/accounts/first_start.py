"""The first start: before there is an administrator."""

from uuid import UUID

from sqlalchemy import CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base


class FirstStart(Base):
    """What the code for the first administrator is computed from: a single row, until it is used.

    The code itself is not stored.
    """

    __tablename__ = "first_start"
    __table_args__ = (CheckConstraint("id = 1", name="single_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    nonce: Mapped[UUID]
