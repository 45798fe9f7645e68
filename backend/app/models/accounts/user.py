"""Users: authors, editors and administrators."""

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import CheckConstraint, Enum, Index, String, func, true
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.core.enums import Role
from app.db.base import Base, PrimaryKey, TimestampMixin

if TYPE_CHECKING:
    from app.models.accounts.address import Address
    from app.models.articles.article import Article


class User(TimestampMixin, Base):
    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("username ~ '^[A-Za-z0-9._-]+$'", name="username_characters"),
        CheckConstraint("role IN ('author', 'editor', 'admin')", name="role_known"),
    )

    id: Mapped[PrimaryKey]
    email: Mapped[str] = mapped_column(String(254))
    username: Mapped[str] = mapped_column(String(50))
    name: Mapped[str] = mapped_column(String(100))
    hashed_password: Mapped[str] = mapped_column(String(255))
    role: Mapped[Role] = mapped_column(
        Enum(
            Role,
            native_enum=False,
            length=20,
            values_callable=lambda roles: [role.value for role in roles],
        ),
        default=Role.AUTHOR,
        server_default=Role.AUTHOR.value,
    )
    is_active: Mapped[bool] = mapped_column(default=True, server_default=true())
    email_verified_at: Mapped[datetime | None]
    """When the user proved to receive mail at `email`."""
    bio: Mapped[str] = mapped_column(String(1000), default="", server_default="")
    image_url: Mapped[str | None] = mapped_column(String(2000))

    addresses: Mapped[list["Address"]] = relationship(
        back_populates="user", lazy="raise", passive_deletes=True
    )
    articles: Mapped[list["Article"]] = relationship(
        back_populates="author",
        lazy="raise",
        passive_deletes=True,
        foreign_keys="Article.author_id",
    )


UNIQUE_EMAIL = Index("uq_users_email_lower", func.lower(User.email), unique=True)
UNIQUE_USERNAME = Index("uq_users_username_lower", func.lower(User.username), unique=True)
