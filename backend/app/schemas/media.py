"""Media."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from app.schemas.page import CursorQuery, PageQuery
from app.schemas.types import TEXT_PATTERN, Id, Input, Line, Output, omitted

Alt = Annotated[
    str,
    StringConstraints(max_length=500, pattern=TEXT_PATTERN),
    AfterValidator(str.strip),
]
"""The alternative text; empty for a decorative image."""


class MediaQuery(PageQuery):
    """The owner of the images and the page of the list."""

    owner: Annotated[Id | None, Field(description="A user's id; by default your own")] = None


class LibraryQuery(CursorQuery):
    """Filters and page of the media library."""

    q: Annotated[str, Line(100)] | None = None
    """A part of the alternative text."""
    owner: Id | None = None
    everyone: bool = False
    """Whether editors see the images of all users."""
    without_alt: bool = False


class MediaUpdate(Input):
    """The fields of an image that can be changed."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"alt": "A lighthouse in the evening"}]}
    )

    alt: Alt = omitted()


class MediaVariant(Output):
    """A smaller version, always WebP."""

    width: int
    height: int
    url: str


class MediaResponse(Output):
    """A stored image, with everything for an `img` element, `srcset` included."""

    id: int
    url: str
    content_type: str
    bytes: int
    """The total size of its files, which counts against the quota."""
    width: int
    height: int
    alt: str
    color: str
    placeholder: str
    variants: list[MediaVariant]
    owner_id: int | None
    created_at: datetime
