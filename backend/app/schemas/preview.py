"""Preview links, as those who may change the article make and see them."""

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field

from app.schemas.types import Input, Output, WithoutPoint
from app.schemas.user import UserPublic

DEFAULT_HOURS = 72
MAX_HOURS = 30 * 24


class PreviewLinkCreate(Input):
    """For how long a link shows the article."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"expires_in_hours": 24}]})

    expires_in_hours: Annotated[int, Field(strict=True, ge=1, le=MAX_HOURS), WithoutPoint] = (
        DEFAULT_HOURS
    )


class PreviewLinkResponse(Output):
    """A preview link without what it consists of."""

    id: int
    created_at: datetime
    expires_at: datetime
    created_by: UserPublic | None
    """null when they have left."""


class PreviewLinkCreated(Output):
    """A new preview link. Its token is shown here and never again."""

    id: int
    url: str
    """Where the front end shows the article, by `GET /previews/{token}`."""
    token: str
    expires_at: datetime
