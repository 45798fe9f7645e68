"""The /changes route: a feed for static site generators and search indexers."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Query

from app.db.dependencies import ReadConnection
from app.routers.paging import Paging
from app.routers.responses import create_router
from app.schemas.articles.change import ChangesQuery, ChangesResponse
from app.services.articles import changes

router = create_router(prefix="/changes", tag="changes")


@router.get("", response_model=ChangesResponse)
async def list_changes(
    reader: ReadConnection, query: Annotated[ChangesQuery, Query()], paging: Paging
) -> Mapping[str, Any]:
    """List public changes of articles, in commit order.

    Pass `next` as `cursor` in the following request. Every change appears exactly once. On
    `created` and `updated`, read the article; on `unpublished` and `deleted`, remove it. Older
    entries may be deleted once a later entry exists for the same article.
    """
    found = await changes.list_changes(reader, query=query)
    return {"changes": paging.describe(found), "next": found.next}
