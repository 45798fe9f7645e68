"""/changes: what static builders and indexers follow."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Query

from app.core.errors import InvalidCursor
from app.db.dependencies import ReadConnection
from app.routers.paging import LINKED, Paging
from app.routers.responses import create_router, errors
from app.schemas.change import ChangesQuery, ChangesResponse
from app.services import changes

router = create_router(prefix="/changes", tag="changes")


@router.get(
    "",
    response_model=ChangesResponse,
    responses={**LINKED, **errors(InvalidCursor)},
)
async def list_changes(
    connection: ReadConnection, query: Annotated[ChangesQuery, Query()], paging: Paging
) -> Mapping[str, Any]:
    """List what became of published articles, in the order in which readers could see it.

    Ask again with `next`: no change is ever left out, and none comes twice. `created` and `updated`
    both mean to read the article, `unpublished` and `deleted` to drop it. An older entry may be
    gone that a later one of the same article has overtaken.
    """
    found = await changes.list_changes(connection, query=query)
    return {"changes": paging.describe(found), "next": found.next}
