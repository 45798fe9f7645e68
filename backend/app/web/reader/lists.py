"""Pages with lists of articles: home, all articles, topics, authors, and the archive."""

from datetime import UTC, datetime
from itertools import groupby
from typing import Annotated, Any

from fastapi import Path, Request, Response

from app.core.config import get_settings
from app.core.errors import NotFound
from app.db.dependencies import ReadConnection
from app.db.reading import Reader
from app.schemas.articles.article import ArticleQuery, Status
from app.schemas.articles.tag import TagQuery
from app.services.articles import archive, listing, tags
from app.services.community import profiles
from app.services.feeds.addresses import home_url, tag_url
from app.services.pages.paging import ListPage
from app.web.localization import gettext as _
from app.web.reader import metadata
from app.web.reader.metadata import Metadata
from app.web.reader.parameters import PAGE_SIZE, Cursor, Name, PageNumber
from app.web.reader.pictures import pictures_in
from app.web.rendering import page
from app.web.routing import create_router, public_page

MAX_FEATURED = 3
TAGS_PER_PAGE = 100
CARD_FIELDS = (
    "id",
    "title",
    "slug",
    "excerpt",
    "cover_image_url",
    "language",
    "tags",
    "tag_slugs",
    "published_at",
    "reading_time",
    "author",
)
"""The fields of an article in a list."""

router = create_router()


async def list_cards(
    reader: Reader, *, cursor: str | None = None, limit: int = PAGE_SIZE, **filters: Any
) -> ListPage[dict[str, Any]]:
    """Return a page of public articles, newest first. Raises InvalidCursor."""
    query = ArticleQuery(status=Status.PUBLISHED, cursor=cursor, limit=limit, **filters)
    return await listing.list_articles(reader, query=query, viewer=None, fields=CARD_FIELDS)


async def _list_page(
    request: Request,
    reader: Reader,
    template: str,
    *,
    articles: ListPage[dict[str, Any]],
    **context: Any,
) -> Response:
    """Render a page with a list of articles."""
    pictures = await pictures_in(reader, [each["cover_image_url"] for each in articles.items])
    return page(
        request,
        template,
        public=True,
        remote_images=True,
        articles=articles,
        pictures=pictures,
        **context,
    )


@router.get("")
@public_page
async def show_home(request: Request, reader: ReadConnection) -> Response:
    """Show the featured articles, or the newest one in their place, and the newest articles."""
    newest = await list_cards(reader, limit=PAGE_SIZE)
    tag = get_settings().web_featured_tag
    featured = (await list_cards(reader, tag=[tag], limit=MAX_FEATURED)).items
    if not featured:
        featured = newest.items[:1]
    leading = {each["id"] for each in featured}
    others = [each for each in newest.items if each["id"] not in leading]
    pictures = await pictures_in(
        reader, [each["cover_image_url"] for each in (*featured, *newest.items)]
    )
    topics = {
        slug: name
        for each in newest.items
        for slug, name in zip(each["tag_slugs"], each["tags"], strict=True)
    }
    return page(
        request,
        "reader/home.html",
        public=True,
        remote_images=True,
        featured=featured,
        articles=others,
        has_more=newest.next is not None,
        topics=dict(list(topics.items())[:12]),
        pictures=pictures,
        metadata=metadata.of_site(f"{get_settings().web_prefix}/search"),
    )


@router.get("/articles")
@public_page
async def list_all(request: Request, reader: ReadConnection, cursor: Cursor = None) -> Response:
    """Show all articles, newest first."""
    return await _list_page(
        request,
        reader,
        "reader/articles.html",
        articles=await list_cards(reader, cursor=cursor),
        metadata=Metadata(_("All articles"), "", f"{home_url()}articles"),
    )


@router.get("/tags")
@public_page
async def list_tags(request: Request, reader: ReadConnection, number: PageNumber = 1) -> Response:
    """Show the tags by name."""
    query = TagQuery(skip=(number - 1) * TAGS_PER_PAGE, limit=TAGS_PER_PAGE)
    found = await tags.list_tags(reader, query=query, viewer=None)
    return page(
        request,
        "reader/tags.html",
        public=True,
        tags=found,
        number=number,
        has_more=len(found) == TAGS_PER_PAGE,
        metadata=Metadata(_("Topics"), "", f"{home_url()}tags"),
    )


@router.get("/tags/{slug}")
@public_page
async def show_tag(
    request: Request, reader: ReadConnection, slug: Name, cursor: Cursor = None
) -> Response:
    """Show the articles with a tag."""
    tag = await tags.get_tag(reader, slug=slug, viewer=None)
    return await _list_page(
        request,
        reader,
        "reader/tag.html",
        articles=await list_cards(reader, cursor=cursor, tag=[tag.name]),
        tag=tag,
        metadata=Metadata(tag.name, "", tag_url(tag.slug)),
    )


@router.get("/authors/{username}")
@public_page
async def show_author(
    request: Request, reader: ReadConnection, username: Name, cursor: Cursor = None
) -> Response:
    """Show an author's profile and articles."""
    profile = await profiles.get_profile(reader, username=username, viewer=None)
    return await _list_page(
        request,
        reader,
        "reader/author.html",
        articles=await list_cards(reader, cursor=cursor, author=profile.username),
        profile=profile,
        metadata=metadata.of_author(profile),
    )


@router.get("/archive")
@public_page
async def show_archive(request: Request, reader: ReadConnection) -> Response:
    """Show the months with articles, by year."""
    months = await archive.list_months(reader)
    years = [(year, list(each)) for year, each in groupby(months, key=lambda month: month.year)]
    return page(
        request,
        "reader/archive.html",
        public=True,
        years=years,
        metadata=Metadata(_("Archive"), "", f"{home_url()}archive"),
    )


@router.get("/archive/{year}/{month}")
@public_page
async def show_month(
    request: Request,
    reader: ReadConnection,
    year: Annotated[int, Path(ge=1970, le=9998)],
    month: Annotated[int, Path(ge=1, le=12)],
    cursor: Cursor = None,
) -> Response:
    """Show the articles of a month, in UTC. Raises NotFound for a month without articles."""
    start = datetime(year, month, 1, tzinfo=UTC)
    end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    articles = await list_cards(
        reader, cursor=cursor, since=start.isoformat(), until=end.isoformat()
    )
    if not articles.items:
        raise NotFound
    return await _list_page(
        request,
        reader,
        "reader/month.html",
        articles=articles,
        month=start,
        metadata=Metadata(
            f"{_('Archive')}: {start:%Y-%m}", "", f"{home_url()}archive/{year}/{month:02}"
        ),
    )
