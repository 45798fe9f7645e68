"""Profiles: read, follow and block users."""

from datetime import datetime

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
from app.db.selection import Selection
from app.db.session import constraint_errors
from app.models.accounts.user import User
from app.models.community.follow import Block, Follow, UserCounts
from app.schemas.community.profile import ProfileResponse, ProfileSummary
from app.schemas.page import CursorQuery
from app.services import limits
from app.services.pages.keyset import Keyset, keyset, read_page
from app.services.pages.paging import ListPage
from app.services.pages.viewing import VIEWER, follows, row_exists

FOLLOW_REFERENCES = {
    "fk_follows_follower_id": InvalidToken,
    "fk_follows_followed_id": UserNotFound,
}
BLOCK_REFERENCES = {"fk_blocks_blocker_id": InvalidToken, "fk_blocks_blocked_id": UserNotFound}


BY_USERNAME = func.lower(User.username) == func.lower(bindparam("username", type_=String))


def _count(column: InstrumentedAttribute[int]) -> ColumnElement[int]:
    counted = select(column).where(UserCounts.user_id == User.id).scalar_subquery()
    return func.coalesce(counted, 0)


_PROFILE = Selection.of(
    ProfileResponse,
    User,
    followers_count=_count(UserCounts.followers),
    following_count=_count(UserCounts.following),
    following=follows(User.id),
    blocked=row_exists(Block.blocker_id == VIEWER, Block.blocked_id == User.id),
)
_PROFILE_OF_USER = select(*_PROFILE.columns).where(BY_USERNAME)
_ID = select(User.id).where(BY_USERNAME)


async def get_profile(
    reader: Reader | AsyncSession, *, username: str, viewer: Identity | None
) -> ProfileResponse:
    """Return a profile, with the viewer's relation to the user. Raises UserNotFound."""
    parameters = {"username": username, "viewer_id": viewer.id if viewer else None}
    row = (await reader.execute(_PROFILE_OF_USER, parameters)).one_or_none()
    if row is None:
        raise UserNotFound
    return _PROFILE.read(row)


async def follow(session: AsyncSession, *, username: str, actor: Identity) -> ProfileResponse:
    """Follow a user. Idempotent.

    Raises UserNotFound, InvalidInput for the actor themselves, and FollowRefused if either user has
    blocked the other.
    """
    user_id = await _resolve_other_user(session, username, actor, "You cannot follow yourself")
    await _lock_pair(session, actor.id, user_id)
    if await session.scalar(_BLOCKED, {"one": actor.id, "other": user_id}):
        raise FollowRefused
    added = insert(Follow).values(follower_id=actor.id, followed_id=user_id)
    with constraint_errors(FOLLOW_REFERENCES):
        await session.execute(added.on_conflict_do_nothing())
    return await get_profile(session, username=username, viewer=actor)


async def unfollow(session: AsyncSession, *, username: str, actor: Identity) -> ProfileResponse:
    """Unfollow a user. Idempotent. Raises UserNotFound."""
    user_id = await _resolve_other_user(session, username, actor, "You cannot follow yourself")
    await _unfollow(session, actor.id, user_id)
    return await get_profile(session, username=username, viewer=actor)


async def block(session: AsyncSession, *, username: str, actor: Identity) -> ProfileResponse:
    """Block a user: hide their comments, and end following in both directions.

    Raises UserNotFound, InvalidInput for the actor themselves.
    """
    user_id = await _resolve_other_user(session, username, actor, "You cannot block yourself")
    await _lock_pair(session, actor.id, user_id)
    added = insert(Block).values(blocker_id=actor.id, blocked_id=user_id)
    statement = added.on_conflict_do_nothing().returning(Block.blocked_id)
    with constraint_errors(BLOCK_REFERENCES):
        is_new = await session.scalar(statement) is not None
    if is_new:
        await _unfollow(session, actor.id, user_id)
        await _unfollow(session, user_id, actor.id)
    return await get_profile(session, username=username, viewer=actor)


async def unblock(session: AsyncSession, *, username: str, actor: Identity) -> ProfileResponse:
    """Unblock a user. Raises UserNotFound."""
    user_id = await _resolve_other_user(session, username, actor, "You cannot block yourself")
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


async def _resolve_other_user(
    session: AsyncSession, username: str, actor: Identity, self_message: str
) -> int:
    """Return the id of a user other than the actor; count a reaction against the limit.

    Raises UserNotFound, InvalidInput, LimitReached.
    """
    user_id: int | None = await session.scalar(_ID, {"username": username})
    if user_id is None:
        raise UserNotFound
    if user_id == actor.id:
        raise InvalidInput(self_message)
    await limits.spend(session, actor, {LimitKind.REACTIONS: 1})
    return user_id


async def _lock_pair(session: AsyncSession, one: int, other: int) -> None:
    """Serialise follows and blocks between two users, so that a block finds every follow."""
    pair = f"follow {min(one, other)} {max(one, other)}"
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(pair, 0))))


async def _unfollow(session: AsyncSession, follower_id: int, followed_id: int) -> None:
    pair = Follow.follower_id == follower_id, Follow.followed_id == followed_id
    await session.execute(delete(Follow).where(*pair))


def user_list(
    kind: str,
    listed_user: InstrumentedAttribute[int],
    of: InstrumentedAttribute[int],
    since: InstrumentedAttribute[datetime],
) -> Keyset[ProfileSummary]:
    """Return the list of users with a relation to the user or article with the id `of`."""
    selection = Selection.of(ProfileSummary, User, since=since)
    listed = select(*selection.columns).join(User, User.id == listed_user)
    of_id = of == bindparam("of_id", type_=BigInteger)
    return keyset(kind, selection, listed.where(of_id), since, listed_user)


_FOLLOWERS = user_list("followers", Follow.follower_id, Follow.followed_id, Follow.created_at)
_FOLLOWING = user_list("following", Follow.followed_id, Follow.follower_id, Follow.created_at)
_BLOCKS = user_list("blocks", Block.blocked_id, Block.blocker_id, Block.created_at)


async def list_followers(
    reader: Reader, *, username: str, query: CursorQuery
) -> ListPage[ProfileSummary]:
    """Return a user's followers, newest first. Raises UserNotFound, InvalidCursor."""
    return await _list(reader, _FOLLOWERS, await _id_of(reader, username), query)


async def list_following(
    reader: Reader, *, username: str, query: CursorQuery
) -> ListPage[ProfileSummary]:
    """Return the users whom a user follows, newest first. Raises UserNotFound, InvalidCursor."""
    return await _list(reader, _FOLLOWING, await _id_of(reader, username), query)


async def list_blocks(
    reader: Reader, *, user: Identity, query: CursorQuery
) -> ListPage[ProfileSummary]:
    """Return the users whom `user` has blocked, newest first. Raises InvalidCursor."""
    return await _list(reader, _BLOCKS, user.id, query)


async def _id_of(reader: Reader, username: str) -> int:
    user_id: int | None = await reader.scalar(_ID, {"username": username})
    if user_id is None:
        raise UserNotFound
    return user_id


async def _list(
    reader: Reader, listing: Keyset[ProfileSummary], user_id: int, query: CursorQuery
) -> ListPage[ProfileSummary]:
    parameters = {"of_id": user_id}
    return await read_page(reader, listing, query=query, parameters=parameters, of=user_id)
