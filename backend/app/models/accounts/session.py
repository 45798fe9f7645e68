"""Login sessions with the hashes of their refresh tokens."""

from datetime import datetime
from ipaddress import IPv4Address, IPv6Address

from sqlalchemy import ForeignKey, String, false
from sqlalchemy.dialects.postgresql import BYTEA, INET
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey


class UserSession(Base):
    """A login and its current refresh token, stored as SHA-256.

    The columns that a refresh changes are not indexed, so that PostgreSQL can use HOT updates.
    """

    __tablename__ = "user_sessions"

    id: Mapped[PrimaryKey]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[bytes] = mapped_column(BYTEA)
    previous_hash: Mapped[bytes | None] = mapped_column(BYTEA)
    """The hash of the token that was exchanged for the current one at `last_used_at`."""
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    revoked_at: Mapped[datetime | None]
    ip: Mapped[IPv4Address | IPv6Address | None] = mapped_column(INET)
    user_agent: Mapped[str] = mapped_column(String(300))
    by_conduit: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether the RealWorld API opened the session, which may then change email and password."""
    by_page: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether a web page opened the session. Its cookie is valid for pages only."""
    confirmed_at: Mapped[datetime | None]
    """When the user last sent the password to a page of this session."""
