"""Filters of lists: query parameters of forms, whose empty fields count as omitted."""

from typing import Annotated, Any, TypeVar

from fastapi import Path, Request
from pydantic import BaseModel

from app.schemas.types import Id

Schema = TypeVar("Schema", bound=BaseModel)

ObjectId = Annotated[Id, Path()]
"""The id of an object in a path."""


def read_query(request: Request, schema: type[Schema], **fixed: Any) -> Schema:
    """Return an instance of `schema` with the fields of the query that are not empty.

    `fixed` values replace those of the query. Raises pydantic.ValidationError, which shows an error
    page.
    """
    given = request.query_params.items()
    values = {name: value for name, value in given if value and name in schema.model_fields}
    return schema.model_validate({**values, **fixed})
