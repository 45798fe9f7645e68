"""Articles and lists of articles as Markdown documents.

The document of an article is the one that exports write, without what readers cannot see.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.content.documents import link_list, write_article, write_document
from app.core.config import get_settings
from app.core.enums import CommentPolicy
from app.db.reading import Reader
from app.schemas.articles.article import Status
from app.services.articles.reading import get_fields

LISTED_FIELDS = ("title", "slug", "excerpt", "status")
"""The fields that the document of a list shows."""
_FIELDS = (
    "title",
    "slug",
    "content",
    "excerpt",
    "own_excerpt",
    "cover_image_url",
    "language",
    "tags_in_order",
    "status",
    "published_at",
    "created_at",
    "updated_at",
    "comment_policy",
    "author",
)


async def read_document(
    reader: Reader | AsyncSession,
    *,
    viewer: Identity | None,
    article_id: int | None = None,
    slug: str | None = None,
) -> bytes:
    """Return the document of an article, found by id, slug or former slug.

    Raises ArticleNotFound if it does not exist or is another user's draft.
    """
    found = await get_fields(
        reader, viewer=viewer, fields=_FIELDS, article_id=article_id, slug=slug
    )
    record = {
        "title": found["title"],
        "slug": found["slug"],
        "content": found["content"],
        "excerpt": found["excerpt"] if found["own_excerpt"] else None,
        "cover_image_url": found["cover_image_url"],
        "language": found["language"],
        "tags": list(found["tags_in_order"]),
        "published_at": _timestamp(found["published_at"]),
        "archived": found["status"] == Status.ARCHIVED,
        "created_at": _timestamp(found["created_at"]),
        "updated_at": _timestamp(found["updated_at"]),
        "author": found["author"]["username"],
        "comment_policy": found["comment_policy"],
    }
    if record["comment_policy"] == CommentPolicy.OPEN:
        del record["comment_policy"]
    return write_article({name: value for name, value in record.items() if value})


def list_document(
    articles: Sequence[Mapping[str, Any]], *, total: int | None, pages: Mapping[str, str]
) -> bytes:
    """Return the document of a list with LISTED_FIELDS.

    `total` is the number of all articles, if it was counted. `pages` has the paths of other pages.
    """
    front_matter = {"title": "Articles", **({} if total is None else {"total": total}), **pages}
    links = (
        (
            each["title"],
            document_url(each["slug"]),
            each["excerpt"] if each["status"] == Status.PUBLISHED else f"({each['status']})",
        )
        for each in articles
    )
    return write_document(front_matter, link_list(links))


def document_url(slug: str) -> str:
    """Return the public URL of an article's document."""
    return f"{get_settings().api_url}/articles/{quote(slug, '')}.md"


def _timestamp(value: datetime | None) -> str | None:
    return value.isoformat().replace("+00:00", "Z") if value else None
