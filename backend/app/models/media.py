"""Media: images that articles reference."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey, current_time

FOLDER_PATTERN = r"[0-9a-f]{32}"
"""A regular expression for the names of media folders."""


class Media(Base):
    """A re-encoded image with its variants."""

    __tablename__ = "media"

    id: Mapped[PrimaryKey]
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    """The user whose quota it counts against; None once the account is deleted."""
    folder: Mapped[str] = mapped_column(String(100), unique=True)
    """The folder of its files in the storage."""
    content_type: Mapped[str] = mapped_column(String(50))
    bytes: Mapped[int] = mapped_column(BigInteger)
    """The total size of its files."""
    width: Mapped[int]
    height: Mapped[int]
    widths: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    """The widths of the variants."""
    alt: Mapped[str] = mapped_column(String(500), server_default="")
    color: Mapped[str] = mapped_column(String(7))
    """The dominant colour, as `#rrggbb`."""
    placeholder: Mapped[str] = mapped_column(Text)
    """A tiny version as a `data:` URL, to show while the image loads."""
    created_at: Mapped[datetime] = mapped_column(default=current_time)


Index("ix_media_owner", Media.owner_id, Media.id.desc())


class ArticleMedia(Base):
    """A reference from an article to an image, in its content or as its cover."""

    __tablename__ = "article_media"

    article_id: Mapped[int] = mapped_column(
        ForeignKey("articles.id", ondelete="CASCADE"), primary_key=True
    )
    media_id: Mapped[int] = mapped_column(
        ForeignKey("media.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class DiscardedFolder(Base):
    """A storage folder to be deleted. A trigger adds it when a media row is deleted."""

    __tablename__ = "discarded_folders"

    folder: Mapped[str] = mapped_column(String(100), primary_key=True)
    discarded_at: Mapped[datetime]
    """When the next step is due: withdrawing the files, then deleting them."""
    owner_id: Mapped[int | None] = mapped_column(BigInteger)
    """The last owner of the image. No foreign key: the row may survive the user."""
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    """The size of the files; None for an upload that was not completed."""
    withdrawn_at: Mapped[datetime | None]
    """Since when the files are kept, but not served."""
