"""The page of an article, with its comments."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from starlette.responses import RedirectResponse

from app.core.config import get_settings
from app.core.errors import CommentNotFound
from app.db.dependencies import ReadConnection
from app.db.reading import Reader
from app.http.caching import public
from app.schemas.community.comment import ThreadQuery
from app.schemas.page import CursorQuery
from app.services.articles import reading
from app.services.articles.addresses import article_url
from app.services.community.comments import reading as comments
from app.web.localization import gettext as _
from app.web.reader import metadata
from app.web.reader.lists import list_cards
from app.web.reader.metadata import Metadata
from app.web.reader.parameters import CommentId, Cursor, Name
from app.web.reader.pictures import pictures_in
from app.web.rendering import page
from app.web.routing import create_router, public_page

ARTICLE_FIELDS = (
    "id",
    "title",
    "slug",
    "html",
    "toc",
    "excerpt",
    "cover_image_url",
    "language",
    "tags",
    "tag_slugs",
    "published_at",
    "updated_at",
    "word_count",
    "reading_time",
    "comment_policy",
    "comments_count",
    "author_bio",
    "author_image_url",
    "author",
)
SUMMARY_FIELDS = ("id", "title", "slug", "language", "comment_policy", "comments_count")
"""What pages about an article's comments show of it."""
MAX_RELATED = 3

router = create_router()


def article_path(slug: str) -> str:
    """Return the path of an article's page."""
    return f"{get_settings().web_prefix}/articles/{quote(slug, '')}"


def _moved(slug: str) -> Response:
    """Redirect from a former slug to the current one."""
    return RedirectResponse(article_path(slug), 301, {"Cache-Control": public()})


async def _related(reader: Reader, article: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the newest other articles with the first tag of an article."""
    if not article["tags"]:
        return []
    found = await list_cards(reader, tag=article["tags"][:1], limit=MAX_RELATED + 1)
    return [each for each in found.items if each["id"] != article["id"]][:MAX_RELATED]


@router.get("/articles/{slug}")
@public_page
async def show_article(request: Request, reader: ReadConnection, slug: Name) -> Response:
    """Show an article. A former slug redirects."""
    article = await reading.get_fields(reader, slug=slug, viewer=None, fields=ARTICLE_FIELDS)
    if article["slug"] != slug:
        return _moved(article["slug"])
    threads = await comments.list_threads(
        reader, article_id=article["id"], query=ThreadQuery(sort="oldest"), viewer=None
    )
    related = await _related(reader, article)
    covers = [each["cover_image_url"] for each in (article, *related)]
    pictures = await pictures_in(reader, [*covers, article["author_image_url"], article["html"]])
    cover = pictures.find(article["cover_image_url"] or "")
    return page(
        request,
        "reader/article.html",
        public=True,
        remote_images=True,
        article=article,
        content=pictures.complete(article["html"]),
        pictures=pictures,
        related=related,
        threads=threads,
        metadata=metadata.of_article(article, cover),
    )


@router.get("/articles/{slug}/comments")
@public_page
async def list_comments(
    request: Request, reader: ReadConnection, slug: Name, cursor: Cursor = None
) -> Response:
    """Show the comments of an article from a position on."""
    article = await reading.get_fields(reader, slug=slug, viewer=None, fields=SUMMARY_FIELDS)
    threads = await comments.list_threads(
        reader,
        article_id=article["id"],
        query=ThreadQuery(sort="oldest", cursor=cursor),
        viewer=None,
    )
    title = _("Comments: %(title)s") % {"title": article["title"]}
    return page(
        request,
        "reader/comments.html",
        public=True,
        article=article,
        threads=threads,
        metadata=Metadata(title, "", article_url(article["slug"])),
    )


@router.get("/comments/{comment_id}/thread")
@public_page
async def show_thread(
    request: Request, reader: ReadConnection, comment_id: CommentId, cursor: Cursor = None
) -> Response:
    """Show the first comment of a thread, and its replies from a position on."""
    first = await comments.get_comment(reader, comment_id=comment_id, viewer=None)
    if first.parent_id is not None:
        raise CommentNotFound
    replies = await comments.list_replies(
        reader, comment_id=comment_id, query=CursorQuery(cursor=cursor), viewer=None
    )
    article = await reading.get_fields(
        reader, article_id=first.article_id, viewer=None, fields=SUMMARY_FIELDS
    )
    title = _("Comments: %(title)s") % {"title": article["title"]}
    return page(
        request,
        "reader/thread.html",
        public=True,
        article=article,
        first=first,
        replies=replies,
        metadata=Metadata(title, "", article_url(article["slug"])),
    )
