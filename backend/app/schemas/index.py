"""The response of the root path."""

from typing import Literal

from app.schemas.types import Output


class Index(Output):
    """What this server is, with paths on the same host."""

    name: Literal["Pressroom"] = "Pressroom"
    description: str = "A headless blog backend. This is its API; a front end shows the site."
    version: str
    documentation: str = "/docs"
    reference: str = "/redoc"
    openapi: str = "/openapi.json"
    health: str = "/health"
