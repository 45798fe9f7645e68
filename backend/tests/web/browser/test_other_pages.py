"""Pages that no story visits: they are accessible, and fit at all widths."""

import asyncio
from typing import Any

import pytest

from tests.web.browser.conftest import Site, Visitor

pytestmark = pytest.mark.browser


def prepare(site: Site, username: str) -> dict[str, Any]:
    """Write an article twice, comment on it, and share it. Return what addresses contain."""
    client, headers = site.api.client, site.api.bearer(username)
    new = {"title": "On looms", "content": "One.", "published": True, "tags": ["Weaving"]}
    article = client.post("/articles", json=new, headers=headers).raise_for_status().json()
    path = f"/articles/{article['id']}"
    client.patch(path, json={"content": "Two."}, headers=headers).raise_for_status()
    comment = client.post(f"{path}/comments", json={"content": "Yes."}, headers=headers)
    user = client.get("/auth/me", headers=headers).raise_for_status().json()
    return {
        "article": article["id"],
        "slug": article["slug"],
        "month": article["published_at"][:7].replace("-", "/"),
        "comment": comment.raise_for_status().json()["id"],
        "user": user["id"],
    }


async def test_pages(site: Site, visitor: Visitor) -> None:
    written = await asyncio.to_thread(prepare, site, await site.create_user())
    for pattern in (
        "/read/archive/{month}",
        "/read/articles/{slug}/comments",
        "/read/comments/{comment}/thread",
        "/studio/verify-email",
        "/studio/resend-verification",
        "/studio/confirm-registration",
    ):
        await inspect(visitor, pattern.format(**written))
    await visitor.sign_in(await site.create_user(role="admin"))
    for pattern in (
        "/read/articles/{slug}/report",
        "/studio/articles/{article}/revisions",
        "/studio/articles/{article}/links",
        "/studio/admin/users/{user}",
        "/studio/admin/users/{user}/delete",
        "/studio/admin/tags/weaving",
        "/studio/account/second-factor/codes",
        "/studio/account/second-factor/disable",
        "/studio/confirm",
    ):
        await inspect(visitor, pattern.format(**written))


async def inspect(visitor: Visitor, path: str) -> None:
    await visitor.open(path)
    await visitor.accessible()
    await visitor.fits()
