"""Import records: which imported records became which articles, and their old addresses."""

from datetime import datetime

from sqlalchemy import ForeignKey, Text, false, func
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base


class ImportRecord(Base):
    """An imported record. The next import of the same record finds its article here."""

    __tablename__ = "import_records"

    key: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    """SHA-256 of the source and of the record's id in it: `services.bulk.records.record_key`."""
    digest: Mapped[bytes] = mapped_column(BYTEA)
    """SHA-256 of the record itself."""
    article_id: Mapped[int] = mapped_column(
        ForeignKey("articles.id", ondelete="CASCADE"), index=True
    )
    source: Mapped[str | None] = mapped_column(Text)
    """The name of the source; None for imports of releases that did not store it."""
    source_id: Mapped[str | None] = mapped_column(Text)
    """The record's id in its source."""


class Redirect(Base):
    """A former address of an imported article, in the system that it comes from."""

    __tablename__ = "redirects"

    path: Mapped[str] = mapped_column(Text, primary_key=True)
    """The path, percent-encoded, with the query if it has one: `services.bulk.paths`."""
    source: Mapped[str] = mapped_column(Text, primary_key=True)
    article_id: Mapped[int] = mapped_column(
        ForeignKey("articles.id", ondelete="CASCADE"), index=True
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """Of the same path in two sources, the older redirect is used."""
    is_served: Mapped[bool] = mapped_column(server_default=false())
    """Whether it redirects readers: the operator or an editor imported it, not another user."""


class ImportedAddress(Base):
    """An address of the old site, in the text of an imported article or as its cover image.

    It is deleted once the text has a new address instead. What authors write later has no row.
    """

    __tablename__ = "imported_addresses"

    article_id: Mapped[int] = mapped_column(
        ForeignKey("articles.id", ondelete="CASCADE"), primary_key=True
    )
    address: Mapped[str] = mapped_column(Text, primary_key=True)
    """As in the article, absolute if the address of the old site is known."""
    source_address: Mapped[str] = mapped_column(Text)
    """As in the source, where it may be relative to the file of the text."""
    is_image: Mapped[bool]
    """Whether it is that of an image. Otherwise it is that of a link."""


class MediaCopy(Base):
    """An image of an old site that was copied to the media of this one."""

    __tablename__ = "media_copies"

    key: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    """SHA-256 of the source and of the image's address, or of its content."""
    media_id: Mapped[int] = mapped_column(ForeignKey("media.id", ondelete="CASCADE"), index=True)
