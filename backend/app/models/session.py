"""Sessions: where a user is logged in, and which refresh token continues each."""

from datetime import datetime
from ipaddress import IPv4Address, IPv6Address

from sqlalchemy import ForeignKey, String, false
from sqlalchemy.dialects.postgresql import BYTEA, INET
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey


class UserSession(Base):
    """One login and all the tokens that descend from it. No token is stored, only its SHA-256.

    What a refresh changes is in no index, so that PostgreSQL can update the row in place (HOT).
    """

    __tablename__ = "user_sessions"

    id: Mapped[PrimaryKey]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[bytes] = mapped_column(BYTEA)
    previous_hash: Mapped[bytes | None] = mapped_column(BYTEA)
    """Of the token that was exchanged for the current one, at `last_used_at`."""
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    revoked_at: Mapped[datetime | None]
    ip: Mapped[IPv4Address | IPv6Address | None] = mapped_column(INET)
    user_agent: Mapped[str] = mapped_column(String(300))
    by_conduit: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether the RealWorld API opened it: its sessions may change email and password."""
