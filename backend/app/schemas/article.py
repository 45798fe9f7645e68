"""Articles: what an author writes, and what a reader gets."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.config import JsonDict

from app.core.community import CommentPolicy
from app.core.languages import LANGUAGE_PATTERN, MAX_LANGUAGE, canonical_language
from app.core.text import normalize_text, slugify, tag_key
from app.schemas.page import PageQuery
from app.schemas.types import Content, ImageUrl, Input, Line, Moment, Output, Title, omitted
from app.schemas.user import UserPublic

MAX_TAGS = 20
MAX_TAG = 50
MAX_EXCERPT = 500
MAX_SLUG = 100
MAX_QUERY = 500

_EXAMPLE: JsonDict = {
    "title": "Notes on the Analytical Engine",
    "content": "The Analytical Engine **weaves** algebraical patterns.",
    "tags": ["Engines", "mathematics"],
    "published": True,
}


class Status(StrEnum):
    """Where an article is on its way to its readers."""

    DRAFT = "draft"
    SCHEDULED = "scheduled"
    PUBLISHED = "published"
    ARCHIVED = "archived"


class Sort(StrEnum):
    """The orders of a list of articles."""

    NEWEST = "newest"
    OLDEST = "oldest"
    UPDATED = "updated"
    TITLE = "title"
    RELEVANCE = "relevance"


def _with_a_slug(name: str) -> str:
    if not (slugify(name, fallback="") and tag_key(name)):
        raise ValueError("must have a letter or a digit")
    tidied = normalize_text(name)
    if len(tidied) > MAX_TAG:  # composed characters may be longer than decomposed ones
        raise ValueError(f"must have at most {MAX_TAG} characters in Unicode's form C")
    return tidied


TagName = Annotated[str, Line(MAX_TAG), AfterValidator(_with_a_slug)]
"""Two are one tag where `app.core.text.tag_key` is the same for both."""
Slug = Annotated[str, StringConstraints(max_length=MAX_SLUG, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Excerpt = Annotated[str, Line(MAX_EXCERPT)]
Language = Annotated[
    str,
    AfterValidator(canonical_language),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": LANGUAGE_PATTERN,
            "maxLength": MAX_LANGUAGE,
            "description": "BCP 47: a registered language, with a script and a region if need be",
            "examples": ["en", "pt-BR", "zh-Hans"],
        }
    ),
]
"""A registered BCP 47 tag in its canonical form; search chooses the stemmer by it."""


class ArticleCreate(Input):
    """A new article; a draft unless it says from when on it is published."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    title: Title
    content: Content
    """Markdown: CommonMark with tables, strikethrough and footnotes."""
    slug: Slug | None = None
    """Made from the title where it is not given."""
    excerpt: Excerpt | None = None
    """Made from the content where it is not given."""
    cover_image_url: ImageUrl | None = None
    language: Language | None = None
    tags: list[TagName] = Field(default_factory=list, max_length=MAX_TAGS)
    published: StrictBool = False
    published_at: Moment | None = None
    """In the future, it is scheduled: readers see it from that moment on."""
    comment_policy: CommentPolicy = CommentPolicy.OPEN
    """`held`: others see a comment once it is approved."""


class ArticleUpdate(Input):
    """Some fields of an article; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"published": True}]})

    title: Title = omitted()
    content: Content = omitted()
    slug: Slug | None = omitted()
    """The one before goes on leading here. null: made from the title anew."""
    excerpt: Excerpt | None = omitted()
    """null: made from the content."""
    cover_image_url: ImageUrl | None = omitted()
    language: Language = omitted()
    tags: Annotated[list[TagName], Field(max_length=MAX_TAGS)] = omitted()
    published: StrictBool = omitted()
    """true publishes now what is not published yet, false makes it a draft again."""
    published_at: Moment | None = omitted()
    """In the future, it is scheduled; null makes it a draft again."""
    archived: StrictBool = omitted()
    """Whether it is put away: kept, but out of sight of readers."""
    comment_policy: CommentPolicy = omitted()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        """Refuse to publish and unpublish at once."""
        dated = "published_at" in self.model_fields_set
        if dated and self.published and self.published_at is None:
            raise ValueError("published is true and published_at null: leave one of them out")
        return self


class TocEntry(Output):
    """A heading in an article's HTML; `#id` leads to it."""

    level: int
    text: str
    id: str


class ArticleResponse(Output):
    """An article with its author."""

    id: int
    title: str
    slug: str
    content: str
    html: str
    excerpt: str
    cover_image_url: str | None
    language: str
    tags: list[str]
    toc: list[TocEntry]
    status: Status
    published: bool
    """Whether readers see it now."""
    published_at: datetime | None
    word_count: int
    reading_time: int
    """In minutes."""
    comment_policy: CommentPolicy
    version: int
    author_id: int
    created_at: datetime
    updated_at: datetime
    author: UserPublic


class ArticlePart(Output):
    """An article as a list has it: the fields that were asked for."""

    id: int = omitted()
    title: str = omitted()
    slug: str = omitted()
    content: str = omitted()
    html: str = omitted()
    excerpt: str = omitted()
    cover_image_url: str | None = omitted()
    language: str = omitted()
    tags: list[str] = omitted()
    toc: list[TocEntry] = omitted()
    status: Status = omitted()
    published: bool = omitted()
    published_at: datetime | None = omitted()
    word_count: int = omitted()
    reading_time: int = omitted()
    comment_policy: CommentPolicy = omitted()
    favorites_count: int = omitted()
    comments_count: int = omitted()
    favorited: bool = omitted()
    """Whether it is a favorite of the reader's."""
    version: int = omitted()
    author_id: int = omitted()
    created_at: datetime = omitted()
    updated_at: datetime = omitted()
    author: UserPublic = omitted()


FIELDS = tuple(ArticleResponse.model_fields)
COUNTED = ("favorites_count", "comments_count", "favorited")
"""What readers do: it changes without a new version of the article."""
LIST_FIELDS = (*FIELDS[:-1], *COUNTED, FIELDS[-1])
ON_REQUEST = ("html", "toc", *COUNTED)
"""What a list has only where it is asked for; the first two would double what is sent."""


def _known_fields(value: str) -> str:
    named = value.split(",")
    if unknown := [name for name in named if name not in LIST_FIELDS]:
        known = ", ".join(LIST_FIELDS)
        raise ValueError(f"{unknown[0][:50]!r} is not a field; choose from {known}")
    return ",".join(field for field in LIST_FIELDS if field in named)


Fields = Annotated[
    str,
    AfterValidator(_known_fields),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": "^({0})(,({0}))*$".format("|".join(LIST_FIELDS)),
            "description": f"Which fields to return, of {', '.join(LIST_FIELDS)}; "
            f"all but {', '.join(ON_REQUEST)} where it is not given",
            "examples": ["id,title,slug"],
        }
    ),
]


TWO_WAYS = "skip and cursor are two ways to turn a page: use one of them"


class ArticleQuery(PageQuery):
    """Which articles, in which order, and how much of them."""

    tag: Annotated[
        list[Annotated[str, Line(50)]],
        Field(max_length=10, description="Only those that have each of these tags"),
    ] = Field(default_factory=list)
    author: Annotated[str | None, Field(max_length=50, description="A username")] = None
    favorited_by: Annotated[
        str | None, Field(max_length=50, description="A username: only that user's favorites")
    ] = None
    published: Annotated[
        bool | None, Field(description="Only those that readers see now, or only the others")
    ] = None
    status: Annotated[
        Status | None, Field(description="Archived articles are in no other list")
    ] = None
    language: Language | None = None
    q: Annotated[
        str | None,
        Line(MAX_QUERY),
        Field(description='Words to search for: `engine "analytical engine" -steam or loom`'),
    ] = None
    since: Annotated[Moment | None, Field(description="Dated then or later")] = None
    until: Annotated[
        Moment | None, Field(description="Dated before; by publication, drafts by creation")
    ] = None
    sort: Annotated[
        Sort | None, Field(description="`newest`, with `q` `relevance`, where it is not given")
    ] = None
    fields: Fields | None = None
    cursor: Annotated[
        str | None, Field(max_length=2000, description="From a `Link` header; in place of `skip`")
    ] = None
    count: Annotated[bool, Field(description="Whether to count all, in `X-Total-Count`")] = False

    @model_validator(mode="after")
    def _make_sense(self) -> Self:
        if self.cursor is not None and self.skip:
            raise ValueError(TWO_WAYS)
        if self.published is not None and self.status is not None:
            raise ValueError("published and status ask for the same: use one of them")
        if self.sort is Sort.RELEVANCE and self.q is None:
            raise ValueError("sort=relevance needs q, the words to be relevant to")
        return self


class FeedQuery(PageQuery):
    """How much of the articles of those whom one follows, newest first."""

    fields: Fields | None = None
    cursor: Annotated[
        str | None, Field(max_length=2000, description="From a `Link` header; in place of `skip`")
    ] = None
    count: Annotated[bool, Field(description="Whether to count all, in `X-Total-Count`")] = False

    @model_validator(mode="after")
    def _one_way_to_turn_a_page(self) -> Self:
        if self.cursor is not None and self.skip:
            raise ValueError(TWO_WAYS)
        return self
