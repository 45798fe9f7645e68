"""Favorites, and how many of them and of comments an article has.

The counts have a table of their own: an article's row is wide, and locked by whoever edits it.
Triggers of the database (migration 0005) keep them.
"""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, current_time


class Favorite(Base):
    """That an article is a favorite of a user's."""

    __tablename__ = "favorites"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    article_id: Mapped[int] = mapped_column(
        ForeignKey("articles.id", ondelete="CASCADE"), primary_key=True
    )
    created_at: Mapped[datetime] = mapped_column(default=current_time)


Index("ix_favorites_article", Favorite.article_id, Favorite.created_at, Favorite.user_id)


class ArticleCounts(Base):
    """What an article has of favorites and of comments that all see; no row where it never had."""

    __tablename__ = "article_counts"

    article_id: Mapped[int] = mapped_column(
        ForeignKey("articles.id", ondelete="CASCADE"), primary_key=True
    )
    favorites: Mapped[int] = mapped_column(server_default=text("0"))
    comments: Mapped[int] = mapped_column(server_default=text("0"))
