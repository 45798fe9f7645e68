"""Schemas for favorites."""

from app.schemas.types import Output


class FavoriteResponse(Output):
    """The counts of an article, and whether it is the user's favorite."""

    article_id: int
    favorited: bool
    favorites_count: int
    comments_count: int
