"""The one shape of every error, for OpenAPI; core.errors makes it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from app.schemas.types import omitted


class Finding(BaseModel):
    """One thing that is wrong with the input: where, what, and of which kind."""

    loc: list[str | int]
    msg: str
    type: str


class ErrorBody(BaseModel):
    """An error: `message` for people, `code` for programs, `request_id` for the operator.

    `challenge` comes with the code `second_factor_required` alone, `limit` with `limit_reached` and
    `quota_exceeded`: the kind of limit.
    """

    model_config = ConfigDict(extra="forbid")

    success: Literal[False]
    message: str
    detail: str | list[Finding]
    code: str
    request_id: str | None
    challenge: str = omitted()
    limit: str = omitted()
