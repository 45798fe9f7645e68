"""The error response, for OpenAPI. core.errors builds it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from app.schemas.types import omitted


class Finding(BaseModel):
    """A validation error: its location, message and type."""

    loc: list[str | int]
    msg: str
    type: str


class ErrorBody(BaseModel):
    """An error: `message` for users, `code` for programs, `request_id` for operators.

    `challenge` is only present with the code `second_factor_required`. `limit` is the kind of
    limit, for the codes `limit_reached` and `quota_exceeded`.
    """

    model_config = ConfigDict(extra="forbid")

    success: Literal[False]
    message: str
    detail: str | list[Finding]
    code: str
    request_id: str | None
    challenge: str = omitted()
    limit: str = omitted()
