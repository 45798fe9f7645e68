"""The declarative base of every model: constraint names, big integer ids, timestamps."""

from datetime import datetime
from typing import Annotated, ClassVar

from sqlalchemy import BigInteger, DateTime, Identity, MetaData, func
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.core import clock

PrimaryKey = Annotated[int, mapped_column(BigInteger, Identity(), primary_key=True)]


def current_time() -> datetime:
    """The application's time, for column defaults; `clock.now` is looked up at each call."""
    return clock.now()


class Base(DeclarativeBase):
    """Registry of all tables. Constraints have names, so that services can tell them apart."""

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
    """A new row's `updated_at`: the moment at which it was created, not one a microsecond later."""
    parameters = context.get_current_parameters()  # type: ignore[no-untyped-call]  # SQLAlchemy 2.1
    created: datetime = parameters["created_at"]
    return created


class TimestampMixin:
    """When a row was made and last changed, by the application's clock."""

    created_at: Mapped[datetime] = mapped_column(default=current_time, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(
        default=_created_at, onupdate=current_time, server_default=func.now()
    )
