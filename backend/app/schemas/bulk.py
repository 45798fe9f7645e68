"""Articles in bulk: the record that is imported and exported, one JSON object a line."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import ConfigDict, Field, StrictBool, StringConstraints, model_validator

from app.schemas.article import MAX_TAGS, Excerpt, Language, TagName
from app.schemas.types import Content, ImageUrl, Input, Moment, Output, Title, Username

MAX_ERRORS = 100
"""How many bad records, and how many notes, an answer lists."""

RecordSlug = Annotated[str, StringConstraints(max_length=100, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
"""As long as any that we have made: a number at its end may make one longer than a wished one."""


class ArticleRecord(Input):
    """An article as it is exported and imported: what its author wrote, and nothing made of it."""

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
    """What the next import knows it by; made from the title where it is not given."""
    excerpt: Excerpt | None = None
    cover_image_url: ImageUrl | None = None
    language: Language | None = None
    tags: Annotated[list[TagName], Field(max_length=MAX_TAGS, default_factory=list)]
    published: StrictBool | None = None
    """true without `published_at`: published from the import on, or since it was before."""
    published_at: Moment | None = None
    """null: a draft, unless `published` is true."""
    archived: StrictBool = False
    created_at: Moment | None = None
    updated_at: Moment | None = None
    author: Username | None = None
    """The importer where it is not given; another takes an editor."""

    @model_validator(mode="after")
    def _published_or_not(self) -> Self:
        if self.published is False and self.published_at is not None:
            raise ValueError(
                "published is false and published_at has a date: leave one of them out"
            )
        return self


class ImportFailure(Output):
    """A record that was not imported."""

    line: int
    message: str


class ImportNote(ImportFailure):
    """How a record was changed by the import."""


class ImportReport(Output):
    """What an import did; `errors` and `notes` have the first 100.

    `stopped` is the first line that was not written because a limit was reached, with what to do;
    no later line was written either. What was written stays: the same import can be sent again.
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
                        {"line": 1, "message": "language: en in place of 'en-UK'"},
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
