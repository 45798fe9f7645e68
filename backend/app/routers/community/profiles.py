"""Routes for profiles, follows, blocks and the feed of followed authors."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query, Request, Response

from app.auth.dependencies import (
    CommunityActor,
    CommunityViewer,
    RequiredArticlesViewer,
    RequiredCommunityViewer,
)
from app.core.errors import FollowRefused, LimitReached, UserNotFound
from app.db.dependencies import ReadConnection, WriteSession
from app.http.json import to_json
from app.http.negotiation import negotiated, prefers_markdown
from app.routers.paging import Paging
from app.routers.parameters import CursorPage, ProfileName
from app.routers.responses import create_router, errors
from app.schemas.articles.article import ArticleList, FeedQuery
from app.schemas.community.profile import ProfileResponse, ProfileSummary
from app.services.articles import documents, listing
from app.services.community import profiles

router = create_router(prefix="", tag="profiles")


@router.get("/profiles/{username}", responses=errors(UserNotFound))
async def read_profile(
    reader: ReadConnection, viewer: CommunityViewer, username: ProfileName
) -> ProfileResponse:
    """Read a profile, and whether the user follows or has blocked it."""
    return await profiles.get_profile(reader, username=username, viewer=viewer)


@router.put(
    "/profiles/{username}/follow",
    responses=errors(LimitReached, FollowRefused, UserNotFound),
)
async def follow(
    session: WriteSession, actor: CommunityActor, username: ProfileName
) -> ProfileResponse:
    """Follow a user: their articles appear in the feed."""
    return await profiles.follow(session, username=username, actor=actor)


@router.delete(
    "/profiles/{username}/follow",
    responses=errors(LimitReached, UserNotFound),
)
async def unfollow(
    session: WriteSession, actor: CommunityActor, username: ProfileName
) -> ProfileResponse:
    """Unfollow a user."""
    return await profiles.unfollow(session, username=username, actor=actor)


@router.put(
    "/profiles/{username}/block",
    responses=errors(LimitReached, UserNotFound),
)
async def block(
    session: WriteSession, actor: CommunityActor, username: ProfileName
) -> ProfileResponse:
    """Block a user: their comments are hidden, and they cannot follow back."""
    return await profiles.block(session, username=username, actor=actor)


@router.delete(
    "/profiles/{username}/block",
    responses=errors(LimitReached, UserNotFound),
)
async def unblock(
    session: WriteSession, actor: CommunityActor, username: ProfileName
) -> ProfileResponse:
    """Unblock a user; earlier follows are not restored."""
    return await profiles.unblock(session, username=username, actor=actor)


@router.get(
    "/profiles/{username}/followers",
    response_model=list[ProfileSummary],
    responses=errors(UserNotFound),
)
async def list_followers(
    reader: ReadConnection,
    viewer: CommunityViewer,
    username: ProfileName,
    query: CursorPage,
    paging: Paging,
) -> Sequence[ProfileSummary]:
    """List a user's followers, newest first."""
    page = await profiles.list_followers(reader, username=username, query=query)
    return paging.describe(page)


@router.get(
    "/profiles/{username}/following",
    response_model=list[ProfileSummary],
    responses=errors(UserNotFound),
)
async def list_following(
    reader: ReadConnection,
    viewer: CommunityViewer,
    username: ProfileName,
    query: CursorPage,
    paging: Paging,
) -> Sequence[ProfileSummary]:
    """List the users whom a user follows, newest first."""
    page = await profiles.list_following(reader, username=username, query=query)
    return paging.describe(page)


@router.get("/blocks", response_model=list[ProfileSummary])
async def list_blocks(
    reader: ReadConnection, user: RequiredCommunityViewer, query: CursorPage, paging: Paging
) -> Sequence[ProfileSummary]:
    """List the users whom the user has blocked, newest first."""
    return paging.describe(await profiles.list_blocks(reader, user=user, query=query))


@router.get("/feed", response_model=ArticleList)
@negotiated
async def read_feed(
    request: Request,
    reader: ReadConnection,
    user: RequiredArticlesViewer,
    query: Annotated[FeedQuery, Query()],
    paging: Paging,
) -> bytes | Response:
    """List articles by followed authors, newest first.

    With `Accept: text/markdown`, the response is a Markdown document with links.
    """
    if prefers_markdown(request):
        listed = await listing.list_feed(
            reader, query=query, viewer=user, fields=documents.LISTED_FIELDS
        )
        return paging.as_markdown(listed)
    listed = await listing.list_feed(reader, query=query, viewer=user)
    return to_json(paging.describe(listed))
