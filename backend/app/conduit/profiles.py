"""Profiles: read, follow, unfollow."""

from typing import Any

from app.conduit import shapes
from app.conduit.dependencies import CommunityActor, CommunityViewer
from app.conduit.routing import OPTIONAL_AUTH, TOKEN_ERRORS, create_router, errors
from app.conduit.schemas import Name, ProfileResponse
from app.db.dependencies import ReadConnection, WriteSession
from app.services.community import profiles

router = create_router("Profile")


@router.get(
    "/profiles/{username}",
    response_model=ProfileResponse,
    openapi_extra=OPTIONAL_AUTH,
    responses=errors(403, 404),
)
async def read_profile(
    connection: ReadConnection, viewer: CommunityViewer, username: Name
) -> dict[str, Any]:
    """Read a profile."""
    row = await profiles.get_profile(connection, username=username, viewer=viewer)
    return shapes.profile(row)


@router.post(
    "/profiles/{username}/follow",
    response_model=ProfileResponse,
    responses=errors(*TOKEN_ERRORS, 404),
)
async def follow(session: WriteSession, actor: CommunityActor, username: Name) -> dict[str, Any]:
    """Follow a user."""
    return shapes.profile(await profiles.follow(session, username=username, actor=actor))


@router.delete(
    "/profiles/{username}/follow",
    response_model=ProfileResponse,
    responses=errors(*TOKEN_ERRORS, 404),
)
async def unfollow(session: WriteSession, actor: CommunityActor, username: Name) -> dict[str, Any]:
    """Unfollow a user."""
    return shapes.profile(await profiles.unfollow(session, username=username, actor=actor))
