"""Import records: which imported records became which articles."""

from sqlalchemy import ForeignKey
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base


class ImportRecord(Base):
    """An imported record, so that importing it again changes nothing."""

    __tablename__ = "import_records"

    key: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    """SHA-256 of the record's identifier in its source."""
    digest: Mapped[bytes] = mapped_column(BYTEA)
    """SHA-256 of the record itself."""
    article_id: Mapped[int] = mapped_column(
        ForeignKey("articles.id", ondelete="CASCADE"), index=True
    )
