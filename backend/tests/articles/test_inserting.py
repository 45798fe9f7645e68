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


RESPONSES: dict[str, dict[str, Any]] = {
    "published": FIELDS,
    "draft": {"title": "Notes", "content": "# One\n\nTwo.", "tags": ["Engines", "weaving"]},
    "scheduled": {"title": "Later", "content": "…", "published_at": "2090-01-01T05:06:07.5+02:00"},
    "earlier": {"title": "Then", "content": "x", "published_at": "2020-01-01T05:06:07-03:00"},
    "closed": {**FIELDS, "comment_policy": "closed", "language": "de", "excerpt": None},
}


@pytest.mark.parametrize("are_listed", [True, False])
@pytest.mark.parametrize("name", RESPONSES)
async def test_response_is_what_a_read_returns(
    client: httpx.AsyncClient, session: AsyncSession, name: str, *, are_listed: bool
) -> None:
    author = bearer(await create_user(session))
    if are_listed:
        assert (await client.post("/articles", json=FIELDS, headers=author)).is_success
    created = await client.post("/articles", json=RESPONSES[name], headers=author)
    assert created.status_code == 201, created.text
    read = await client.get(created.headers["Location"], headers=author)
    assert created.content == read.content


@pytest.mark.parametrize("path", REQUESTS)
async def test_articles_store_the_names_of_listed_tags(
    client: httpx.AsyncClient, session: AsyncSession, path: str
) -> None:
    url, body, content_type, _ = REQUESTS[path]
    for _ in range(2):
        author = await create_user(session)
        headers = {**bearer(author), "Content-Type": content_type}
        await client.post(url, content=json.dumps(body).encode() + b"\n", headers=headers)
    stored = text("""
        SELECT tag_names, tag_names_in_order FROM articles WHERE author_id = :author_id
    """)
    names, in_order = (await session.execute(stored, {"author_id": author.id})).one()
    assert names == ["Engines", "weaving"]
    assert in_order == ["weaving", "Engines"]
