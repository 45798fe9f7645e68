"""Feeds, the sitemap and robots.txt: what feed readers and search engines fetch again and again."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Annotated, Any

from fastapi import Depends, Path, Request, Response, status
from pydantic import BaseModel, StringConstraints

from app.core import clock
from app.core.conditional import entity_tag, public
from app.core.errors import NotFound, PressroomError, TagNotFound, UserNotFound
from app.db.dependencies import ReadConnection
from app.routers.responses import READS_VERSION, Responses, create_router, errors
from app.schemas.feed import JsonFeed
from app.schemas.types import PlainDigits
from app.services.feeds import atom, contents, json_feed, rss, sitemap
from app.services.feeds.contents import Feed
from app.services.feeds.sitemap import Sitemap

SECONDS_FRESH = 300
SETTLED_AFTER = timedelta(minutes=1)
"""How old a moment has to be to tell two versions apart: Last-Modified knows no parts of a second,
and what a replica shows late has happened before one could see it."""

Name = Annotated[str, StringConstraints(max_length=100, pattern=r"^[^\x00]*$")]
"""Whatever it is, the database can look for it."""

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

HEADERS: dict[str, Any] = {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in {
        "ETag": "For `If-None-Match`",
        "Last-Modified": "For `If-Modified-Since`; not within a minute after a change",
        "Cache-Control": "How long it may be shown without asking again",
    }.items()
}
TEXT_SCHEMA = {"type": "string"}


def _inlined(model: type[BaseModel]) -> Any:
    """A model's schema without references: FastAPI collects those of JSON alone."""
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


def _answers(media_type: str, *types: type[PressroomError], schema: Any = TEXT_SCHEMA) -> Responses:
    """The `responses` of a route with a document of this type, which may raise `types`."""
    return {
        200: {"headers": HEADERS, "content": {media_type: {"schema": schema}}},
        304: {"description": "The client has it: by its ETag, or by its date"},
        **errors(*READS_VERSION, *types),
    }


JSON_FEED_SCHEMA = _inlined(JsonFeed)


async def feed_of_all(connection: ReadConnection) -> Feed:
    """What everybody has published."""
    return await contents.of_all(connection)


async def feed_of_author(
    connection: ReadConnection,
    username: Annotated[Name, Path(description="An author's username", examples=["grace"])],
) -> Feed:
    """What an author has. Raises UserNotFound."""
    return await contents.of_author(connection, username=username)


async def feed_with_tag(
    connection: ReadConnection,
    slug: Annotated[Name, Path(description="A tag's slug", examples=["engines"])],
) -> Feed:
    """What has a tag. Raises TagNotFound."""
    return await contents.with_tag(connection, slug=slug)


OfAll = Annotated[Feed, Depends(feed_of_all)]
OfAuthor = Annotated[Feed, Depends(feed_of_author)]
WithTag = Annotated[Feed, Depends(feed_with_tag)]


def _document(
    request: Request, body: bytes, *, media_type: str, modified_at: datetime | None
) -> Response:
    """The document with its validators; 304 where If-Modified-Since alone says that it is known.

    Its entity tag is compared where all others are (core.routing).
    """
    headers = {"Cache-Control": public(SECONDS_FRESH), "ETag": entity_tag(body)}
    if modified_at is not None and clock.now() - modified_at >= SETTLED_AFTER:
        headers["Last-Modified"] = format_datetime(modified_at, usegmt=True)
        if "If-None-Match" not in request.headers and _is_known(request, modified_at):
            return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    charset = "" if media_type == JSON_FEED else "; charset=utf-8"
    return Response(body, headers=headers, media_type=media_type + charset)


def _is_known(request: Request, modified_at: datetime) -> bool:
    """RFC 9110 §13.1.3; what is no date is no condition."""
    try:
        since = parsedate_to_datetime(request.headers.get("If-Modified-Since", ""))
    except (ValueError, OverflowError):
        return False
    return since.tzinfo is not None and modified_at.replace(microsecond=0) <= since


def _feed(request: Request, feed: Feed, media_type: str) -> Response:
    body = WRITERS[media_type](feed)
    return _document(request, body, media_type=media_type, modified_at=feed.modified_at)


def _sitemap(request: Request, found: Sitemap) -> Response:
    return _document(request, found.body, media_type=XML, modified_at=found.modified_at)


@router.get("/feed.xml", response_class=Response, responses=_answers(RSS))
async def read_rss(request: Request, feed: OfAll) -> Response:
    """The newest articles in RSS 2.0."""
    return _feed(request, feed, RSS)


@router.get("/atom.xml", response_class=Response, responses=_answers(ATOM))
async def read_atom(request: Request, feed: OfAll) -> Response:
    """The newest articles in Atom."""
    return _feed(request, feed, ATOM)


@router.get(
    "/feed.json", response_class=Response, responses=_answers(JSON_FEED, schema=JSON_FEED_SCHEMA)
)
async def read_json_feed(request: Request, feed: OfAll) -> Response:
    """The newest articles as a JSON Feed."""
    return _feed(request, feed, JSON_FEED)


@router.get(
    "/authors/{username}/feed.xml", response_class=Response, responses=_answers(RSS, UserNotFound)
)
async def read_author_rss(request: Request, feed: OfAuthor) -> Response:
    """An author's newest articles in RSS 2.0."""
    return _feed(request, feed, RSS)


@router.get(
    "/authors/{username}/atom.xml", response_class=Response, responses=_answers(ATOM, UserNotFound)
)
async def read_author_atom(request: Request, feed: OfAuthor) -> Response:
    """An author's newest articles in Atom."""
    return _feed(request, feed, ATOM)


@router.get(
    "/authors/{username}/feed.json",
    response_class=Response,
    responses=_answers(JSON_FEED, UserNotFound, schema=JSON_FEED_SCHEMA),
)
async def read_author_json_feed(request: Request, feed: OfAuthor) -> Response:
    """An author's newest articles as a JSON Feed."""
    return _feed(request, feed, JSON_FEED)


@router.get("/tags/{slug}/feed.xml", response_class=Response, responses=_answers(RSS, TagNotFound))
async def read_tag_rss(request: Request, feed: WithTag) -> Response:
    """The newest articles that have a tag, in RSS 2.0."""
    return _feed(request, feed, RSS)


@router.get("/tags/{slug}/atom.xml", response_class=Response, responses=_answers(ATOM, TagNotFound))
async def read_tag_atom(request: Request, feed: WithTag) -> Response:
    """The newest articles that have a tag, in Atom."""
    return _feed(request, feed, ATOM)


@router.get(
    "/tags/{slug}/feed.json",
    response_class=Response,
    responses=_answers(JSON_FEED, TagNotFound, schema=JSON_FEED_SCHEMA),
)
async def read_tag_json_feed(request: Request, feed: WithTag) -> Response:
    """The newest articles that have a tag, as a JSON Feed."""
    return _feed(request, feed, JSON_FEED)


@router.get("/sitemap.xml", response_class=Response, responses=_answers(XML))
async def read_sitemap(request: Request, connection: ReadConnection) -> Response:
    """The addresses of all articles; over 50,000, the addresses of the sitemap's parts."""
    found = await sitemap.whole(connection)
    return _sitemap(request, found)


@router.get(
    "/sitemaps/{number}.xml",
    response_class=Response,
    responses=_answers(XML, NotFound),
)
async def read_sitemap_part(
    request: Request,
    connection: ReadConnection,
    number: Annotated[
        int, Path(description="The part", ge=1, le=sitemap.MAX_PARTS, examples=[1]), PlainDigits
    ],
) -> Response:
    """A part of the sitemap: the articles of a range of ids."""
    found = await sitemap.part(connection, number=number)
    return _sitemap(request, found)


@router.get(
    "/robots.txt",
    response_class=Response,
    responses={200: {"content": {TEXT: {"schema": TEXT_SCHEMA}}}},
)
async def read_robots() -> Response:
    """What crawlers may read: all that this API shows to anybody."""
    return Response(
        sitemap.robots(), media_type=TEXT, headers={"Cache-Control": public(SECONDS_FRESH)}
    )
