"""The export of a user's own data."""

from datetime import datetime

from app.schemas.types import Output


class OwnComment(Output):
    """A comment of the user."""

    id: int
    article_id: int
    created_at: datetime
    content: str
