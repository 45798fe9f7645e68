"""The editor: create, save, publish and schedule, and what is refused."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.enums import Role
from app.models import Article, ArticleRevision, User
from tests.factories import create_article, create_user
from tests.web.conftest import SignIn
from tests.web.pages import HOSTILE, Page, no_markup, visit


@pytest.fixture
async def author(session: AsyncSession, sign_in: SignIn) -> User:
    user = await create_user(session)
    await sign_in(user)
    return user


async def reload(session: AsyncSession, article_id: int) -> Article:
    found = await session.get(Article, article_id, populate_existing=True)
    assert found is not None
    return found


async def newest(session: AsyncSession) -> Article:
    article = await session.scalar(select(Article).order_by(Article.id.desc()).limit(1))
    assert article is not None
    return article


async def test_create_a_draft_and_publish_it(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    form = await visit(pages, "/studio/articles/new")
    shown = await form.submit(
        pages,
        form="#editor",
        title="Engines",
        content="They **weave**.",
        tags="Looms\r\nParis, Texas\r\n",
        intent="save",
    )
    assert shown.flash == ["The article was saved."]
    article = await newest(session)
    assert (article.title, article.content, article.author_id) == (
        "Engines",
        "They **weave**.",
        author.id,
    )
    assert shown.path == f"/studio/articles/{article.id}/edit"
    fields = shown.form("#editor").fields
    assert fields["tags"].split() == ["Looms", "Paris,", "Texas"]
    assert fields["slug"] == "engines"
    published = await shown.submit(pages, form="#editor", intent="publish")
    assert published.flash == ["The article is published."]
    assert (await reload(session, article.id)).published_at is not None


async def test_the_same_new_article_twice_is_created_once(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    form = await visit(pages, "/studio/articles/new")
    paths = set()
    for _attempt in range(2):
        shown = await form.submit(pages, form="#editor", title="Once", content="x", intent="save")
        assert shown.flash == ["The article was saved."]
        paths.add(shown.path)
    assert len(paths) == 1
    changed = await form.submit(pages, form="#editor", title="Once", content="y", intent="save")
    assert changed.status == 422
    assert changed.summary == ["This form was sent before. Save again to make a second article."]
    assert changed.form("#editor").fields["content"] == "y"
    other = await changed.submit(pages, form="#editor", intent="save")
    assert other.flash == ["The article was saved."]
    assert other.path not in paths


async def test_unchanged_slug_and_excerpt_stay_derived(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    article = await create_article(session, author=author, published=False, content="First text.")
    shown = await visit(pages, f"/studio/articles/{article.id}/edit")
    saved = await shown.submit(pages, form="#editor", content="Second text.", intent="save")
    assert saved.form("#editor").fields["excerpt"] == "Second text."
    changed = await saved.submit(pages, form="#editor", excerpt="My own.", slug="my-own")
    fields = changed.form("#editor").fields
    assert (fields["excerpt"], fields["slug"]) == ("My own.", "my-own")


async def test_a_refused_form_keeps_what_was_typed(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    article = await create_article(session, author=author)
    form = await visit(pages, f"/studio/articles/{article.id}/edit")
    shown = await form.submit(
        pages,
        form="#editor",
        title=" ",
        content="Typed for hours",
        tags="\n".join(f"tag {number}" for number in range(200)),
        slug="No Slug",
        language="xx-unknown",
    )
    assert shown.status == 422
    assert set(shown.errors) == {"title", "tags", "slug", "language"}
    fields = shown.form("#editor").fields
    assert fields["content"].strip() == "Typed for hours"
    assert fields["etag"] == form.form("#editor").fields["etag"]
    assert fields["tags"].count("tag") == 200


async def test_schedule_in_the_zone_of_the_browser(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    article = await create_article(session, author=author, published=False)
    form = await visit(pages, f"/studio/articles/{article.id}/edit")
    refused = await form.submit(pages, form="#editor", publish_on="soon", intent="schedule")
    assert refused.errors == {"publish_on": "Enter a date and a time."}
    shown = await form.submit(
        pages,
        form="#editor",
        publish_on="2099-05-01T09:30",
        publish_offset="+02:00",
        intent="schedule",
    )
    assert shown.flash == ["The article is scheduled."]
    scheduled = await reload(session, article.id)
    assert scheduled.published_at is not None
    assert scheduled.published_at.isoformat() == "2099-05-01T07:30:00+00:00"
    draft = await shown.submit(pages, form="#editor", intent="unpublish")
    assert draft.flash == ["The article is a draft again."]


@pytest.mark.parametrize("intent", ["archive", "unpublish"])
async def test_withdraw(
    pages: httpx.AsyncClient, session: AsyncSession, author: User, intent: str
) -> None:
    article = await create_article(session, author=author)
    form = await visit(pages, f"/studio/articles/{article.id}/edit")
    await form.submit(pages, form="#editor", intent=intent)
    stored = await reload(session, article.id)
    assert (stored.archived_at is not None, stored.published_at is None) == (
        intent == "archive",
        intent == "unpublish",
    )


class TestConcurrentEdits:
    async def open_twice(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User, content: str
    ) -> tuple[Article, Page, Page]:
        article = await create_article(session, author=author, content=content, title="Looms")
        path = f"/studio/articles/{article.id}/edit"
        return article, await visit(pages, path), await visit(pages, path)

    async def test_both_texts_are_shown_and_merged(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        article, first, second = await self.open_twice(pages, session, author, "one\ntwo\nthree")
        await first.submit(pages, form="#editor", content="one changed\ntwo\nthree")
        conflict = await second.submit(pages, form="#editor", content="one\ntwo\nthree mine")
        assert conflict.status == 412
        assert "in another window" in conflict.text
        assert conflict.xpath("//del")
        assert conflict.xpath("//ins")
        merged = conflict.form("#merge").fields["content"].strip()
        assert merged == "one changed\ntwo\nthree mine"
        saved = await conflict.submit(pages, form="#merge")
        assert saved.flash == ["The article was saved."]
        assert (await reload(session, article.id)).content == merged

    async def test_conflicting_lines_are_marked(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        article, first, second = await self.open_twice(pages, session, author, "one\ntwo")
        await first.submit(pages, form="#editor", content="one\ntheirs")
        conflict = await second.submit(pages, form="#editor", content="one\nmine")
        merged = conflict.form("#merge").fields["content"].strip()
        assert merged == "one\n<<<<<<< Your text\nmine\n=======\ntheirs\n>>>>>>> Saved text"
        kept = await conflict.submit(pages, form="#keep-mine")
        assert kept.flash == ["The article was saved."]
        assert (await reload(session, article.id)).content == "one\nmine"
        contents = await session.scalars(select(ArticleRevision.content))
        assert set(contents) == {"one\ntwo", "one\ntheirs"}

    async def test_the_other_writer_is_named(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User, sign_in: SignIn
    ) -> None:
        article, form, _ = await self.open_twice(pages, session, author, "text")
        editor = await create_user(session, role=Role.EDITOR, name="Edith Editor")
        await sign_in(editor)
        other = await visit(pages, f"/studio/articles/{article.id}/edit")
        await other.submit(pages, form="#editor", content="edited")
        await sign_in(author)
        token = (await visit(pages, "/studio/articles/new")).form("#editor").fields["csrf_token"]
        conflict = await form.submit(pages, form="#editor", content="mine", csrf_token=token)
        assert "Edith Editor has saved this article in the meantime." in conflict.text

    async def test_the_same_form_twice_is_saved_once(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        article, form, _ = await self.open_twice(pages, session, author, "text")
        for _attempt in range(2):
            shown = await form.submit(pages, form="#editor", content="sent twice")
            assert shown.flash == ["The article was saved."]
        assert (await reload(session, article.id)).version == article.version


async def test_an_article_that_was_deleted_meanwhile(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    article = await create_article(session, author=author, published=False)
    form = await visit(pages, f"/studio/articles/{article.id}/edit")
    await form.submit(pages, form="#editor", follow=True)
    article.deleted_at = clock.now()
    await session.flush()
    shown = await form.submit(pages, form="#editor", title="Kept", content="Typed for hours")
    assert (shown.status, shown.xpath("//h1")[0].text) == (404, "This article is gone")
    again = await shown.submit(pages, form="/studio/articles", intent="save")
    assert again.flash == ["The article was saved."]
    assert (await newest(session)).content == "Typed for hours"


async def test_an_expired_session_loses_nothing(
    pages: httpx.AsyncClient, session: AsyncSession, author: User, sign_in: SignIn
) -> None:
    article = await create_article(session, author=author)
    form = await visit(pages, f"/studio/articles/{article.id}/edit")
    fields = dict(form.form("#editor").form_values())
    await sign_in(author)  # the token in `form` belongs to the former session
    shown = await form.submit(pages, form="#editor", content="Typed for hours")
    assert shown.status == 403
    saved = await shown.submit(pages, content="Typed for hours")
    assert saved.flash == ["The article was saved."]
    assert fields["title"] == article.title


async def test_autosave_answers_with_the_new_state(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    article = await create_article(session, author=author, published=False)
    before = article.content
    for content in ("first", "second", "third"):
        form = await visit(pages, f"/studio/articles/{article.id}/edit")
        saved = await form.submit(pages, form="#editor", content=content, intent="autosave")
        (state,) = saved.xpath('//*[@id="saved"]')
        assert state.get("data-etag") != form.form("#editor").fields["etag"]
    assert list(await session.scalars(select(ArticleRevision.content))) == [before]
    stored = await reload(session, article.id)
    stored.edited_at = clock.now() - timedelta(minutes=11)
    await session.flush()
    form = await visit(pages, f"/studio/articles/{article.id}/edit")
    await form.submit(pages, form="#editor", content="fourth", intent="autosave")
    form = await visit(pages, f"/studio/articles/{article.id}/edit")
    await form.submit(pages, form="#editor", content="fifth", intent="save")
    contents = set(await session.scalars(select(ArticleRevision.content)))
    assert contents == {before, "third", "fourth"}


async def test_preview_is_rendered_and_safe(pages: httpx.AsyncClient, author: User) -> None:
    form = await visit(pages, "/studio/articles/new")
    token = form.form("#editor").fields["csrf_token"]
    response = await pages.post(
        "/studio/articles/preview",
        data={"csrf_token": token, "content": f"**bold** {HOSTILE}", "title": HOSTILE},
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    shown = Page(response)
    assert shown.xpath('//*[@id="preview"]//strong')[0].text == "bold"
    assert not shown.xpath('//script[contains(., "alert")] | //*[@onerror]')


async def test_markup_in_every_field(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    form = await visit(pages, "/studio/articles/new")
    hostile: dict[str, Any] = dict.fromkeys(
        ("title", "content", "excerpt", "slug", "language"), HOSTILE
    )
    refused = await form.submit(pages, form="#editor", **hostile, tags=HOSTILE, intent="save")
    assert refused.status == 422
    no_markup(refused)
    saved = await form.submit(
        pages, form="#editor", title=HOSTILE, content=HOSTILE, excerpt=HOSTILE, tags="<b>x</b>"
    )
    no_markup(saved)
    article = await newest(session)
    for path in ("/studio/articles", f"/studio/articles/{article.id}/links"):
        no_markup(await visit(pages, path))


async def test_a_text_of_one_megabyte(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    form = await visit(pages, "/studio/articles/new")
    content = ("é" * 50 + "\n") * 10_300  # 1,040,300 bytes
    saved = await form.submit(pages, form="#editor", title="Long", content=content, intent="save")
    assert saved.flash == ["The article was saved."]
    refused = await form.submit(pages, form="#editor", title="Long", content=content + "é" * 9000)
    assert set(refused.errors) == {"content"}


async def test_other_users_articles(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    other = await create_user(session)
    draft = await create_article(session, author=other, published=False)
    public = await create_article(session, author=other)
    own = await create_article(session, author=author)
    form = await visit(pages, f"/studio/articles/{own.id}/edit")
    for article, status in ((draft, 404), (public, 403)):
        path = f"/studio/articles/{article.id}"
        for page in ("edit", "revisions", "links"):
            await visit(pages, f"{path}/{page}", status=status)
        await visit(pages, f"/studio/calendar/{article.id}", status=status)
        data = dict(form.form("#editor").form_values()) | {"content": "mine now", "etag": ""}
        headers = {"Sec-Fetch-Site": "same-origin"}
        saved = await pages.post(path, data=data, headers=headers)
        deleted = await pages.post(f"{path}/delete", data=data, headers=headers)
        assert {saved.status_code, deleted.status_code} == {status}
        assert (await reload(session, article.id)).content != "mine now"


async def test_an_editor_changes_any_article(
    pages: httpx.AsyncClient, session: AsyncSession, sign_in: SignIn
) -> None:
    article = await create_article(session, author=await create_user(session), published=False)
    await sign_in(await create_user(session, role=Role.EDITOR))
    form = await visit(pages, f"/studio/articles/{article.id}/edit")
    saved = await form.submit(pages, form="#editor", content="Edited")
    assert saved.flash == ["The article was saved."]


async def test_move_to_trash_and_restore(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    article = await create_article(session, author=author, title="Looms", published=False)
    form = await visit(pages, f"/studio/articles/{article.id}/edit")
    token = form.form("#editor").fields["csrf_token"]
    headers = {"Sec-Fetch-Site": "same-origin"}
    await pages.post(
        f"/studio/articles/{article.id}/delete", data={"csrf_token": token}, headers=headers
    )
    trash = await visit(pages, "/studio/trash")
    assert trash.flash == ["The article is in the trash for 30 days."]
    assert "Looms" in trash.text
    restored = await trash.submit(pages, form=f"/studio/trash/{article.id}/restore")
    assert restored.flash == ["The article is restored."]
    article.deleted_at = clock.now() - timedelta(days=1)
    await session.flush()
    trash = await visit(pages, "/studio/trash")
    gone = await trash.submit(pages, form=f"/studio/trash/{article.id}/delete")
    assert "The trash is empty" in gone.text
