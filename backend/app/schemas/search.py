"""Search: what a reader looks for, and what they find."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from app.schemas.article import MAX_QUERY, Language
from app.schemas.page import PageQuery
from app.schemas.types import Input, Line, Output
from app.schemas.user import UserPublic

MAX_SUGGESTION_QUERY = 100


class SearchQuery(PageQuery):
    """Which words, in which language, and which part of what is found."""

    q: Annotated[
        str,
        Line(MAX_QUERY),
        Field(
            description="Words that must all be there; `or` between alternatives, quotes around a "
            "phrase, `-` before what must not be there",
            examples=['engine "difference engine" -steam'],
        ),
    ]
    language: Annotated[
        Language | None, Field(description="Only articles in this language; else in any")
    ] = None


class SuggestionQuery(Input):
    """The beginning of what a reader types."""

    q: Annotated[
        str,
        Line(MAX_SUGGESTION_QUERY),
        Field(
            description="Words of a title; the last one may not be finished", examples=["analyt"]
        ),
    ]


class SearchResult(Output):
    """An article that was found. Snippets are HTML: escaped, with `<mark>` around what matches."""

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
    """Where the text speaks of what was looked for; its beginning where only the title does."""


class Suggestion(Output):
    """An article whose title goes on like that."""

    id: int
    title: str
    slug: str
