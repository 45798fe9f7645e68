"""Schemas for preview links."""

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field

from app.schemas.accounts.user import UserPublic
from app.schemas.types import Input, Output, WithoutPoint

DEFAULT_HOURS = 72
MAX_HOURS = 30 * 24


class PreviewLinkCreate(Input):
    """The lifetime of a new preview link."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"expires_in_hours": 24}]})

    expires_in_hours: Annotated[int, Field(strict=True, ge=1, le=MAX_HOURS), WithoutPoint] = (
        DEFAULT_HOURS
    )


class PreviewLinkResponse(Output):
    """A preview link without its token."""

    id: int
    created_at: datetime
    expires_at: datetime
    created_by: UserPublic | None
    """null if the account was deleted."""


class PreviewLinkCreated(Output):
    """A new preview link. Its token is returned only once."""

    id: int
    url: str
    """The front end's URL, which reads `GET /previews/{token}`."""
    token: str
    expires_at: datetime
