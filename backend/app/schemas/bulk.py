"""Bulk import and export: the article record, one JSON object per line."""

import json
import re
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StringConstraints,
    model_validator,
)

from app.core.enums import CommentPolicy
from app.core.validation import pattern
from app.schemas.articles.article import MAX_TAGS, Excerpt, Language, TagName
from app.schemas.bulk_comment import CommentRecords
from app.schemas.types import (
    SLUG_PATTERN,
    ImageUrl,
    ImportedContent,
    Input,
    Line,
    Moment,
    Title,
    Username,
)

RecordSlug = Annotated[str, StringConstraints(max_length=100, pattern=SLUG_PATTERN)]
"""Longer than a slug in a request: generated slugs may have a number at the end."""

MAX_IMPORTED_BYTES = 64 * 1024
MAX_OLD_PATHS = 50
MAX_FORMER_SLUGS = 50
_SURROGATE = re.compile("[\ud800-\udfff]")
SourceName = Annotated[str, Line(500)]
OldPath = Annotated[
    str,
    StringConstraints(
        max_length=1000,
        pattern=pattern(
            r"^/[!#-;=?-~]+$", "should be a path that starts with /, in ASCII without spaces"
        ),
    ),
]
"""A path of the old site, percent-encoded; with the query if it has one, as `/?p=17`."""


def _storable(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if "\\u0000" in text.replace("\\\\", "") or _SURROGATE.search(text):
        raise ValueError("must not contain NUL or lone surrogates")
    if len(text.encode()) > MAX_IMPORTED_BYTES:
        raise ValueError(f"must be at most {MAX_IMPORTED_BYTES} bytes as JSON")
    return value


ImportedFields = Annotated[dict[str, JsonValue], AfterValidator(_storable)]


class ArticleRecord(Input):
    """An article as it is exported and imported: its source fields, without derived fields."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "title": "Notes on the Analytical Engine",
                    "slug": "notes-on-the-analytical-engine",
                    "content": "The Analytical Engine **weaves** algebraical patterns.",
                    "tags": ["Engines"],
                    "published_at": "1975-10-01T09:00:00Z",
                }
            ]
        }
    )

    title: Title
    content: ImportedContent
    source: SourceName | None = None
    """The system that the record comes from. By default the name of the import's source."""
    source_id: SourceName | None = None
    """Identifies the record in its source. By default its slug, or else its content."""
    slug: RecordSlug | None = None
    """The wanted slug. If it is taken, the article gets the next free one."""
    excerpt: Excerpt | None = None
    cover_image_url: ImageUrl | None = None
    language: Language | None = None
    tags: Annotated[list[TagName], Field(max_length=MAX_TAGS, default_factory=list)]
    published: StrictBool | None = None
    """true without `published_at`: published at the time of the import, or at its present time."""
    published_at: Moment | None = None
    """null for a draft, unless `published` is true."""
    archived: StrictBool = False
    created_at: Moment | None = None
    updated_at: Moment | None = None
    old_paths: Annotated[list[OldPath], Field(max_length=MAX_OLD_PATHS, default_factory=list)]
    """Addresses in the old system, which redirect to the article."""
    former_slugs: Annotated[
        list[RecordSlug], Field(max_length=MAX_FORMER_SLUGS, default_factory=list)
    ]
    """Slugs that the article had before, which redirect to it."""
    imported: ImportedFields | None = None
    """Fields of the old system for which an article has none, such as `canonical_url`."""
    author: Username | None = None
    """By default the importing user. Another author requires the role of an editor."""
    comment_policy: CommentPolicy | None = None
    """By default `open`, or the present one."""
    comments: CommentRecords
    """Comments that the article does not have yet are added. Others stay."""

    @model_validator(mode="after")
    def _published_or_not(self) -> Self:
        if self.published is False and self.published_at is not None:
            raise ValueError("published is false, but published_at has a date: remove one of them")
        return self
