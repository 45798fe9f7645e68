"""JSON Feed 1.1 (jsonfeed.org): the fields that this API uses. None is omitted."""

from datetime import datetime
from typing import Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from app.schemas.types import MAY_BE_ABSENT, Output

Absent = SkipJsonSchema[None]


class JsonFeedAuthor(Output):
    """The author of an item."""

    name: str
    url: str


class JsonFeedItem(Output):
    """An article."""

    model_config = MAY_BE_ABSENT

    id: str
    """Permanent, even if `url` changes."""
    url: str
    title: str
    content_html: str | Absent = None
    content_text: str | Absent = None
    """The excerpt, if the HTML is too long for a feed."""
    summary: str | Absent = None
    image: str | Absent = None
    date_published: datetime
    date_modified: datetime
    authors: list[JsonFeedAuthor]
    tags: list[str]
    language: str


class JsonFeed(Output):
    """The newest articles, newest first."""

    model_config = MAY_BE_ABSENT

    version: Literal["https://jsonfeed.org/version/1.1"]
    title: str
    home_page_url: str
    feed_url: str
    description: str | Absent = None
    language: str
    items: list[JsonFeedItem] = Field(max_length=20)
