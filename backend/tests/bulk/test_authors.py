"""Authors of other systems as users."""

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import User
from app.services.bulk.authors import resolve_authors
from app.services.bulk.foreign import SourceAuthor
from tests.factories import create_user

LI, OTHER_LI = SourceAuthor("李明", name="李明"), SourceAuthor("黎明", name="黎明")
JOHN, JOHN_SMITH = (SourceAuthor(name, name, name="John") for name in ("john smith", "john-smith"))


async def resolve(session: AsyncSession, *authors: SourceAuthor) -> tuple[list[str], list[str]]:
    """Return the usernames of authors, and those of created users."""
    found = await resolve_authors(session, authors, hashed_password="x")
    return [found.usernames[author.handle] for author in authors], list(found.created)


@pytest.mark.parametrize(
    ("authors", "first"),
    [
        ([LI, OTHER_LI], "li-ming"),
        ([JOHN, JOHN_SMITH], "john-smith"),
        ([JOHN_SMITH, JOHN], "john-smith"),
        ([SourceAuthor("n" * number, "n" * number) for number in (51, 52)], "n" * 50),
    ],
)
async def test_different_authors_are_different_users(
    session: AsyncSession, authors: list[SourceAuthor], first: str
) -> None:
    usernames, created = await resolve(session, *authors)
    assert created == usernames
    assert len(set(usernames)) == 2
    assert first in usernames
    assert max(map(len, usernames)) <= 50
    for repeated in (authors, authors[::-1], authors[:1], authors[1:]):
        expected = [usernames[authors.index(author)] for author in repeated]
        assert await resolve(session, *repeated) == (expected, [])


async def test_username_of_the_source_decides(session: AsyncSession) -> None:
    usernames, _ = await resolve(session, JOHN, JOHN_SMITH)
    assert usernames[1] == "john-smith"
    assert usernames[0].startswith("john-smith-")


async def test_spellings_of_a_name_are_one_user(session: AsyncSession) -> None:
    authors = [SourceAuthor(name, name) for name in ("Ada", "ada", "ADA")]
    assert await resolve(session, *authors) == (["Ada"] * 3, ["Ada"])
    await create_user(session, username="Bob-Smith")
    assert await resolve(session, SourceAuthor("bob smith", "bob smith")) == (["Bob-Smith"], [])


async def test_email_decides_before_the_username(session: AsyncSession) -> None:
    await create_user(session, username="li-ming", email="Li@Example.com")
    by_email = SourceAuthor("editor", "editor", email="li@example.com")
    usernames, created = await resolve(session, LI, by_email)
    assert usernames[1] == "li-ming"
    assert created == usernames[:1] != ["li-ming"]
    same = [SourceAuthor(name, name, email="new@example.com") for name in ("one", "two")]
    assert await resolve(session, *same) == (["one", "one"], ["one"])
    unusable = [SourceAuthor(name, name, email="none") for name in ("three", "four")]
    assert await resolve(session, *unusable) == (["three", "four"], ["three", "four"])
    emails = await session.scalars(select(User.email).where(User.username == "four"))
    assert emails.all() == ["four@import.invalid"]
