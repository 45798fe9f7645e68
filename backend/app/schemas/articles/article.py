"""Schemas for articles."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StrictBool,
    StringConstraints,
    TypeAdapter,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from app.content.slugs import normalize_text, slugify, tag_key
from app.core.enums import CommentPolicy
from app.core.languages import LANGUAGE_PATTERN, MAX_LANGUAGE, canonical_language
from app.schemas.accounts.user import UserPublic
from app.schemas.page import PageQuery
from app.schemas.types import (
    MAY_BE_ABSENT,
    SLUG_PATTERN,
    Content,
    ImageUrl,
    Input,
    Line,
    Moment,
    Output,
    Title,
    omitted,
)

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
    """The publication status of an article."""

    DRAFT = "draft"
    SCHEDULED = "scheduled"
    PUBLISHED = "published"
    ARCHIVED = "archived"


class Sort(StrEnum):
    """The sort orders of a list of articles."""

    NEWEST = "newest"
    OLDEST = "oldest"
    UPDATED = "updated"
    TITLE = "title"
    RELEVANCE = "relevance"


def _validate_tag_name(name: str) -> str:
    if not (slugify(name, fallback="") and tag_key(name)):
        raise ValueError("must have a letter or a digit")
    tidied = normalize_text(name)
    if len(tidied) > MAX_TAG:  # composed characters may be longer than decomposed ones
        raise ValueError(f"must have at most {MAX_TAG} characters in Unicode normalization form C")
    return tidied


TagName = Annotated[str, Line(MAX_TAG), AfterValidator(_validate_tag_name)]
"""Names with the same `app.content.slugs.tag_key` are the same tag."""
Slug = Annotated[str, StringConstraints(max_length=MAX_SLUG, pattern=SLUG_PATTERN)]
Excerpt = Annotated[str, Line(MAX_EXCERPT)]
Language = Annotated[
    str,
    AfterValidator(canonical_language),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": LANGUAGE_PATTERN,
            "maxLength": MAX_LANGUAGE,
            "description": "BCP 47: a registered language, optionally with a script and a region",
            "examples": ["en", "pt-BR", "zh-Hans"],
        }
    ),
]
"""A registered BCP 47 tag in canonical form; it determines the stemmer for search."""


class ArticleCreate(Input):
    """A new article; a draft unless `published` or `published_at` is set."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    title: Title
    content: Content
    """Markdown: CommonMark with tables, strikethrough and footnotes."""
    slug: Slug | None = None
    """Derived from the title if omitted."""
    excerpt: Excerpt | None = None
    """Derived from the content if omitted."""
    cover_image_url: ImageUrl | None = None
    language: Language | None = None
    tags: list[TagName] = Field(default_factory=list, max_length=MAX_TAGS)
    published: StrictBool = False
    published_at: Moment | None = None
    """A future date schedules the article."""
    comment_policy: CommentPolicy = CommentPolicy.OPEN
    """With `held`, a comment is visible to others once it is approved."""


class ArticleUpdate(Input):
    """Changes of an article; omitted fields stay the same."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"published": True}]})

    title: Title = omitted()
    content: Content = omitted()
    slug: Slug | None = omitted()
    """The former slug redirects. null: derived from the title."""
    excerpt: Excerpt | None = omitted()
    """null: derived from the content."""
    cover_image_url: ImageUrl | None = omitted()
    language: Language = omitted()
    tags: Annotated[list[TagName], Field(max_length=MAX_TAGS)] = omitted()
    published: StrictBool = omitted()
    """true publishes the article now, unless it is public; false makes it a draft."""
    published_at: Moment | None = omitted()
    """A future date schedules the article; null makes it a draft."""
    archived: StrictBool = omitted()
    """Archived articles are kept, but hidden from readers."""
    comment_policy: CommentPolicy = omitted()

    @model_validator(mode="after")
    def _check_publication(self) -> Self:
        """Reject contradictory publication fields."""
        dated = "published_at" in self.model_fields_set
        if dated and self.published and self.published_at is None:
            raise ValueError("published is true, but published_at is null: send one of them")
        return self


class TocEntry(Output):
    """A heading in an article's HTML, with the id of its anchor."""

    # In the order in which PostgreSQL returns jsonb: the entity tag is of these bytes.
    id: str
    text: str
    level: int


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
    """Whether the article is public now."""
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


class _CountedArticle(ArticleResponse):
    """All fields of an article in a list."""

    favorites_count: int
    comments_count: int
    favorited: bool
    """Whether it is the user's favorite."""


FIELDS = tuple(ArticleResponse.model_fields)
COUNTED = tuple(field for field in _CountedArticle.model_fields if field not in FIELDS)
"""Fields that change without a new version of the article."""
LIST_FIELDS = (*FIELDS[:-1], *COUNTED, FIELDS[-1])
ON_REQUEST = ("html", "toc", *COUNTED)
"""Fields that a list returns on request only; the first two would double its size."""
DEFAULT_FIELDS = tuple(field for field in LIST_FIELDS if field not in ON_REQUEST)


def _select(fields: Sequence[str], default: Any) -> dict[str, Any]:
    return {name: (_CountedArticle.model_fields[name].annotation, default) for name in fields}


ListedArticle = create_model(
    "ListedArticle",
    __base__=Output,
    __doc__="An article in a list, without the parameter `fields`.",
    **_select(DEFAULT_FIELDS, ...),
)
ArticlePart = create_model(
    "ArticlePart",
    __base__=Output,
    __doc__="An article in a list, with the requested `fields` only.",
    __cls_kwargs__=dict(MAY_BE_ABSENT),
    **_select(LIST_FIELDS, omitted()),
)


class _ListedOrPart:
    """Describes a list of articles by two schemas.

    With the first, generated clients know that the default fields are present.
    """

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        listed = TypeAdapter(list[ListedArticle]).core_schema
        return {"anyOf": [handler(listed), handler(schema)]}


ArticleList = Annotated[list[ArticlePart], _ListedOrPart()]
"""The response of a list of articles, whose items have the requested fields."""


def _validate_fields(value: str) -> str:
    requested = value.split(",")
    if unknown := [name for name in requested if name not in LIST_FIELDS]:
        known = ", ".join(LIST_FIELDS)
        raise ValueError(f"{unknown[0][:50]!r} is not a field; use {known}")
    return ",".join(field for field in LIST_FIELDS if field in requested)


Fields = Annotated[
    str,
    AfterValidator(_validate_fields),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": "^({0})(,({0}))*$".format("|".join(LIST_FIELDS)),
            "description": f"The fields to return, of {', '.join(LIST_FIELDS)}; "
            f"by default all except {', '.join(ON_REQUEST)}",
            "examples": ["id,title,slug"],
        }
    ),
]


CURSOR_OR_SKIP = "skip and cursor cannot be combined: use one of them"


class ArticleQuery(PageQuery):
    """Filters, order and page of a list of articles."""

    tag: Annotated[
        list[Annotated[str, Line(50)]],
        Field(max_length=10, description="Only articles with all of these tags"),
    ] = Field(default_factory=list)
    author: Annotated[str | None, Field(max_length=50, description="A username")] = None
    favorited_by: Annotated[
        str | None, Field(max_length=50, description="A username: only the user's favorites")
    ] = None
    published: Annotated[
        bool | None, Field(description="Only public articles, or only unpublished ones")
    ] = None
    status: Annotated[
        Status | None, Field(description="Archived articles are listed with this filter only")
    ] = None
    language: Language | None = None
    q: Annotated[
        Annotated[str, Line(MAX_QUERY)] | None,
        Field(description='Words to search for: `engine "analytical engine" -steam or loom`'),
    ] = None
    since: Annotated[Moment | None, Field(description="Dated at this time or later")] = None
    until: Annotated[
        Moment | None, Field(description="Dated before; by publication, or by creation for drafts")
    ] = None
    sort: Annotated[
        Sort | None, Field(description="By default `newest`, or `relevance` with `q`")
    ] = None
    fields: Fields | None = None
    cursor: Annotated[
        str | None, Field(max_length=2000, description="From a `Link` header; replaces `skip`")
    ] = None
    count: Annotated[bool, Field(description="Whether to return the total in `X-Total-Count`")] = (
        False
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.cursor is not None and self.skip:
            raise ValueError(CURSOR_OR_SKIP)
        if self.published is not None and self.status is not None:
            raise ValueError("published and status cannot be combined: use one of them")
        if self.sort is Sort.RELEVANCE and self.q is None:
            raise ValueError("sort=relevance requires q, the words to search for")
        return self


class FeedQuery(PageQuery):
    """The page of the feed of followed authors."""

    fields: Fields | None = None
    cursor: Annotated[
        str | None, Field(max_length=2000, description="From a `Link` header; replaces `skip`")
    ] = None
    count: Annotated[bool, Field(description="Whether to return the total in `X-Total-Count`")] = (
        False
    )

    @model_validator(mode="after")
    def _check_paging(self) -> Self:
        if self.cursor is not None and self.skip:
            raise ValueError(CURSOR_OR_SKIP)
        return self
