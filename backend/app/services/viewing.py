"""What a read says of its reader: conditions on `viewer_id`, which is NULL for anybody."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, bindparam, false, func, select, true

from app.models.follow import Follow

VIEWER = bindparam("viewer_id", type_=BigInteger)


def whether(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether there is such a row. Not EXISTS: PostgreSQL may read all of the viewer's for it."""
    return func.coalesce(select(true()).where(*conditions).scalar_subquery(), false())


def follows(user_id: Any) -> ColumnElement[bool]:
    """Whether the viewer follows the user whose id is in this column."""
    return whether(Follow.follower_id == VIEWER, Follow.followed_id == user_id)
