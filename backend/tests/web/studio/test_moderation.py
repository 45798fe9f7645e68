"""Moderation of comments and reports on pages."""

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.enums import CommentStatus, ReportState, Role
from app.models import Article, Comment, User
from tests.factories import create_article, create_comment, create_report, create_user
from tests.web.conftest import OpenAs
from tests.web.pages import HOSTILE, no_markup, visit

QUEUE = "/studio/moderation"
REPORTS = "/studio/moderation/reports"
COMMENTS = "/studio/moderation/comments"


@pytest.fixture
async def author(session: AsyncSession) -> User:
    return await create_user(session)


@pytest.fixture
async def article(session: AsyncSession, author: User) -> Article:
    return await create_article(session, author=author, title=f"On looms {HOSTILE}"[:200])


async def hold(session: AsyncSession, article: Article, content: str = "Indeed.") -> Comment:
    reader = await create_user(session, name="Rita")
    return await create_comment(
        session, article=article, author=reader, content=content, status=CommentStatus.PENDING
    )


async def status_of(session: AsyncSession, comment: Comment) -> CommentStatus:
    await session.refresh(comment)
    return CommentStatus(comment.status)


async def test_author_moderates_comments_on_own_articles(
    pages: httpx.AsyncClient,
    open_as: OpenAs,
    session: AsyncSession,
    author: User,
    article: Article,
) -> None:
    held = await hold(session, article, content=f"First {HOSTILE}")
    other = await hold(session, await create_article(session, author=await create_user(session)))
    shown = await open_as(author, QUEUE)
    no_markup(shown)
    assert len(shown.xpath("//ol[@data-queue]/li")) == 1
    assert "Reports" not in shown.text  # for editors
    (card,) = shown.xpath(f'//li[@id="comment-{held.id}"]')
    (value,) = card.xpath('.//input[@type="checkbox"]/@value')
    saved = await shown.submit(pages, form="#bulk", comments=[value], decision="approve")
    assert saved.flash == ["1 comment approved."]
    assert "Nothing is waiting for you" in saved.text
    assert await status_of(session, held) is CommentStatus.VISIBLE

    await hold(session, article)
    shown = await visit(pages, QUEUE)
    forged = await shown.submit(
        pages, form="#bulk", comments=[str(other.id), "999999999999", "x:y"], decision="delete"
    )
    assert forged.flash == ["2 comments no longer exist, or are not yours to moderate."]
    assert await status_of(session, other) is CommentStatus.PENDING
    assert other.deleted_at is None


async def test_changed_comment_is_not_approved(
    pages: httpx.AsyncClient,
    open_as: OpenAs,
    session: AsyncSession,
    author: User,
    article: Article,
) -> None:
    held = await hold(session, article)
    shown = await open_as(author, QUEUE)
    held.content = "Something else"
    await session.flush()
    card = f'//li[@id="comment-{held.id}"]//input[@type="checkbox"]/@value'
    saved = await shown.submit(pages, form="#bulk", comments=shown.xpath(card), decision="approve")
    assert saved.flash == ["1 comment has changed in the meantime: look at it again."]
    assert await status_of(session, held) is CommentStatus.PENDING


async def test_hidden_comments_are_shown_again(
    pages: httpx.AsyncClient,
    open_as: OpenAs,
    session: AsyncSession,
    author: User,
    article: Article,
) -> None:
    held = await hold(session, article)
    shown = await open_as(author, QUEUE)
    for decision, status in (("hide", CommentStatus.HIDDEN), ("approve", CommentStatus.VISIBLE)):
        value = shown.xpath('//ol[@data-queue]//input[@type="checkbox"]/@value')
        saved = await shown.submit(pages, form="#bulk", comments=value, decision=decision)
        assert len(saved.flash) == 1
        assert await status_of(session, held) is status
        shown = await visit(pages, f"{QUEUE}?status=hidden")


async def test_bad_input_of_the_queue(
    pages: httpx.AsyncClient,
    open_as: OpenAs,
    session: AsyncSession,
    author: User,
    article: Article,
) -> None:
    await hold(session, article)
    shown = await open_as(author, QUEUE)
    nothing = await shown.submit(pages, form="#bulk", decision="approve")
    assert nothing.status == 422
    assert nothing.summary == ["Choose at least one comment."]
    unknown = await shown.submit(pages, form="#bulk", comments=["1"], decision="burn")
    assert unknown.summary == ["Choose what to do with the comments."]
    await visit(pages, f"{QUEUE}?status=visible", status=422)
    await visit(pages, f"{QUEUE}?cursor=forged", status=422)
    away = await shown.submit(
        pages, form="#bulk", comments=["1"], decision="hide", next="//evil.example", follow=False
    )
    assert away.status_code == 303  # type: ignore[attr-defined]  # a redirect
    assert away.headers["location"] == QUEUE  # type: ignore[attr-defined]


async def test_editor_handles_reports(
    pages: httpx.AsyncClient,
    open_as: OpenAs,
    session: AsyncSession,
    author: User,
    article: Article,
) -> None:
    editor = await create_user(session, role=Role.EDITOR)
    comment = await create_comment(session, article=article, author=author, content=HOSTILE)
    report = await create_report(session, article=article, reporter=author)
    on_comment = await create_report(session, article=article, reporter=editor)
    on_comment.article_id, on_comment.comment_id = None, comment.id
    report.reason = on_comment.reason = HOSTILE
    await session.flush()
    shown = await open_as(editor, REPORTS)
    no_markup(shown)
    action = f"{REPORTS}/{report.id}"
    saved = await shown.submit(pages, form=action, state="in_review", note=f"Hm {HOSTILE}")
    assert saved.flash == ["The report was saved."]
    await session.refresh(report)
    assert (report.state, report.note) == (ReportState.IN_REVIEW, f"Hm {HOSTILE}")
    no_markup(await visit(pages, f"{REPORTS}?state=in_review"))

    hidden = await (await visit(pages, REPORTS)).submit(pages, form=COMMENTS, decision="hide")
    assert hidden.flash == ["1 comment hidden."]
    assert hidden.path == REPORTS
    assert await status_of(session, comment) is CommentStatus.HIDDEN

    chosen = hidden.xpath('//ol[@data-queue]//input[@name="reports"][@type="checkbox"]/@value')
    bulk = await hidden.submit(pages, form="#bulk", reports=[*chosen, "999"], state="resolved")
    assert bulk.flash == ["1 report changed. 1 report no longer exists."]
    await session.refresh(on_comment)
    assert on_comment.state == ReportState.RESOLVED
    stale = await hidden.submit(pages, form="#bulk", reports=chosen, state="dismissed")
    assert stale.flash == ["1 report has changed in the meantime: look at it again."]
    await session.refresh(on_comment)
    assert on_comment.state == ReportState.RESOLVED
    everything = await visit(pages, f"{REPORTS}?state=")
    assert len(everything.xpath("//ol[@data-queue]/li")) == 2
    nothing = await everything.submit(pages, form="#bulk", state="resolved")
    assert nothing.summary == ["Choose at least one report."]
    invalid = await everything.submit(pages, form=action, state="burnt")
    assert invalid.status == 422
