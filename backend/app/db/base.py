"""The declarative base of all models: constraint names, primary keys and timestamps."""

from datetime import datetime
from typing import Annotated, ClassVar

from sqlalchemy import BigInteger, DateTime, Identity, MetaData, func
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.core import clock

PrimaryKey = Annotated[int, mapped_column(BigInteger, Identity(), primary_key=True)]


def current_time() -> datetime:
    """Return the current time, for column defaults; tests may replace `clock.now`."""
    return clock.now()


class Base(DeclarativeBase):
    """The declarative base. Constraints have names, so that services can identify them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {datetime: DateTime(timezone=True)}


def _created_at(context: DefaultExecutionContext) -> datetime:
    """Return the `created_at` of a new row, so that `updated_at` is equal to it."""
    parameters = context.get_current_parameters()  # type: ignore[no-untyped-call]  # SQLAlchemy 2.1
    created: datetime = parameters["created_at"]
    return created


class TimestampMixin:
    """Creation and modification times, from the application's clock."""

    created_at: Mapped[datetime] = mapped_column(default=current_time, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(
        default=_created_at, onupdate=current_time, server_default=func.now()
    )
