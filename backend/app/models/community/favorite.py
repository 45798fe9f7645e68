"""Favorites, and counts of favorites and comments per article.

The counts have their own table, because an article's row is wide and locked by its editors.
Database triggers (migration 0005) update them.
"""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, current_time


class Favorite(Base):
    """A user's favorite article."""

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
    """Counts of favorites and visible comments; articles without any may have no row."""

    __tablename__ = "article_counts"

    article_id: Mapped[int] = mapped_column(
        ForeignKey("articles.id", ondelete="CASCADE"), primary_key=True
    )
    favorites: Mapped[int] = mapped_column(server_default=text("0"))
    comments: Mapped[int] = mapped_column(server_default=text("0"))
