"""Schemas for profiles."""

from datetime import datetime

from app.schemas.types import Output


class ProfileSummary(Output):
    """A user in a list of followers, followed or blocked users, or users with a favorite."""

    username: str
    name: str
    bio: str
    image_url: str | None
    since: datetime
    """When the relation began."""


class ProfileResponse(Output):
    """A user's profile, and whether the viewer follows or has blocked them."""

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
