"""Pictures."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from app.schemas.page import PageQuery
from app.schemas.types import TEXT_PATTERN, Id, Input, Output, omitted

Alt = Annotated[
    str,
    StringConstraints(max_length=500, pattern=TEXT_PATTERN),
    AfterValidator(str.strip),
]
"""What stands for the picture where it cannot be seen; empty where it only decorates."""


class MediaQuery(PageQuery):
    """Whose pictures, and which part of the list."""

    owner: Annotated[Id | None, Field(description="A user's id; yourself without it")] = None


class MediaUpdate(Input):
    """What of a picture can be changed."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"alt": "A lighthouse in the evening"}]}
    )

    alt: Alt = omitted()


class MediaVariant(Output):
    """A smaller copy, always WebP."""

    width: int
    height: int
    url: str


class MediaResponse(Output):
    """A stored picture: what an `img` element needs, `srcset` included."""

    id: int
    url: str
    content_type: str
    bytes: int
    """Of all its files together: what it takes of the quota."""
    width: int
    height: int
    alt: str
    color: str
    placeholder: str
    variants: list[MediaVariant]
    owner_id: int | None
    created_at: datetime
