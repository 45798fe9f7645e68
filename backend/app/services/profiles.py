"""Profiles: reading them, following and blocking."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    String,
    and_,
    bindparam,
    delete,
    func,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.auth.identity import Identity
from app.core.errors import FollowRefused, InvalidInput, InvalidToken, UserNotFound
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.session import constraint_errors
from app.models.follow import Block, Follow, UserCounts
from app.models.user import User
from app.schemas.page import CursorQuery
from app.services import limits
from app.services.keyset import Keyset, keyset, read_page
from app.services.paging import Listed
from app.services.viewing import VIEWER, follows, whether

FOLLOW_REFERENCES = {
    "fk_follows_follower_id": InvalidToken,
    "fk_follows_followed_id": UserNotFound,
}
BLOCK_REFERENCES = {"fk_blocks_blocker_id": InvalidToken, "fk_blocks_blocked_id": UserNotFound}


class ProfileRow(NamedTuple):
    """A profile as a read selects it; the fields of ProfileResponse."""

    id: int
    username: str
    name: str
    bio: str
    image_url: str | None
    created_at: datetime
    followers_count: int
    following_count: int
    following: bool
    blocked: bool


class ProfileSummaryRow(NamedTuple):
    """A user in a list; the fields of ProfileSummary."""

    username: str
    name: str
    bio: str
    image_url: str | None
    since: datetime


BY_USERNAME = func.lower(User.username) == func.lower(bindparam("username", type_=String))


def _count(column: InstrumentedAttribute[int]) -> ColumnElement[int]:
    counted = select(column).where(UserCounts.user_id == User.id).scalar_subquery()
    return func.coalesce(counted, 0)


_PROFILE = select(
    User.id,
    User.username,
    User.name,
    User.bio,
    User.image_url,
    User.created_at,
    _count(UserCounts.followers).label("followers_count"),
    _count(UserCounts.following).label("following_count"),
    follows(User.id).label("following"),
    whether(Block.blocker_id == VIEWER, Block.blocked_id == User.id).label("blocked"),
)
_ONE = _PROFILE.where(BY_USERNAME)
_ID = select(User.id).where(BY_USERNAME)


async def get_profile(
    connection: Reader | AsyncSession, *, username: str, viewer: Identity | None
) -> ProfileRow:
    """A user's profile, with what `viewer` has to do with them. Raises UserNotFound."""
    parameters = {"username": username, "viewer_id": viewer.id if viewer else None}
    row = (await connection.execute(_ONE, parameters)).one_or_none()
    if row is None:
        raise UserNotFound
    return ProfileRow._make(row)


async def follow(session: AsyncSession, *, username: str, actor: Identity) -> ProfileRow:
    """Have the actor follow a user; again changes nothing.

    Raises UserNotFound, InvalidInput for oneself, FollowRefused where one has blocked the other.
    """
    user_id = await _somebody_else(session, username, actor, "You cannot follow yourself")
    await _lock_pair(session, actor.id, user_id)
    if await session.scalar(_BLOCKED, {"one": actor.id, "other": user_id}):
        raise FollowRefused
    added = insert(Follow).values(follower_id=actor.id, followed_id=user_id)
    with constraint_errors(FOLLOW_REFERENCES):
        await session.execute(added.on_conflict_do_nothing())
    return await get_profile(session, username=username, viewer=actor)


async def unfollow(session: AsyncSession, *, username: str, actor: Identity) -> ProfileRow:
    """Have the actor follow a user no more; again changes nothing. Raises UserNotFound."""
    user_id = await _somebody_else(session, username, actor, "You cannot follow yourself")
    await _unfollow(session, actor.id, user_id)
    return await get_profile(session, username=username, viewer=actor)


async def block(session: AsyncSession, *, username: str, actor: Identity) -> ProfileRow:
    """Have the actor see no comments of a user; neither of them follows the other any more.

    Raises UserNotFound, InvalidInput for oneself.
    """
    user_id = await _somebody_else(session, username, actor, "You cannot block yourself")
    await _lock_pair(session, actor.id, user_id)
    added = insert(Block).values(blocker_id=actor.id, blocked_id=user_id)
    unless_there = added.on_conflict_do_nothing().returning(Block.blocked_id)
    with constraint_errors(BLOCK_REFERENCES):
        is_new = await session.scalar(unless_there) is not None
    if is_new:
        await _unfollow(session, actor.id, user_id)
        await _unfollow(session, user_id, actor.id)
    return await get_profile(session, username=username, viewer=actor)


async def unblock(session: AsyncSession, *, username: str, actor: Identity) -> ProfileRow:
    """Have the actor see a user's comments again. Raises UserNotFound."""
    user_id = await _somebody_else(session, username, actor, "You cannot block yourself")
    pair = Block.blocker_id == actor.id, Block.blocked_id == user_id
    await session.execute(delete(Block).where(*pair))
    return await get_profile(session, username=username, viewer=actor)


_BLOCKED = select(
    select(Block.blocker_id)
    .where(
        or_(
            and_(Block.blocker_id == bindparam("one"), Block.blocked_id == bindparam("other")),
            and_(Block.blocker_id == bindparam("other"), Block.blocked_id == bindparam("one")),
        )
    )
    .exists()
)


async def _somebody_else(
    session: AsyncSession, username: str, actor: Identity, refusal: str
) -> int:
    """The id of a user who is not the actor, who is counted to react once more.

    Raises UserNotFound, InvalidInput, LimitReached.
    """
    user_id: int | None = await session.scalar(_ID, {"username": username})
    if user_id is None:
        raise UserNotFound
    if user_id == actor.id:
        raise InvalidInput(refusal)
    await limits.spend(session, actor, {LimitKind.REACTIONS: 1})
    return user_id


async def _lock_pair(session: AsyncSession, one: int, other: int) -> None:
    """Wait for whoever else follows or blocks between these two: a block must find each follow."""
    pair = f"follow {min(one, other)} {max(one, other)}"
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(pair, 0))))


async def _unfollow(session: AsyncSession, follower_id: int, followed_id: int) -> None:
    pair = Follow.follower_id == follower_id, Follow.followed_id == followed_id
    await session.execute(delete(Follow).where(*pair))


PERSON = (User.username, User.name, User.bio, User.image_url)


def _people(
    kind: str,
    person: InstrumentedAttribute[int],
    of: InstrumentedAttribute[int],
    since: InstrumentedAttribute[datetime],
) -> Keyset:
    listed = select(*PERSON, since.label("since")).join(User, User.id == person)
    return keyset(kind, listed.where(of == bindparam("of_id", type_=BigInteger)), since, person)


_FOLLOWERS = _people("followers", Follow.follower_id, Follow.followed_id, Follow.created_at)
_FOLLOWING = _people("following", Follow.followed_id, Follow.follower_id, Follow.created_at)
_BLOCKS = _people("blocks", Block.blocked_id, Block.blocker_id, Block.created_at)


async def list_followers(
    connection: Reader, *, username: str, query: CursorQuery
) -> Listed[ProfileSummaryRow]:
    """Who follows a user, the latest first. Raises UserNotFound, InvalidCursor."""
    return await _list(connection, _FOLLOWERS, await _id_of(connection, username), query)


async def list_following(
    connection: Reader, *, username: str, query: CursorQuery
) -> Listed[ProfileSummaryRow]:
    """Whom a user follows, the latest first. Raises UserNotFound, InvalidCursor."""
    return await _list(connection, _FOLLOWING, await _id_of(connection, username), query)


async def list_blocks(
    connection: Reader, *, user: Identity, query: CursorQuery
) -> Listed[ProfileSummaryRow]:
    """Whom one has blocked, the latest first. Raises InvalidCursor."""
    return await _list(connection, _BLOCKS, user.id, query)


async def _id_of(connection: Reader, username: str) -> int:
    user_id: int | None = await connection.scalar(_ID, {"username": username})
    if user_id is None:
        raise UserNotFound
    return user_id


async def _list(
    connection: Reader, listing: Keyset, user_id: int, query: CursorQuery
) -> Listed[ProfileSummaryRow]:
    parameters = {"of_id": user_id}
    return await read_page(
        connection, listing, query=query, parameters=parameters, make=summary, of=user_id
    )


def summary(row: Sequence[Any]) -> ProfileSummaryRow:
    """A row of PERSON and a moment, as it is read by attribute."""
    return ProfileSummaryRow._make(row)
