"""Comments and reports on the readers' pages: threads, forms, and who may use them."""

from datetime import timedelta

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.enums import CommentPolicy, CommentStatus, Role
from app.models import Article, Comment, User
from app.models.community.report import Report
from tests.factories import create_article, create_comment, create_user
from tests.web.conftest import OpenAs, SignIn
from tests.web.pages import HOSTILE, Page, no_markup, visit


@pytest.fixture
async def author(session: AsyncSession) -> User:
    return await create_user(session, name="Ada")


@pytest.fixture
async def reader(session: AsyncSession) -> User:
    return await create_user(session, name="Grace")


@pytest.fixture
async def article(session: AsyncSession, author: User) -> Article:
    return await create_article(session, author=author, slug="notes", title="Notes")


def texts(page: Page) -> list[str]:
    found = page.xpath('//*[@class="comment-text"]')
    return [each.text_content().strip() for each in found]


class TestReading:
    async def test_threads_and_replies(
        self, pages: httpx.AsyncClient, session: AsyncSession, article: Article, reader: User
    ) -> None:
        first = await create_comment(session, article=article, author=reader, content="*First*")
        await create_comment(session, article=article, author=reader, content="Reply", parent=first)
        await create_comment(
            session, article=article, author=reader, content="Held", status=CommentStatus.PENDING
        )
        shown = await visit(pages, "/read/articles/notes")
        assert texts(shown) == ["First", "Reply"]
        assert shown.xpath('//*[@class="comment-text"]//em')
        assert shown.xpath('//ol[@class="replies"]//article[@class="comment"]')
        assert "2 comments" in shown.text

    async def test_removed_comment_with_replies(
        self, pages: httpx.AsyncClient, session: AsyncSession, article: Article, reader: User
    ) -> None:
        first = await create_comment(
            session, article=article, author=reader, content="Gone", deleted_at=clock.now()
        )
        await create_comment(session, article=article, author=reader, parent=first)
        shown = await visit(pages, "/read/articles/notes")
        assert texts(shown) == ["Indeed."]
        assert "This comment was removed." in shown.text

    async def test_guest(
        self, pages: httpx.AsyncClient, session: AsyncSession, article: Article
    ) -> None:
        comment = Comment(
            article_id=article.id,
            content="From a guest",
            html="<p>From a guest</p>",
            guest_name=HOSTILE,
            guest_url="https://guest.example/",
        )
        session.add(comment)
        await session.flush()
        shown = await visit(pages, "/read/articles/notes/comments")
        no_markup(shown)
        (link,) = shown.xpath('//a[@href="https://guest.example/"]')
        assert "nofollow" in link.get("rel")

    async def test_many_threads_and_replies(
        self, pages: httpx.AsyncClient, session: AsyncSession, article: Article, reader: User
    ) -> None:
        first = await create_comment(session, article=article, author=reader, content="0")
        for number in range(1, 22):
            await create_comment(session, article=article, author=reader, content=str(number))
        for number in range(25):
            await create_comment(
                session, article=article, author=reader, content=f"r{number}", parent=first
            )
        shown = await visit(pages, "/read/articles/notes")
        replies = [f"r{number}" for number in range(25)]
        assert texts(shown) == ["0", *replies[:5], *(str(number) for number in range(1, 20))]
        (more,) = shown.xpath('//a[contains(@href, "comments?cursor=")]/@href')
        assert texts(await visit(pages, more)) == ["20", "21"]
        (thread,) = shown.xpath(f'//a[@href="/read/comments/{first.id}/thread"]')
        assert thread.text == "Show all 25 replies"
        page = await visit(pages, f"/read/comments/{first.id}/thread")
        assert texts(page) == ["0", *replies[:20]]
        (more,) = page.xpath('//a[@rel="next"]/@href')
        assert texts(await visit(pages, more)) == ["0", *replies[20:]]

    async def test_closed_comments(
        self, pages: httpx.AsyncClient, session: AsyncSession, article: Article, reader: User
    ) -> None:
        article.comment_policy = CommentPolicy.CLOSED
        await create_comment(session, article=article, author=reader)
        shown = await visit(pages, "/read/articles/notes")
        assert "Comments are closed." in shown.text
        assert not shown.xpath('//a[contains(@href, "/comments/new")]')

    async def test_hidden_comments_have_no_pages(
        self, pages: httpx.AsyncClient, session: AsyncSession, article: Article, reader: User
    ) -> None:
        held = await create_comment(
            session, article=article, author=reader, status=CommentStatus.PENDING
        )
        draft = await create_article(session, author=reader, published=False)
        on_draft = await create_comment(session, article=draft, author=reader)
        reply = await create_comment(
            session,
            article=article,
            author=reader,
            parent=await create_comment(session, article=article, author=reader),
        )
        for path in (
            f"comments/{held.id}",
            f"comments/{held.id}/thread",
            f"comments/{on_draft.id}",
            f"comments/{reply.id}/thread",
            f"articles/{draft.slug}/comments",
            "comments/999999999",
        ):
            await visit(pages, f"/read/{path}", status=404)


class TestWriting:
    async def test_comment(
        self,
        pages: httpx.AsyncClient,
        session: AsyncSession,
        open_as: OpenAs,
        article: Article,
        reader: User,
    ) -> None:
        path = "/read/articles/notes/comments/new"
        asked = await pages.get(path)
        assert asked.headers["location"] == f"/studio/sign-in?next={path.replace('/', '%2F')}"
        form = await open_as(reader, path)
        shown = await form.submit(pages, content="**Well**\r\n\r\nsaid")
        assert shown.flash == ["Thank you. Your comment is published."]
        assert texts(shown) == ["Well\nsaid"]
        created = (await session.scalars(select(Comment))).one()
        assert created.content == "**Well**\n\nsaid"
        assert shown.path == f"/read/comments/{created.id}"
        assert texts(await visit(pages, "/read/articles/notes")) == ["Well\nsaid"]

    async def test_reply(
        self,
        pages: httpx.AsyncClient,
        session: AsyncSession,
        open_as: OpenAs,
        article: Article,
        reader: User,
    ) -> None:
        parent = await create_comment(session, article=article, author=reader, content="First")
        form = await open_as(reader, f"/read/articles/notes/comments/new?reply={parent.id}")
        assert texts(form) == ["First"]
        refused = await form.submit(pages, content="")
        assert (refused.status, list(refused.errors)) == (422, ["content"])
        assert texts(refused) == ["First"]
        await refused.submit(pages, content="Second")
        reply = await session.scalar(select(Comment).where(Comment.content == "Second"))
        assert reply is not None
        assert reply.parent_id == parent.id

    async def test_reply_to_a_comment_elsewhere(
        self,
        pages: httpx.AsyncClient,
        session: AsyncSession,
        sign_in: SignIn,
        article: Article,
        reader: User,
    ) -> None:
        other = await create_comment(
            session, article=await create_article(session, author=reader), author=reader
        )
        await sign_in(reader)
        path = "/read/articles/notes/comments/new"
        await visit(pages, f"{path}?reply={other.id}", status=404)
        await visit(pages, f"{path}?reply=999999999", status=404)
        await visit(pages, f"{path}?reply=x", status=422)
        form = await visit(pages, path)
        form.form(fields=["content"]).set("action", f"{path}?reply={other.id}")
        assert (await form.submit(pages, content="Foreign")).status == 404

    async def test_held_comment_waits(
        self,
        pages: httpx.AsyncClient,
        open_as: OpenAs,
        article: Article,
        reader: User,
        session: AsyncSession,
    ) -> None:
        article.comment_policy = CommentPolicy.HELD
        await session.flush()
        form = await open_as(reader, "/read/articles/notes/comments/new")
        assert "A moderator reads comments" in form.text
        shown = await form.submit(pages, content="Held")
        assert "once a moderator has approved it" in shown.flash[0]
        assert "Waits for approval" in shown.text
        assert texts(await visit(pages, "/read/articles/notes")) == []

    async def test_closed_meanwhile(
        self,
        pages: httpx.AsyncClient,
        open_as: OpenAs,
        article: Article,
        reader: User,
        session: AsyncSession,
    ) -> None:
        form = await open_as(reader, "/read/articles/notes/comments/new")
        article.comment_policy = CommentPolicy.CLOSED
        await session.flush()
        shown = await form.submit(pages, content="Too late")
        assert shown.status == 403
        assert "Comments are closed." in shown.text
        article.comment_policy, article.deleted_at = CommentPolicy.OPEN, clock.now()
        await session.flush()
        assert (await form.submit(pages, content="Too late")).status == 404

    async def test_hostile_text(
        self, pages: httpx.AsyncClient, open_as: OpenAs, article: Article, reader: User
    ) -> None:
        form = await open_as(reader, "/read/articles/notes/comments/new")
        shown = await form.submit(pages, content=f"`{HOSTILE}` {HOSTILE}")
        assert not shown.xpath('//script[contains(., "alert")] | //*[@onerror]')
        refused = await form.submit(pages, content=HOSTILE + "x" * 10_000)
        assert (refused.status, list(refused.errors)) == (422, ["content"])
        no_markup(refused)

    async def test_expired_session_keeps_the_reply(
        self,
        pages: httpx.AsyncClient,
        session: AsyncSession,
        open_as: OpenAs,
        article: Article,
        reader: User,
    ) -> None:
        parent = await create_comment(session, article=article, author=reader)
        await visit(pages, "/studio/sign-in")
        form = await open_as(reader, f"/read/articles/notes/comments/new?reply={parent.id}")
        from sqlalchemy import delete

        from app.models import UserSession

        await session.execute(delete(UserSession).where(UserSession.user_id == reader.id))
        kept = await form.submit(pages, content="Long text")
        assert kept.status == 401
        again = kept.form(f"/read/articles/notes/comments/new?reply={parent.id}")
        assert again.fields["content"] == "Long text"


class TestOwnComments:
    async def test_edit_and_delete(
        self,
        pages: httpx.AsyncClient,
        session: AsyncSession,
        sign_in: SignIn,
        article: Article,
        reader: User,
    ) -> None:
        comment = await create_comment(session, article=article, author=reader, content="Before")
        await sign_in(reader)
        path = f"/read/comments/{comment.id}"
        form = await visit(pages, f"{path}/edit")
        assert form.form(fields=["content"]).fields["content"].strip() == "Before"
        shown = await form.submit(pages, content="After")
        assert (shown.flash, texts(shown)) == (["Your comment was changed."], ["After"])
        gone = await shown.submit(pages, form=f"{path}/delete")
        assert gone.path == "/read/articles/notes"
        assert texts(gone) == []
        await visit(pages, path, status=404)

    async def test_edit_after_the_time(
        self,
        pages: httpx.AsyncClient,
        session: AsyncSession,
        open_as: OpenAs,
        article: Article,
        reader: User,
    ) -> None:
        old = clock.now() - timedelta(minutes=16)
        comment = await create_comment(session, article=article, author=reader, created_at=old)
        form = await open_as(reader, f"/read/comments/{comment.id}/edit")
        refused = await form.submit(pages, content="Too late")
        assert refused.status == 403
        assert "15 minutes" in refused.summary[0]
        assert refused.form(fields=["content"]).fields["content"].strip() == "Too late"

    @pytest.mark.parametrize("role", [Role.AUTHOR, Role.ADMIN])
    async def test_comments_of_others(
        self,
        pages: httpx.AsyncClient,
        session: AsyncSession,
        sign_in: SignIn,
        article: Article,
        reader: User,
        role: Role,
    ) -> None:
        comment = await create_comment(session, article=article, author=reader)
        own = await create_user(session, role=role)
        mine = await create_comment(session, article=article, author=own, content="Mine")
        await sign_in(own)
        path = f"/read/comments/{comment.id}"
        shown = await visit(pages, path)
        assert not shown.xpath(f'//a[@href="{path}/edit"] | //form[@action="{path}/delete"]')
        await visit(pages, f"{path}/edit", status=404)
        form = await visit(pages, f"/read/comments/{mine.id}/edit")
        form.form(fields=["content"]).set("action", f"{path}/edit")
        assert (await form.submit(pages, content="Foreign")).status == 403
        shown = await visit(pages, f"/read/comments/{mine.id}")
        form_element = shown.form(f"/read/comments/{mine.id}/delete")
        form_element.set("action", f"{path}/delete")
        refused = await shown.submit(pages, form=f"{path}/delete")
        # Editors and administrators moderate all comments.
        assert refused.status == (403 if role is Role.AUTHOR else 200)


class TestReports:
    async def test_report_a_comment(
        self,
        pages: httpx.AsyncClient,
        session: AsyncSession,
        open_as: OpenAs,
        article: Article,
        reader: User,
    ) -> None:
        comment = await create_comment(session, article=article, author=reader, content="Buy!")
        form = await open_as(await create_user(session), f"/read/comments/{comment.id}/report")
        assert texts(form) == ["Buy!"]
        shown = await form.submit(pages, reason="Advertising")
        assert "The editors will look at your report." in shown.text
        report = (await session.scalars(select(Report))).one()
        assert (report.comment_id, report.reason) == (comment.id, "Advertising")
        again = await form.submit(pages, reason="Again")
        assert (again.status, again.summary) == (409, ["You have already reported this"])

    async def test_report_an_article(
        self,
        pages: httpx.AsyncClient,
        session: AsyncSession,
        open_as: OpenAs,
        article: Article,
        reader: User,
    ) -> None:
        form = await open_as(reader, "/read/articles/notes/report")
        refused = await form.submit(pages, reason="")
        assert (refused.status, list(refused.errors)) == (422, ["reason"])
        shown = await refused.submit(pages, reason=HOSTILE)
        assert "The editors will look at your report." in shown.text
        assert (await session.scalars(select(Report))).one().article_id == article.id
        await visit(pages, "/read/articles/unknown/report", status=404)


async def test_forms_are_in_the_language_of_the_browser(
    pages: httpx.AsyncClient, sign_in: SignIn, article: Article, reader: User
) -> None:
    await sign_in(reader)
    pages.headers["Accept-Language"] = "de"
    shown = await visit(pages, "/read/articles/notes/comments/new")
    assert shown.html.get("lang") == "de"
    assert shown.xpath("//h1")[0].text == "Einen Kommentar schreiben"
    # Public pages are the same for all.
    assert (await visit(pages, "/read/articles/notes")).html.get("lang") == "en"
