"""Favorites: whose, and how many."""

from app.schemas.types import Output


class FavoriteResponse(Output):
    """How an article stands with its readers; `favorited` is about whoever asks."""

    article_id: int
    favorited: bool
    favorites_count: int
    comments_count: int
