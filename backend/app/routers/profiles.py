"""/profiles: users as readers see them, following and blocking; /feed: whom one follows."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query

from app.auth.dependencies import (
    CommunityActor,
    CommunityViewer,
    RequiredArticlesViewer,
    RequiredCommunityViewer,
)
from app.core.errors import FollowRefused, InvalidCursor, UserNotFound
from app.db.dependencies import ReadConnection, WriteSession
from app.routers.paging import LINK_HEADERS, LINKED, Paging
from app.routers.parameters import CursorPage, ProfileName
from app.routers.responses import (
    KNOWS_USER,
    LIMITED,
    NEEDS_USER,
    OPTIONAL_USER,
    READS_VERSION,
    create_router,
    errors,
)
from app.schemas.article import ArticlePart, FeedQuery
from app.schemas.profile import ProfileResponse, ProfileSummary
from app.services import profiles
from app.services.articles import listing
from app.services.profiles import ProfileRow, ProfileSummaryRow

router = create_router(prefix="", tag="profiles")


@router.get(
    "/profiles/{username}",
    response_model=ProfileResponse,
    responses=errors(*KNOWS_USER, UserNotFound, *READS_VERSION),
    openapi_extra=OPTIONAL_USER,
)
async def read_profile(
    connection: ReadConnection, viewer: CommunityViewer, username: ProfileName
) -> ProfileRow:
    """Read a profile, and whether one follows or has blocked its user."""
    return await profiles.get_profile(connection, username=username, viewer=viewer)


@router.put(
    "/profiles/{username}/follow",
    response_model=ProfileResponse,
    responses=errors(*NEEDS_USER, *LIMITED, FollowRefused, UserNotFound),
)
async def follow(session: WriteSession, actor: CommunityActor, username: ProfileName) -> ProfileRow:
    """Follow a user: their articles are in one's feed."""
    return await profiles.follow(session, username=username, actor=actor)


@router.delete(
    "/profiles/{username}/follow",
    response_model=ProfileResponse,
    responses=errors(*NEEDS_USER, *LIMITED, UserNotFound),
)
async def unfollow(
    session: WriteSession, actor: CommunityActor, username: ProfileName
) -> ProfileRow:
    """Follow a user no more."""
    return await profiles.unfollow(session, username=username, actor=actor)


@router.put(
    "/profiles/{username}/block",
    response_model=ProfileResponse,
    responses=errors(*NEEDS_USER, *LIMITED, UserNotFound),
)
async def block(session: WriteSession, actor: CommunityActor, username: ProfileName) -> ProfileRow:
    """Block a user: one sees no comments of theirs, and they cannot follow one."""
    return await profiles.block(session, username=username, actor=actor)


@router.delete(
    "/profiles/{username}/block",
    response_model=ProfileResponse,
    responses=errors(*NEEDS_USER, *LIMITED, UserNotFound),
)
async def unblock(
    session: WriteSession, actor: CommunityActor, username: ProfileName
) -> ProfileRow:
    """Block a user no more; who followed whom before does not come back."""
    return await profiles.unblock(session, username=username, actor=actor)


@router.get(
    "/profiles/{username}/followers",
    response_model=list[ProfileSummary],
    responses={**LINKED, **errors(*KNOWS_USER, UserNotFound, InvalidCursor, *READS_VERSION)},
    openapi_extra=OPTIONAL_USER,
)
async def list_followers(
    connection: ReadConnection,
    viewer: CommunityViewer,
    username: ProfileName,
    query: CursorPage,
    paging: Paging,
) -> Sequence[ProfileSummaryRow]:
    """List who follows a user, the latest first."""
    page = await profiles.list_followers(connection, username=username, query=query)
    return paging.describe(page)


@router.get(
    "/profiles/{username}/following",
    response_model=list[ProfileSummary],
    responses={**LINKED, **errors(*KNOWS_USER, UserNotFound, InvalidCursor, *READS_VERSION)},
    openapi_extra=OPTIONAL_USER,
)
async def list_following(
    connection: ReadConnection,
    viewer: CommunityViewer,
    username: ProfileName,
    query: CursorPage,
    paging: Paging,
) -> Sequence[ProfileSummaryRow]:
    """List whom a user follows, the latest first."""
    page = await profiles.list_following(connection, username=username, query=query)
    return paging.describe(page)


@router.get(
    "/blocks",
    response_model=list[ProfileSummary],
    responses={**LINKED, **errors(*NEEDS_USER, InvalidCursor, *READS_VERSION)},
)
async def list_blocks(
    connection: ReadConnection, user: RequiredCommunityViewer, query: CursorPage, paging: Paging
) -> Sequence[ProfileSummaryRow]:
    """List whom one has blocked, the latest first."""
    return paging.describe(await profiles.list_blocks(connection, user=user, query=query))


@router.get(
    "/feed",
    response_model=list[ArticlePart],
    response_model_exclude_unset=True,
    responses={200: {"headers": LINK_HEADERS}, **errors(*NEEDS_USER, *READS_VERSION)},
)
async def read_feed(
    connection: ReadConnection,
    user: RequiredArticlesViewer,
    query: Annotated[FeedQuery, Query()],
    paging: Paging,
) -> Sequence[dict[str, Any]]:
    """List the articles of those whom one follows, newest first."""
    return paging.describe(await listing.list_feed(connection, query=query, viewer=user))
