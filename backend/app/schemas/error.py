"""The error response, for OpenAPI. core.errors builds it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Finding(BaseModel):
    """A validation error: its location, message and type."""

    loc: list[str | int]
    msg: str
    type: str


class ErrorBody(BaseModel):
    """An error: `message` for users, `code` for programs, `request_id` for operators.

    OpenAPI has a subclass for each code (`routers.responses`).
    """

    model_config = ConfigDict(extra="forbid")

    success: Literal[False]
    message: str
    detail: str
    code: str
    request_id: str | None
