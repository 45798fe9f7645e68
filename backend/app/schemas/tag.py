"""Tags, as anybody sees them and as an editor changes them."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from app.schemas.article import TagName
from app.schemas.page import PageQuery
from app.schemas.types import Input, Line, Output


class TagSort(StrEnum):
    """The orders of the list of tags."""

    NAME = "name"
    COUNT = "count"


class TagQuery(PageQuery):
    """Which tags, and in which order."""

    q: Annotated[
        str | None, Line(50), Field(description="How the name begins, in whatever spelling")
    ] = None
    sort: Annotated[TagSort, Field(description="By name, or the most used first")] = TagSort.NAME


class TagUpdate(Input):
    """A tag's other name; where another tag has it already, the two become one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Steam engines"}]})

    name: TagName


class TagResponse(Output):
    """A tag, and how many articles readers find under it."""

    name: str
    slug: str
    article_count: int
