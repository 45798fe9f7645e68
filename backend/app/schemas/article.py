"""Articles: what an author writes, and what a reader gets."""

from datetime import datetime

from pydantic import ConfigDict, StrictBool
from pydantic.config import JsonDict

from app.schemas.types import Content, Input, Output, Title, omitted
from app.schemas.user import UserPublic

_EXAMPLE: JsonDict = {
    "title": "Notes on the Analytical Engine",
    "content": "The Analytical Engine weaves algebraical patterns.",
    "published": True,
}


class ArticleCreate(Input):
    """A new article; a draft unless `published` is true."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    title: Title
    content: Content
    published: StrictBool = False


class ArticleUpdate(Input):
    """Some fields of an article; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"published": True}]})

    title: Title = omitted()
    content: Content = omitted()
    published: StrictBool = omitted()


class ArticleResponse(Output):
    """An article with its author."""

    id: int
    title: str
    content: str
    published: bool
    author_id: int
    created_at: datetime
    updated_at: datetime
    author: UserPublic
