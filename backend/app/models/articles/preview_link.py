"""Preview links: access to one article without authentication."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey


class PreviewLink(Base):
    """A temporary link to one article. Only the SHA-256 of its token is stored."""

    __tablename__ = "preview_links"

    id: Mapped[PrimaryKey]
    article_id: Mapped[int] = mapped_column(
        ForeignKey("articles.id", ondelete="CASCADE"), index=True
    )
    token_hash: Mapped[bytes] = mapped_column(BYTEA, unique=True)
    created_by: Mapped[int | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL"), index=True
    )
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
