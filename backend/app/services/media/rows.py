"""Mapping from media rows to responses."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from app.core.config import get_settings
from app.schemas.media import MediaResponse, MediaVariant
from app.services.media.formats import SUFFIXES
from app.services.media.pictures import file_name, variant_file_name, variant_height


class MediaRow(Protocol):
    """The columns of a media row: of a model or of a result row."""

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
    """Return the response for an image, with the URLs of its files."""
    base = f"{get_settings().api_url}/media/{media.folder}"
    return MediaResponse(
        id=media.id,
        url=f"{base}/{file_name(SUFFIXES[media.content_type])}",
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
                height=variant_height(width, of=(media.width, media.height)),
                url=f"{base}/{variant_file_name(width)}",
            )
            for width in media.widths
        ],
        owner_id=media.owner_id,
        created_at=media.created_at,
    )
