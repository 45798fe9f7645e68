"""Moderation of several comments and reports at once."""

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.conditional import Precondition
from app.core.enums import CommentStatus, ReportState, Role
from app.core.errors import NotAuthorized
from app.db.session import Database
from app.schemas.community.report import ReportUpdate
from app.services.articles import reading
from app.services.community import reports
from app.services.community.comments import moderating
from app.services.community.comments.moderating import Decision, Moderated
from tests.factories import create_article, create_comment, create_report, create_user
from tests.test_operations import identity_of

ANY = Precondition()
OLD = Precondition(frozenset({'"old"'}))


async def test_several_comments(database: Database, session: AsyncSession) -> None:
    author = await create_user(session)
    own, foreign = (
        await create_article(session, author=author),
        await create_article(session, author=await create_user(session)),
    )
    reader = await create_user(session)
    held, changed, unread, other = [
        await create_comment(session, article=each, author=reader, status=CommentStatus.PENDING)
        for each in (own, own, own, foreign)
    ]
    async with database.unit_of_work() as unit:
        result = await moderating.moderate_comments(
            unit,
            decision=Decision.APPROVE,
            comments={held.id: ANY, changed.id: OLD, other.id: ANY, 10**12: ANY},
            actor=identity_of(author),
        )
    assert result == Moderated(done=1, changed=1, missing=2)
    for comment in (held, changed, unread, other):
        await session.refresh(comment)
    assert [each.status for each in (held, changed, unread, other)] == [
        CommentStatus.VISIBLE,
        CommentStatus.PENDING,
        CommentStatus.PENDING,
        CommentStatus.PENDING,
    ]
    for decision in (Decision.HIDE, Decision.DELETE):
        async with database.unit_of_work() as unit:
            result = await moderating.moderate_comments(
                unit, decision=decision, comments={held.id: ANY}, actor=identity_of(author)
            )
        assert result.done == 1
    await session.refresh(held)
    assert held.status == CommentStatus.HIDDEN
    assert held.deleted_at is not None


async def test_context_of_comments(database: Database, session: AsyncSession) -> None:
    author = await create_user(session)
    editor = identity_of(await create_user(session, role=Role.EDITOR))
    article = await create_article(session, author=author, title="On looms")
    comment = await create_comment(session, article=article, author=author)
    reader = database.reader
    found = await moderating.read_contexts(reader, comment_ids=[comment.id, 10**12], user=editor)
    assert found == {comment.id: (comment.id, article.id, "On looms", CommentStatus.VISIBLE)}
    assert await moderating.read_contexts(reader, comment_ids=[], user=editor) == {}
    with pytest.raises(NotAuthorized):
        await moderating.read_contexts(reader, comment_ids=[comment.id], user=identity_of(author))


async def test_titles_of_visible_articles(database: Database, session: AsyncSession) -> None:
    author, stranger = [await create_user(session) for _ in range(2)]
    public = await create_article(session, author=author)
    draft = await create_article(session, author=author, published=False)
    ids = [public.id, draft.id]
    for viewer, visible in ((author, ids), (stranger, [public.id])):
        titles = await reading.read_titles(
            database.reader, article_ids=ids, viewer=identity_of(viewer)
        )
        assert list(titles) == visible
    assert titles[public.id].title == public.title
    assert await reading.read_titles(database.reader, article_ids=[], viewer=None) == {}


async def test_several_reports(database: Database, session: AsyncSession) -> None:
    author = await create_user(session)
    editor = await create_user(session, role=Role.EDITOR)
    article = await create_article(session, author=author)
    report = await create_report(session, article=article, reporter=editor)
    stale = await create_report(session, article=article, reporter=author)
    changes = ReportUpdate(state=ReportState.RESOLVED)
    with pytest.raises(NotAuthorized):
        await reports.update_reports(
            session, reports={report.id: ANY}, changes=changes, actor=identity_of(author)
        )
    async with database.unit_of_work() as unit:
        counts = await reports.update_reports(
            unit,
            reports={report.id: ANY, stale.id: OLD, 10**12: ANY},
            changes=changes,
            actor=identity_of(editor),
        )
    assert counts == (1, 1, 1)
    await session.refresh(report)
    assert report.state == ReportState.RESOLVED
