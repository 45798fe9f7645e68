"""Arguments of the tools for agents."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from app.core.enums import CommentStatus
from app.schemas.articles.article import (
    MAX_QUERY,
    MAX_TAGS,
    Excerpt,
    Language,
    Slug,
    Sort,
    Status,
    TagName,
)
from app.schemas.media import Alt
from app.schemas.types import (
    STORABLE_PATTERN,
    Content,
    Id,
    ImageUrl,
    Input,
    Line,
    Moment,
    Title,
    omitted,
)

MAX_LISTED = 50

Limit = Annotated[int, Field(ge=1, le=MAX_LISTED, description="The maximum number of results")]
Cursor = Annotated[str, Field(max_length=2000, description="`next` of the previous result")]
ETag = Annotated[
    str,
    Field(max_length=100, description="`etag` of read_article: fails if it has changed since then"),
]


class SearchArguments(Input):
    """The words of a search, and its page."""

    q: Annotated[
        str,
        Line(MAX_QUERY),
        Field(description='Words that must all match, such as `engine "analytical engine" -steam`'),
    ]
    language: Language | None = None
    limit: Limit = 10
    skip: Annotated[int, Field(ge=0, le=1000, description="The number of results to skip")] = 0


class ListArguments(Input):
    """Filters, order and page of a list of articles."""

    tag: Annotated[list[Annotated[str, Line(50)]], Field(max_length=10)] = Field(
        default_factory=list, description="Only articles with all of these tags"
    )
    author: Annotated[
        str | None,
        StringConstraints(max_length=50, pattern=STORABLE_PATTERN),
        Field(description="A username"),
    ] = None
    status: Status | None = None
    language: Language | None = None
    sort: Sort | None = None
    limit: Limit = 10
    cursor: Cursor | None = None


class ArticleArguments(Input):
    """An article, by its id or its slug."""

    article_id: Id | None = None
    slug: Annotated[str | None, StringConstraints(max_length=100, pattern=STORABLE_PATTERN)] = None

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if (self.article_id is None) is (self.slug is None):
            raise ValueError("send either article_id or slug")
        return self


class DraftArguments(Input):
    """A new draft."""

    title: Title
    content: Annotated[Content, Field(description="Markdown")]
    slug: Slug | None = None
    excerpt: Excerpt | None = None
    language: Language | None = None
    tags: list[TagName] = Field(default_factory=list, max_length=MAX_TAGS)
    cover_image_url: ImageUrl | None = None
    idempotency_key: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$"),
        Field(description="A unique value: a repeated call with it creates nothing again"),
    ] = None


class DraftChanges(Input):
    """Changes of an article. Omitted fields stay the same."""

    article_id: Id
    etag: ETag | None = None
    title: Title = omitted()
    content: Annotated[Content, Field(description="Markdown")] = omitted()
    slug: Slug | None = omitted()
    excerpt: Excerpt | None = omitted()
    language: Language = omitted()
    tags: Annotated[list[TagName], Field(max_length=MAX_TAGS)] = omitted()
    cover_image_url: ImageUrl | None = omitted()


class PublishArguments(Input):
    """The article to publish."""

    article_id: Id
    etag: ETag | None = None
    published_at: Annotated[
        Moment | None, Field(description="A future date schedules the article")
    ] = None


class PictureArguments(Input):
    """A picture."""

    data: Annotated[
        str, Field(min_length=1, description="JPEG, PNG, WebP, GIF or AVIF, encoded in base64")
    ]
    alt: Annotated[Alt, Field(description="Alternative text")] = ""


class CommentsArguments(Input):
    """The comments of an article."""

    article_id: Id
    limit: Limit = 20
    cursor: Cursor | None = None


class QueueArguments(Input):
    """The status and page of the moderation queue."""

    status: Literal[CommentStatus.PENDING, CommentStatus.HIDDEN] = CommentStatus.PENDING
    limit: Limit = 20
    cursor: Cursor | None = None


class ModerationArguments(Input):
    """A decision on a comment."""

    comment_id: Id
    decision: Literal["approve", "hide", "delete"]
