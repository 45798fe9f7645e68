"""Media: pictures that articles show."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey, current_time


class Media(Base):
    """A picture, re-encoded, with smaller copies of it."""

    __tablename__ = "media"

    id: Mapped[PrimaryKey]
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    """Whose quota it counts against; None when they have left."""
    folder: Mapped[str] = mapped_column(String(100), unique=True)
    """Where its files are in the store."""
    content_type: Mapped[str] = mapped_column(String(50))
    bytes: Mapped[int] = mapped_column(BigInteger)
    """Of all its files together."""
    width: Mapped[int]
    height: Mapped[int]
    widths: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    """Of the smaller copies."""
    alt: Mapped[str] = mapped_column(String(500), server_default="")
    color: Mapped[str] = mapped_column(String(7))
    """The dominant colour, as `#rrggbb`."""
    placeholder: Mapped[str] = mapped_column(Text)
    """A picture of a few pixels as a `data:` URL, to show while the real one loads."""
    created_at: Mapped[datetime] = mapped_column(default=current_time)


Index("ix_media_owner", Media.owner_id, Media.id.desc())


class ArticleMedia(Base):
    """That an article shows a picture, in its content or as its cover."""

    __tablename__ = "article_media"

    article_id: Mapped[int] = mapped_column(
        ForeignKey("articles.id", ondelete="CASCADE"), primary_key=True
    )
    media_id: Mapped[int] = mapped_column(
        ForeignKey("media.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class DiscardedFolder(Base):
    """A folder of the store whose files are to go: a trigger notes it when its row goes."""

    __tablename__ = "discarded_folders"

    folder: Mapped[str] = mapped_column(String(100), primary_key=True)
    discarded_at: Mapped[datetime]
