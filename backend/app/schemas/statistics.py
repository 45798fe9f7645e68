"""Numbers about the content and the size of the server."""

from datetime import datetime

from app.schemas.types import Output


class ArticleCounts(Output):
    """Articles by state; each article is counted once."""

    published: int
    scheduled: int
    drafts: int
    archived: int
    trash: int


class Growth(Output):
    """How many rows were created in the last day, week and 30 days."""

    day: int
    week: int
    month: int


class TableSize(Output):
    """The size of a table with its indexes."""

    name: str
    bytes: int
    rows: int
    """An estimate of PostgreSQL, as of its last analysis."""


class Statistics(Output):
    """Counts, sizes and growth."""

    at: datetime
    users: int
    disabled_users: int
    articles: ArticleCounts
    comments: int
    media: int
    media_bytes: int
    database_bytes: int
    growth: dict[str, Growth]
    """Of users, articles, comments and media."""
    tables: list[TableSize]
    """All tables, the largest first."""
