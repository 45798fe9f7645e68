"""Conditions on the viewer's id, which is NULL for anonymous requests."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, bindparam, false, func, select, true

from app.models.community.follow import Follow

VIEWER = bindparam("viewer_id", type_=BigInteger)


def row_exists(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether a row exists.

    EXISTS is slower here: PostgreSQL may turn it into a scan of all rows of the viewer.
    """
    return func.coalesce(select(true()).where(*conditions).scalar_subquery(), false())


def follows(user_id: Any) -> ColumnElement[bool]:
    """Whether the viewer follows the user with this id."""
    return row_exists(Follow.follower_id == VIEWER, Follow.followed_id == user_id)
