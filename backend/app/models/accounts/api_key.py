"""API keys: credentials for programs."""

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey, current_time


class ApiKey(Base):
    """A personal access token. Only its SHA-256 and its first characters are stored."""

    __tablename__ = "api_keys"

    id: Mapped[PrimaryKey]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    hint: Mapped[str] = mapped_column(String(20))
    token_hash: Mapped[bytes] = mapped_column(BYTEA, unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(String(50)))
    created_at: Mapped[datetime] = mapped_column(default=current_time)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
