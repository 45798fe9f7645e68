"""What a picture looks like from outside."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from app.core.config import get_settings
from app.schemas.media import MediaResponse, MediaVariant
from app.services.media.formats import SUFFIXES
from app.services.media.pictures import height_of_copy, name_of, name_of_copy


class MediaRow(Protocol):
    """The columns of a picture, in whatever they come."""

    @property
    def id(self) -> int: ...
    @property
    def owner_id(self) -> int | None: ...
    @property
    def folder(self) -> str: ...
    @property
    def content_type(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def widths(self) -> Sequence[int]: ...
    @property
    def alt(self) -> str: ...
    @property
    def color(self) -> str: ...
    @property
    def placeholder(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...


def response_to(media: MediaRow) -> MediaResponse:
    """The picture with the addresses of its files."""
    base = f"{get_settings().api_url}/media/{media.folder}"
    return MediaResponse(
        id=media.id,
        url=f"{base}/{name_of(SUFFIXES[media.content_type])}",
        content_type=media.content_type,
        bytes=media.bytes,
        width=media.width,
        height=media.height,
        alt=media.alt,
        color=media.color,
        placeholder=media.placeholder,
        variants=[
            MediaVariant(
                width=width,
                height=height_of_copy(width, of=(media.width, media.height)),
                url=f"{base}/{name_of_copy(width)}",
            )
            for width in media.widths
        ],
        owner_id=media.owner_id,
        created_at=media.created_at,
    )
