"""Routes for feeds, sitemaps and robots.txt, with HTTP validators."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Annotated, Any

from fastapi import Depends, Path, Request, Response, status
from pydantic import BaseModel, StringConstraints

from app.core import clock
from app.core.conditional import entity_tag
from app.core.errors import NotFound, TagNotFound, UserNotFound
from app.db.dependencies import ReadConnection
from app.http.caching import public
from app.http.headers import described
from app.http.routing import raises
from app.routers.responses import Responses, create_router, errors
from app.schemas.feeds import JsonFeed
from app.schemas.types import STORABLE_PATTERN, PlainDigits
from app.services.feeds import atom, contents, json_feed, rss, sitemap
from app.services.feeds.contents import Feed
from app.services.feeds.sitemap import Sitemap

MAX_AGE_SECONDS = 300
MIN_VALIDATOR_AGE = timedelta(minutes=1)
"""The minimum age of a change before Last-Modified is sent.

The header has a resolution of one second, and a replica may show a change later than its date.
"""

PathText = Annotated[str, StringConstraints(max_length=100, pattern=STORABLE_PATTERN)]
"""Any text that PostgreSQL can compare: without NUL."""

router = create_router(prefix="", tag="feeds")

RSS = "application/rss+xml"
ATOM = "application/atom+xml"
JSON_FEED = "application/feed+json"
XML = "application/xml"
TEXT = "text/plain"
WRITERS: Mapping[str, Callable[[Feed], bytes]] = {
    RSS: rss.write,
    ATOM: atom.write,
    JSON_FEED: json_feed.write,
}

TEXT_SCHEMA = {"type": "string"}


def _inlined(model: type[BaseModel]) -> Any:
    """Return a model's schema without references: FastAPI registers those of JSON bodies only."""
    schema = model.model_json_schema(mode="serialization")
    definitions = schema.pop("$defs", {})

    def resolved(part: Any) -> Any:
        if isinstance(part, list):
            return [resolved(each) for each in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return resolved(definitions[part["$ref"].rpartition("/")[2]])
        return {name: resolved(each) for name, each in part.items()}

    return resolved(schema)


def _feed_responses(media_type: str, schema: Any = TEXT_SCHEMA) -> Responses:
    """Return the `responses` of a route with a document of this media type."""
    return {
        200: {
            "headers": described("ETag", "Last-Modified", "Cache-Control"),
            "content": {media_type: {"schema": schema}},
        },
        304: {
            "description": "Not modified, according to If-None-Match or If-Modified-Since",
            "headers": described("ETag"),
        },
    }


JSON_FEED_SCHEMA = _inlined(JsonFeed)


async def get_site_feed(reader: ReadConnection) -> Feed:
    """Return the site's feed."""
    return await contents.site_feed(reader)


@raises(UserNotFound)
async def get_author_feed(
    reader: ReadConnection,
    username: Annotated[PathText, Path(description="An author's username", examples=["grace"])],
) -> Feed:
    """Return an author's feed."""
    return await contents.author_feed(reader, username=username)


@raises(TagNotFound)
async def get_tag_feed(
    reader: ReadConnection,
    slug: Annotated[PathText, Path(description="A tag's slug", examples=["engines"])],
) -> Feed:
    """Return a tag's feed."""
    return await contents.tag_feed(reader, slug=slug)


SiteFeed = Annotated[Feed, Depends(get_site_feed)]
AuthorFeed = Annotated[Feed, Depends(get_author_feed)]
TagFeed = Annotated[Feed, Depends(get_tag_feed)]


def _document_response(
    request: Request, body: bytes, *, media_type: str, modified_at: datetime | None
) -> Response:
    """Return the document with validators, or 304 for a matching If-Modified-Since.

    http.routing compares If-None-Match, as for all routes.
    """
    headers = {"Cache-Control": public(MAX_AGE_SECONDS), "ETag": entity_tag(body)}
    if modified_at is not None and clock.now() - modified_at >= MIN_VALIDATOR_AGE:
        headers["Last-Modified"] = format_datetime(modified_at, usegmt=True)
        if "If-None-Match" not in request.headers and _not_modified(request, modified_at):
            return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    charset = "" if media_type == JSON_FEED else "; charset=utf-8"
    return Response(body, headers=headers, media_type=media_type + charset)


def _not_modified(request: Request, modified_at: datetime) -> bool:
    """Evaluate If-Modified-Since (RFC 9110 §13.1.3); ignore an invalid date."""
    try:
        since = parsedate_to_datetime(request.headers.get("If-Modified-Since", ""))
    except (ValueError, OverflowError):
        return False
    return since.tzinfo is not None and modified_at.replace(microsecond=0) <= since


def _feed_response(request: Request, feed: Feed, media_type: str) -> Response:
    body = WRITERS[media_type](feed)
    return _document_response(request, body, media_type=media_type, modified_at=feed.modified_at)


def _sitemap_response(request: Request, document: Sitemap) -> Response:
    return _document_response(
        request, document.body, media_type=XML, modified_at=document.modified_at
    )


@router.get("/feed.xml", response_class=Response, responses=_feed_responses(RSS))
async def read_rss(request: Request, feed: SiteFeed) -> Response:
    """Return the newest articles as RSS 2.0."""
    return _feed_response(request, feed, RSS)


@router.get("/atom.xml", response_class=Response, responses=_feed_responses(ATOM))
async def read_atom(request: Request, feed: SiteFeed) -> Response:
    """Return the newest articles as Atom."""
    return _feed_response(request, feed, ATOM)


@router.get(
    "/feed.json", response_class=Response, responses=_feed_responses(JSON_FEED, JSON_FEED_SCHEMA)
)
async def read_json_feed(request: Request, feed: SiteFeed) -> Response:
    """Return the newest articles as JSON Feed."""
    return _feed_response(request, feed, JSON_FEED)


@router.get("/authors/{username}/feed.xml", response_class=Response, responses=_feed_responses(RSS))
async def read_author_rss(request: Request, feed: AuthorFeed) -> Response:
    """Return an author's newest articles as RSS 2.0."""
    return _feed_response(request, feed, RSS)


@router.get(
    "/authors/{username}/atom.xml", response_class=Response, responses=_feed_responses(ATOM)
)
async def read_author_atom(request: Request, feed: AuthorFeed) -> Response:
    """Return an author's newest articles as Atom."""
    return _feed_response(request, feed, ATOM)


@router.get(
    "/authors/{username}/feed.json",
    response_class=Response,
    responses=_feed_responses(JSON_FEED, JSON_FEED_SCHEMA),
)
async def read_author_json_feed(request: Request, feed: AuthorFeed) -> Response:
    """Return an author's newest articles as JSON Feed."""
    return _feed_response(request, feed, JSON_FEED)


@router.get("/tags/{slug}/feed.xml", response_class=Response, responses=_feed_responses(RSS))
async def read_tag_rss(request: Request, feed: TagFeed) -> Response:
    """Return a tag's newest articles as RSS 2.0."""
    return _feed_response(request, feed, RSS)


@router.get("/tags/{slug}/atom.xml", response_class=Response, responses=_feed_responses(ATOM))
async def read_tag_atom(request: Request, feed: TagFeed) -> Response:
    """Return a tag's newest articles as Atom."""
    return _feed_response(request, feed, ATOM)


@router.get(
    "/tags/{slug}/feed.json",
    response_class=Response,
    responses=_feed_responses(JSON_FEED, JSON_FEED_SCHEMA),
)
async def read_tag_json_feed(request: Request, feed: TagFeed) -> Response:
    """Return a tag's newest articles as JSON Feed."""
    return _feed_response(request, feed, JSON_FEED)


@router.get("/sitemap.xml", response_class=Response, responses=_feed_responses(XML))
async def read_sitemap(request: Request, reader: ReadConnection) -> Response:
    """Return the URLs of all articles; for more than 50,000, an index of sitemap parts."""
    document = await sitemap.build_sitemap(reader)
    return _sitemap_response(request, document)


@router.get(
    "/sitemaps/{number}.xml",
    response_class=Response,
    responses=_feed_responses(XML) | errors(NotFound),
)
async def read_sitemap_part(
    request: Request,
    reader: ReadConnection,
    number: Annotated[
        int,
        Path(description="The part's number", ge=1, le=sitemap.MAX_PARTS, examples=[1]),
        PlainDigits,
    ],
) -> Response:
    """Return a part of the sitemap: the articles in a range of ids."""
    document = await sitemap.build_sitemap_part(reader, number=number)
    return _sitemap_response(request, document)


@router.get(
    "/robots.txt",
    response_class=Response,
    responses={200: {"content": {TEXT: {"schema": TEXT_SCHEMA}}}},
)
async def read_robots() -> Response:
    """Return robots.txt, which allows crawlers to read everything."""
    return Response(
        sitemap.robots(), media_type=TEXT, headers={"Cache-Control": public(MAX_AGE_SECONDS)}
    )
