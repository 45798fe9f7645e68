"""The list of articles, revisions, preview links, trash, pictures and suggested tags."""

import re

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.enums import Role
from app.models import User
from tests.factories import (
    create_article,
    create_preview_link,
    create_revision,
    create_user,
)
from tests.images import image_bytes
from tests.web.conftest import SignIn
from tests.web.pages import HOSTILE, Page, no_markup, visit

HEADERS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
async def author(session: AsyncSession, sign_in: SignIn) -> User:
    user = await create_user(session)
    await sign_in(user)
    return user


def titles(page: Page) -> list[str]:
    return [each.text for each in page.xpath('//ul[@class="article-list"]//h2/a')]


class TestList:
    async def test_own_articles_by_state(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        await create_article(session, author=author, title="Draft", published=False, tags=["Looms"])
        await create_article(session, author=author, title="Public")
        await create_article(session, author=author, title="Old", archived_at=clock.now())
        await create_article(session, author=await create_user(session), title="Foreign")
        for query, expected in [
            ("", {"Draft", "Public"}),
            ("?status=draft", {"Draft"}),
            ("?status=published&sort=title", {"Public"}),
            ("?status=archived", {"Old"}),
            ("?tag=looms", {"Draft"}),
            ("?q=public", {"Public"}),
            ("?author=*", {"Draft", "Public"}),
        ]:
            assert set(titles(await visit(pages, f"/studio/articles{query}"))) == expected, query
        empty = await visit(pages, "/studio/articles?status=scheduled")
        assert "No article matches" in empty.text
        for query in ("?status=unknown", "?sort=unknown", "?cursor=forged", "?status=draft&q=%00"):
            await visit(pages, f"/studio/articles{query}", status=422)

    async def test_pages_of_the_list(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        for number in range(21):
            await create_article(session, author=author, title=f"Article {number}")
        first = await visit(pages, "/studio/articles?sort=oldest")
        assert len(titles(first)) == 20
        assert "21 articles" in first.text
        second = await visit(pages, first.xpath('//a[@rel="next"]/@href')[0])
        assert titles(second) == ["Article 20"]
        assert titles(await visit(pages, second.xpath('//a[@rel="prev"]/@href')[0])) == titles(
            first
        )

    async def test_an_editor_sees_everyones_drafts(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User, sign_in: SignIn
    ) -> None:
        await create_article(session, author=author, title="Draft", published=False)
        await sign_in(await create_user(session, role=Role.EDITOR))
        assert "Nothing written yet" in (await visit(pages, "/studio/articles")).text
        everyone = await visit(pages, "/studio/articles?author=*")
        assert titles(everyone) == ["Draft"]
        path = f"/studio/articles?author={author.username}"
        assert titles(await visit(pages, path)) == ["Draft"]

    async def test_markup_in_the_query(self, pages: httpx.AsyncClient, author: User) -> None:
        response = await pages.get("/studio/articles", params={"q": HOSTILE})
        no_markup(Page(response))


class TestRevisions:
    async def test_compare_and_restore(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        article = await create_article(session, author=author, title="After", content="new text")
        revision = await create_revision(session, article=article, title=HOSTILE)
        revision.content = "old text"
        await session.flush()
        path = f"/studio/articles/{article.id}/revisions"
        listed = await visit(pages, path)
        assert "Version 0" in listed.text
        no_markup(listed)
        compared = await visit(pages, f"{path}/{revision.id}")
        assert compared.xpath("//del[text()='old']")
        assert compared.xpath("//ins[text()='new']")
        no_markup(compared)
        restored = await compared.submit(pages, form=f"{path}/{revision.id}")
        assert restored.form("#editor").fields["content"] == "old text"
        assert restored.form("#editor").fields["title"] == HOSTILE

    async def test_not_restored_after_another_change(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        article = await create_article(session, author=author)
        revision = await create_revision(session, article=article)
        compared = await visit(pages, f"/studio/articles/{article.id}/revisions/{revision.id}")
        editor = await visit(pages, f"/studio/articles/{article.id}/edit")
        await editor.submit(pages, form="#editor", content="changed meanwhile")
        refused = await compared.submit(
            pages, form=f"/studio/articles/{article.id}/revisions/{revision.id}"
        )
        assert refused.status == 412
        assert "has changed" in refused.summary[0]

    async def test_a_revision_of_another_article(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        article = await create_article(session, author=author)
        other = await create_article(session, author=author)
        revision = await create_revision(session, article=other)
        await visit(pages, f"/studio/articles/{article.id}/revisions/{revision.id}", status=404)


class TestPreviewLinks:
    async def test_create_open_and_revoke(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        article = await create_article(session, author=author, title="Secret", published=False)
        path = f"/studio/articles/{article.id}/links"
        form = await visit(pages, path)
        refused = await form.submit(pages, form=path, expires_in_hours="0")
        assert refused.errors == {"expires_in_hours": "Enter 1 to 720 hours."}
        created = await form.submit(pages, form=path, expires_in_hours="24")
        url = created.xpath('//input[@id="link"]/@value')[0]
        target = url[url.index("/studio/previews/") :]
        pages.cookies.clear()
        shown = await visit(pages, target)
        assert "Secret" in shown.text
        assert shown.response.headers["x-robots-tag"] == "noindex"
        # Images of other hosts are shown as in the published article.
        policy = shown.response.headers["content-security-policy"]
        assert re.search(r"img-src [^;]* https:;", policy)
        assert "no-store" in shown.response.headers["cache-control"]
        await visit(pages, "/studio/previews/prv_unknown", status=404)

    async def test_revoke(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        article = await create_article(session, author=author)
        link = await create_preview_link(session, article=article)
        path = f"/studio/articles/{article.id}/links"
        listed = await visit(pages, path)
        revoked = await listed.submit(pages, form=f"{path}/{link.id}/delete")
        assert revoked.flash == ["The link no longer works."]
        assert "No preview links" in revoked.text

    async def test_a_link_of_another_article(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        other = await create_article(session, author=await create_user(session))
        link = await create_preview_link(session, article=other)
        own = await create_article(session, author=author)
        listed = await visit(pages, f"/studio/articles/{own.id}/links")
        token = listed.form(f"/studio/articles/{own.id}/links").fields["csrf_token"]
        for article, status in ((own, 404), (other, 403)):
            response = await pages.post(
                f"/studio/articles/{article.id}/links/{link.id}/delete",
                data={"csrf_token": token},
                headers=HEADERS,
            )
            assert response.status_code == status


class TestAssistance:
    async def upload(
        self, pages: httpx.AsyncClient, content: bytes | None, alt: str = ""
    ) -> httpx.Response:
        form = await visit(pages, "/studio/articles/new")
        token = form.xpath('//meta[@name="csrf-token"]/@content')[0]
        return await pages.post(
            "/studio/articles/pictures",
            data={"alt": alt},
            files={"file": ("x.jpg", content, "image/jpeg")} if content is not None else None,
            headers={**HEADERS, "X-CSRF-Token": token},
        )

    async def test_upload_a_picture(self, pages: httpx.AsyncClient, author: User) -> None:
        shown = Page(await self.upload(pages, image_bytes(), alt=HOSTILE))
        assert shown.status == 200, shown.text
        (picture,) = shown.xpath('//*[@id="picture"]')
        assert picture.get("data-alt") == HOSTILE
        no_markup(shown)
        url = picture.get("data-url")
        found = await pages.get(url[url.index("/media/") :])
        assert found.headers["content-type"] == "image/jpeg"

    async def test_refused_pictures(self, pages: httpx.AsyncClient, author: User) -> None:
        for content, message in [
            (b"<svg onload=alert(1)>", "can contain scripts"),
            (b"no image at all", "Not an image"),
            (b"", "Choose a picture"),
            (None, "Choose a picture"),
        ]:
            refused = Page(await self.upload(pages, content))
            assert refused.status == 422
            assert message in refused.summary[0]

    async def test_suggested_tags(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        await create_article(session, author=author, tags=["Looms", "Lace", "Engines"])
        shown = await visit(pages, "/studio/articles/tags?q=l")
        assert set(shown.xpath("//option/@value")) == {"Looms", "Lace"}
        none = await visit(pages, "/studio/articles/tags?q=%3Cscript%3E" + "x" * 100)
        assert not none.xpath("//option")


async def test_the_trash_of_others(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    other = await create_user(session)
    article = await create_article(session, author=other, deleted_at=clock.now(), title="Foreign")
    own = await create_article(session, author=author, deleted_at=clock.now(), title=HOSTILE)
    trash = await visit(pages, "/studio/trash")
    assert "Foreign" not in trash.text
    no_markup(trash)
    token = trash.form(f"/studio/trash/{own.id}/restore").fields["csrf_token"]
    for action in ("restore", "delete"):
        response = await pages.post(
            f"/studio/trash/{article.id}/{action}", data={"csrf_token": token}, headers=HEADERS
        )
        assert response.status_code == 404
