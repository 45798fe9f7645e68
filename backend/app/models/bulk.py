"""Imports: their reports, which records became which articles, and their old addresses."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    Text,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import BYTEA, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.enums import ImportState
from app.db.base import Base, PrimaryKey


class Import(Base):
    """An import over HTTP, with its progress and its report."""

    __tablename__ = "imports"
    __table_args__ = (
        CheckConstraint(
            "state IN ('receiving', 'running', 'completed', 'stopped', 'failed', 'cancelled',"
            " 'interrupted')",
            name="state_known",
        ),
    )

    id: Mapped[PrimaryKey]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    state: Mapped[ImportState] = mapped_column(String(20))
    format: Mapped[str] = mapped_column(String(20))
    source: Mapped[str | None] = mapped_column(Text)
    """The name of the source, once it is known."""
    dry_run: Mapped[bool]
    bytes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """The size of the body."""
    reserved_bytes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """The disk space of its files until it has finished: `services.space`."""
    progress: Mapped[float] = mapped_column(server_default=text("0"))
    """The part of the source that was read, from 0 to 1."""
    summary: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    """The counts and first messages of the report."""
    message: Mapped[str | None] = mapped_column(Text)
    """Why the import ended early."""
    report: Mapped[str | None] = mapped_column(Text, deferred=True)
    """The report on every record, as JSON."""
    created_at: Mapped[datetime]
    active_at: Mapped[datetime]
    """When the process that imports last updated the row."""
    finished_at: Mapped[datetime | None]


_UNFINISHED = text("finished_at IS NULL")
Index("uq_imports_unfinished", Import.user_id, unique=True, postgresql_where=_UNFINISHED)
Index("ix_imports_user_id_id", Import.user_id, Import.id.desc())
Index(
    "ix_imports_finished_at",
    Import.finished_at,
    postgresql_where=text("finished_at IS NOT NULL"),
)


class Installation(Base):
    """What all replicas of this server share: a single row."""

    __tablename__ = "installation"
    __table_args__ = (CheckConstraint("id = 1", name="single_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    uuid: Mapped[UUID]
    """The identity of this server in its exports."""
    maintenance: Mapped[str | None] = mapped_column(String(500))
    """The sentence that refused writes get; None unless the server is in maintenance."""
    maintenance_since: Mapped[datetime | None]
    generation: Mapped[UUID | None]
    """Changes with each restore; None before the first one. Cursors of the change feed have it."""


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
