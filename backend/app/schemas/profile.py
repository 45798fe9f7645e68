"""Profiles: users as readers see them, and who follows whom."""

from datetime import datetime

from app.schemas.types import Output


class ProfileSummary(Output):
    """A user in a list of who follows, or is followed, or blocked, or has a favorite."""

    username: str
    name: str
    bio: str
    image_url: str | None
    since: datetime
    """Since when they follow, are followed, are blocked, or have the favorite."""


class ProfileResponse(Output):
    """A user's profile; `following` and `blocked` say what the reader does."""

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
