"""Bulk import and export: the article record, one JSON object per line."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import ConfigDict, Field, StrictBool, StringConstraints, model_validator

from app.schemas.articles.article import MAX_TAGS, Excerpt, Language, TagName
from app.schemas.types import (
    SLUG_PATTERN,
    Content,
    ImageUrl,
    Input,
    Moment,
    Output,
    Title,
    Username,
)

MAX_ERRORS = 100
"""The maximum number of errors, and of notes, in a report."""

RecordSlug = Annotated[str, StringConstraints(max_length=100, pattern=SLUG_PATTERN)]
"""Longer than a slug in a request: generated slugs may have a number at the end."""


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
    content: Content
    slug: RecordSlug | None = None
    """Identifies the article in the next import. By default generated from the title."""
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
    author: Username | None = None
    """By default the importing user. Another author requires the role of an editor."""

    @model_validator(mode="after")
    def _published_or_not(self) -> Self:
        if self.published is False and self.published_at is not None:
            raise ValueError("published is false, but published_at has a date: remove one of them")
        return self


class ImportFailure(Output):
    """A record that was not imported."""

    line: int
    message: str


class ImportNote(ImportFailure):
    """A change that the import made to a record."""


class ImportReport(Output):
    """The result of an import. `errors` and `notes` have the first 100 entries.

    `stopped` is the first line that was not written because of a limit; no later line was written.
    Its message says what to do. Written records stay, and the same import can be sent again.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "created": 2,
                    "updated": 0,
                    "unchanged": 0,
                    "failed": 1,
                    "stopped": None,
                    "errors": [{"line": 3, "message": "title: Field required"}],
                    "notes": [
                        {"line": 1, "message": "language: en instead of 'en-UK'"},
                    ],
                }
            ]
        }
    )

    created: int
    updated: int
    unchanged: int
    failed: int
    stopped: ImportFailure | None = None
    errors: Sequence[ImportFailure]
    notes: Sequence[ImportNote] = ()
