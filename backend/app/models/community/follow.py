"""Follows and blocks between users.

Database triggers (migration 0005) update the counts, so that concurrent writes are counted
correctly.
"""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, current_time


class Follow(Base):
    """A user follows another one."""

    __tablename__ = "follows"
    __table_args__ = (CheckConstraint("follower_id <> followed_id", name="not_oneself"),)

    follower_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    followed_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    created_at: Mapped[datetime] = mapped_column(default=current_time)


Index("ix_follows_followers", Follow.followed_id, Follow.created_at, Follow.follower_id)
Index("ix_follows_following", Follow.follower_id, Follow.created_at, Follow.followed_id)


class UserCounts(Base):
    """Counts of followers and followed users; users without any may have no row."""

    __tablename__ = "user_counts"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    followers: Mapped[int] = mapped_column(server_default=text("0"))
    following: Mapped[int] = mapped_column(server_default=text("0"))


class Block(Base):
    """A user hides another's comments and prevents them from following."""

    __tablename__ = "blocks"
    __table_args__ = (CheckConstraint("blocker_id <> blocked_id", name="not_oneself"),)

    blocker_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    blocked_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    created_at: Mapped[datetime] = mapped_column(default=current_time)
