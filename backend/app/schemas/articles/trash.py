"""Schemas for the trash."""

from datetime import datetime

from app.schemas.accounts.user import UserPublic
from app.schemas.types import Output


class TrashedArticle(Output):
    """A deleted article."""

    id: int
    title: str
    slug: str
    deleted_at: datetime
    purged_at: datetime
    """When it is deleted permanently."""
    author: UserPublic
