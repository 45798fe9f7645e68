"""Rows for tests: typed async functions with sensible values where a test does not care."""

from faker import Faker
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.security import create_access_token, hash_password
from app.core.roles import Role
from app.models import Address, Article, User

PASSWORD = "correct horse battery"

fake = Faker()
fake.seed_instance(1815)

_hashes: dict[str, str] = {}
_numbers = iter(range(1, 10**9))


async def create_user(
    session: AsyncSession,
    *,
    username: str | None = None,
    email: str | None = None,
    name: str | None = None,
    password: str = PASSWORD,
    role: Role = Role.AUTHOR,
    is_active: bool = True,
) -> User:
    if password not in _hashes:
        _hashes[password] = await hash_password(password)
    username = username or f"user{next(_numbers)}"
    user = User(
        username=username,
        email=email or f"{username}@example.com",
        name=name or fake.name(),
        hashed_password=_hashes[password],
        role=role,
        is_active=is_active,
    )
    session.add(user)
    await session.flush()
    return user


async def create_article(
    session: AsyncSession,
    *,
    author: User,
    title: str | None = None,
    content: str | None = None,
    published: bool = True,
) -> Article:
    article = Article(
        title=title or fake.sentence(nb_words=6),
        content=content or fake.paragraph(nb_sentences=5),
        published=published,
        author_id=author.id,
    )
    session.add(article)
    await session.flush()
    return article


async def create_address(session: AsyncSession, *, user: User, label: str = "home") -> Address:
    address = Address(
        user_id=user.id,
        label=label,
        line1=fake.street_address(),
        city=fake.city(),
        postal_code=fake.postcode(),
        country="GB",
    )
    session.add(address)
    await session.flush()
    return address


def bearer(user: User) -> dict[str, str]:
    """The headers with which `user` asks."""
    return {"Authorization": f"Bearer {create_access_token(user_id=user.id).access_token}"}
