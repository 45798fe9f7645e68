"""Both APIs and imports insert articles by the same rules."""

import json
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.factories import bearer, create_user

FIELDS: dict[str, Any] = {
    "title": "Notes on the Engine",
    "content": "The Engine **weaves** patterns.",
    "excerpt": "What it weaves",
    "tags": ["weaving", "Engines"],
    "published": True,
}
CONDUIT_FIELDS = {
    "title": FIELDS["title"],
    "body": FIELDS["content"],
    "description": FIELDS["excerpt"],
    "tagList": FIELDS["tags"],
}
REQUESTS = {
    "native": ("/articles", FIELDS, "application/json", 201),
    "conduit": ("/api/articles", {"article": CONDUIT_FIELDS}, "application/json", 201),
    "import": ("/articles/import", FIELDS, "application/x-ndjson", 200),
}
STORED = text("""
    SELECT to_jsonb(a) AS article,
      ARRAY(SELECT t.key FROM article_tags s JOIN tags t ON t.id = s.tag_id
            WHERE s.article_id = a.id ORDER BY s.position) AS tags
    FROM articles a WHERE author_id = :author_id
""")
DIFFERENT = {"id", "slug", "author_id"}
TIMES = ("published_at", "created_at", "updated_at", "edited_at", "dated_at")


@pytest.mark.parametrize("path", ["conduit", "import"])
async def test_paths_store_the_same_columns(
    client: httpx.AsyncClient, session: AsyncSession, path: str
) -> None:
    stored = []
    for name in ("native", path):
        url, body, content_type, status = REQUESTS[name]
        author = await create_user(session)
        response = await client.post(
            url,
            content=json.dumps(body).encode() + b"\n",
            headers={**bearer(author), "Content-Type": content_type},
        )
        assert response.status_code == status, response.text
        article, tags = (await session.execute(STORED, {"author_id": author.id})).one()
        assert tags == ["weaving", "engines"]
        assert len({article.pop(time) for time in TIMES}) == 1
        assert article.pop("edited_by") == author.id
        stored.append({name: value for name, value in article.items() if name not in DIFFERENT})
    assert stored[0] == stored[1]
