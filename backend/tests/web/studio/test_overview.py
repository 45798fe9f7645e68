"""The first page of the studio: the numbers of what waits for a user."""

from datetime import timedelta

import pytest
from sqlalchemy import null
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.core.enums import CommentStatus, ReportState, Role
from app.db.session import Database
from app.models import Mail, User
from app.services import overview
from app.web.studio import overview as overview_page
from tests.factories import create_article, create_comment, create_report, create_user
from tests.test_lists import statements
from tests.test_operations import identity_of
from tests.web.conftest import OpenAs


@pytest.fixture
async def author(session: AsyncSession) -> User:
    return await create_user(session)


@pytest.fixture(autouse=True)
async def waiting(session: AsyncSession, author: User) -> None:
    """Create articles of two authors, comments, reports and mails."""
    other, now = await create_user(session), clock.now()
    later = now + timedelta(days=1)
    for owner, number in ((author, 2), (other, 1)):
        for _ in range(number):
            await create_article(session, author=owner, published=False)
        await create_article(session, author=owner, published_at=later)
        await create_article(session, author=owner, published=False, deleted_at=now)
        article = await create_article(session, author=owner)
        for status in CommentStatus:
            await create_comment(session, article=article, author=other, status=status)
        await create_report(session, article=article, reporter=author)
        done = await create_report(session, article=article, reporter=other)
        done.state = ReportState.RESOLVED
    for sent, due in ((None, null()), (now, null()), (None, now)):
        session.add(
            Mail(
                kind="verify_email",
                email="a@example.com",
                created_at=now,
                sent_at=sent,
                next_attempt_at=due,
                text="",
            )
        )
    await session.flush()


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        (Role.AUTHOR, {"Drafts": "2", "Scheduled": "1", "Held comments": "1"}),
        (
            Role.EDITOR,
            {"Drafts": "2", "Scheduled": "1", "Held comments": "2", "Open reports": "2"},
        ),
        (
            Role.ADMIN,
            {
                "Drafts": "2",
                "Scheduled": "1",
                "Held comments": "2",
                "Open reports": "2",
                "Failed mails": "1",
            },
        ),
    ],
)
async def test_numbers(
    open_as: OpenAs,
    session: AsyncSession,
    author: User,
    role: Role,
    expected: dict[str, str],
) -> None:
    author.role = role
    await session.flush()
    shown = await open_as(author, "/studio")
    cards = [each.text_content().split(maxsplit=1) for each in shown.xpath('//*[@id="waiting"]//a')]
    assert {label.strip(): number for number, label in cards} == expected


async def test_large_numbers_are_not_counted(
    open_as: OpenAs, author: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview_page, "MAX_COUNTED", 1)
    shown = await open_as(author, "/studio")
    assert shown.xpath('//*[@id="waiting"]//strong')[0].text == "1+"


async def test_numbers_need_one_statement(
    database: Database, connection: AsyncConnection, session: AsyncSession, author: User
) -> None:
    author.role = Role.ADMIN
    await session.flush()
    with statements(connection) as executed:
        await overview.count_waiting(database.reader, user=identity_of(author))
    assert len(executed) == 1
