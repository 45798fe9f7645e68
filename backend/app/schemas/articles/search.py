"""Schemas for search and title suggestions."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from app.schemas.accounts.user import UserPublic
from app.schemas.articles.article import MAX_QUERY, Language
from app.schemas.page import PageQuery
from app.schemas.types import Input, Line, Output

MAX_SUGGESTION_QUERY = 100


class SearchQuery(PageQuery):
    """The words, language and page of a search."""

    q: Annotated[
        str,
        Line(MAX_QUERY),
        Field(
            description="Words that must all match; `or` between alternatives, quotes around a "
            "phrase, `-` before excluded words",
            examples=['engine "difference engine" -steam'],
        ),
    ]
    language: Annotated[Language | None, Field(description="Only articles in this language")] = None


class SuggestionQuery(Input):
    """The words of a title suggestion."""

    q: Annotated[
        str,
        Line(MAX_SUGGESTION_QUERY),
        Field(description="Words of a title; the last one may be a prefix", examples=["analyt"]),
    ]


class SearchResult(Output):
    """A search result. Snippets are escaped HTML, with `<mark>` around matches."""

    id: int
    title: str
    slug: str
    excerpt: str
    language: str
    tags: list[str]
    published_at: datetime | None
    author: UserPublic
    rank: float
    title_snippet: str
    """The whole title."""
    snippet: str
    """The matching parts of the content, or its beginning if only the title matches."""


class Suggestion(Output):
    """An article whose title matches."""

    id: int
    title: str
    slug: str
