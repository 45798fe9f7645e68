"""Mapping from media rows to responses."""

from types import SimpleNamespace
from typing import Any

from sqlalchemy import Row

from app.core.config import get_settings
from app.models.media import Media
from app.schemas.media import MediaResponse, MediaVariant
from app.services.media.formats import SUFFIXES
from app.services.media.images import file_name, variant_file_name, variant_height

_STORED = [field for field in MediaResponse.model_fields if field in Media.__table__.columns]


def image_url(media: Media | Row[Any] | SimpleNamespace) -> str:
    """Return the URL of the image itself."""
    name = file_name(SUFFIXES[media.content_type])
    return f"{get_settings().api_url}/media/{media.folder}/{name}"


def response_to(media: Media | Row[Any] | SimpleNamespace) -> MediaResponse:
    """Return the response for an image, with the URLs of its files."""
    base = f"{get_settings().api_url}/media/{media.folder}"
    return MediaResponse(
        **{field: getattr(media, field) for field in _STORED},
        url=image_url(media),
        variants=[
            MediaVariant(
                width=width,
                height=variant_height(width, of=(media.width, media.height)),
                url=f"{base}/{variant_file_name(width)}",
            )
            for width in media.widths
        ],
    )
