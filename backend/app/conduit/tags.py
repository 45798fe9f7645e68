"""The tags of published articles."""

from typing import Any

from app.conduit.routing import create_router
from app.conduit.schemas import TagsResponse
from app.db.dependencies import ReadConnection
from app.schemas.articles.tag import TagQuery, TagSort
from app.schemas.page import MAX_LIMIT
from app.services.articles import tags

router = create_router("Tags")


@router.get("/tags", response_model=TagsResponse)
async def list_tags(connection: ReadConnection) -> dict[str, Any]:
    """List the names of tags, the most used first."""
    query = TagQuery(sort=TagSort.COUNT, limit=MAX_LIMIT)
    listed = await tags.list_tags(connection, query=query, viewer=None)
    return {"tags": [tag.name for tag in listed]}
