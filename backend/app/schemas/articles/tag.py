"""Schemas for tags."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from app.schemas.articles.article import TagName
from app.schemas.page import PageQuery
from app.schemas.types import Input, Line, Output


class TagSort(StrEnum):
    """The sort orders of the list of tags."""

    NAME = "name"
    COUNT = "count"


class TagQuery(PageQuery):
    """Filter, order and page of the list of tags."""

    q: Annotated[
        Annotated[str, Line(50)] | None,
        Field(description="A prefix of the name or of the slug, in any case"),
    ] = None
    sort: Annotated[TagSort, Field(description="By name, or by article count, highest first")] = (
        TagSort.NAME
    )


class TagUpdate(Input):
    """A tag's new name; if another tag has it, both are merged."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Steam engines"}]})

    name: TagName


class TagResponse(Output):
    """A tag, and the number of its public articles."""

    name: str
    slug: str
    article_count: int
