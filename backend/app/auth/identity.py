"""Who a request comes from: the user behind a valid token, read in one indexed query."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core.roles import Role
from app.models.user import User


class Identity(NamedTuple):
    """The user who is asking, as of this request."""

    id: int
    username: str
    name: str
    email: str
    role: Role
    is_active: bool
    created_at: datetime
    updated_at: datetime


_IDENTITY = select(*(getattr(User, field) for field in Identity._fields)).where(
    User.id == bindparam("user_id"), User.is_active
)


async def find_identity(
    connection: AsyncConnection | AsyncSession, *, user_id: int
) -> Identity | None:
    """The identity of an active user; None where the user was deleted or disabled."""
    row = (await connection.execute(_IDENTITY, {"user_id": user_id})).one_or_none()
    return None if row is None else Identity(*row)
