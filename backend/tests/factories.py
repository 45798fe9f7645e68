"""Rows for tests: typed async functions with sensible values where a test does not care."""

from collections.abc import Sequence
from datetime import timedelta

from faker import Faker
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.security import create_access_token, hash_password
from app.auth.tokens import HINT_LENGTH, fingerprint, new_api_key
from app.core import clock
from app.core.roles import Role
from app.models import Address, ApiKey, Article, User, UserSession

PASSWORD = "correct horse battery"

fake = Faker()
fake.seed_instance(1815)

_hashes: dict[str, str] = {}
_sessions: dict[int, int] = {}
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
    _sessions[user.id] = (await create_session(session, user=user)).id
    return user


async def create_session(session: AsyncSession, *, user: User) -> UserSession:
    """A login of `user`, from nowhere in particular."""
    now = clock.now()
    login = UserSession(
        user_id=user.id,
        token_hash=b"",
        created_at=now,
        last_used_at=now,
        expires_at=now + timedelta(days=30),
        user_agent="",
    )
    session.add(login)
    await session.flush()
    return login


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


def bearer(user: User, login: UserSession | None = None) -> dict[str, str]:
    """The headers with which `user` asks, in the session that `create_user` opened or another."""
    session_id = login.id if login else _sessions[user.id]
    token = create_access_token(user_id=user.id, session_id=session_id)
    return {"Authorization": f"Bearer {token}"}


async def api_key(session: AsyncSession, *, user: User, scopes: Sequence[str]) -> dict[str, str]:
    """The headers with which a program of `user` asks."""
    text = new_api_key()
    await create_api_key(session, user=user, scopes=scopes, text=text)
    return {"Authorization": f"Bearer {text}"}


async def create_api_key(
    session: AsyncSession,
    *,
    user: User,
    scopes: Sequence[str] = (),
    text: str | None = None,
) -> ApiKey:
    text = text or new_api_key()
    key = ApiKey(
        user_id=user.id,
        name="a program",
        hint=text[:HINT_LENGTH],
        token_hash=fingerprint(text),
        scopes=list(scopes),
    )
    session.add(key)
    await session.flush()
    return key
