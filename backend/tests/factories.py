"""Factories: async functions that add rows to a session, with defaults for all columns."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from faker import Faker
from sqlalchemy import insert, null
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import sealing
from app.auth.security import create_access_token, hash_password
from app.auth.tokens import HINT_LENGTH, fingerprint, new_api_key, new_preview_token
from app.content.markdown import render_comment, render_sync
from app.content.slugs import slugify
from app.core import clock
from app.core.enums import EventKind, ImportState, Role
from app.db.session import Database
from app.models import (
    Address,
    ApiKey,
    Article,
    ArticleRevision,
    Comment,
    Import,
    Mail,
    Media,
    PreviewLink,
    Report,
    User,
    UserSession,
    Webhook,
    WebhookDelivery,
)
from app.services.articles.rendering import rendered_columns
from app.services.articles.tagging import add_tags, lock_tags, tags_named
from app.services.integrations.events import latest_position
from app.services.integrations.signing import new_secret

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
    connection = await session.connection()  # most tests need no object for it
    (_sessions[user.id],) = (await connection.execute(OPEN_SESSION, session_columns(user))).one()
    return user


def session_columns(user: User) -> dict[str, Any]:
    """Return the columns of a session without a client address."""
    now = clock.now()
    return {
        "user_id": user.id,
        "token_hash": b"",
        "created_at": now,
        "last_used_at": now,
        "expires_at": now + timedelta(days=30),
        "user_agent": "",
    }


OPEN_SESSION = insert(UserSession).returning(UserSession.id)


async def create_session(session: AsyncSession, *, user: User) -> UserSession:
    login = UserSession(**session_columns(user))
    session.add(login)
    await session.flush()
    return login


async def create_article(
    session: AsyncSession, *, author: User, tags: Sequence[str] = (), **columns: Any
) -> Article:
    """Create an article, by default published now. See `new_article` for `columns`."""
    (article,) = await create_articles(session, [{"tags": tags, **columns}], author=author)
    return article


async def create_articles(
    session: AsyncSession, articles: Iterable[Mapping[str, Any]], *, author: User
) -> list[Article]:
    """Create articles with few statements. Each has the arguments of `create_article`."""
    rows = [dict(each) for each in articles]
    tags = [row.pop("tags", ()) for row in rows]
    made = [new_article(**{"author": author, **row}) for row in rows]
    session.add_all(made)
    await session.flush()
    if any(tags):
        locked = (await lock_tags(session, chain.from_iterable(tags))).by_key
        tagged = zip(made, tags, strict=True)
        await add_tags(session, {each.id: tags_named(locked, names) for each, names in tagged})
    return made


def new_article(
    *,
    author: User,
    title: str | None = None,
    content: str | None = None,
    slug: str | None = None,
    published: bool = True,
    published_at: datetime | None = None,
    **columns: Any,
) -> Article:
    """Return an article, by default published now. `columns` are further columns of its row."""
    title = title or fake.sentence(nb_words=6)
    content = content or fake.paragraph(nb_sentences=5)
    return Article(
        title=title,
        content=content,
        slug=slug or f"{slugify(title)}-{next(_numbers)}",
        published_at=published_at or (clock.now() if published else None),
        author_id=author.id,
        **{**rendered_columns(render_sync(content), own_excerpt=None), **columns},
    )


async def create_comment(
    session: AsyncSession,
    *,
    article: Article,
    author: User,
    content: str = "Indeed.",
    parent: Comment | None = None,
    **columns: Any,
) -> Comment:
    """Create a visible comment, or a reply to `parent`. `columns` are further columns."""
    comment = Comment(
        article_id=article.id,
        author_id=author.id,
        content=content,
        html=render_comment(content),
        root_id=parent and (parent.root_id or parent.id),
        parent_id=parent and parent.id,
        **columns,
    )
    session.add(comment)
    await session.flush()
    return comment


async def create_report(session: AsyncSession, *, article: Article, reporter: User) -> Report:
    report = Report(article_id=article.id, reporter_id=reporter.id, reason="Advertising")
    session.add(report)
    await session.flush()
    return report


async def create_revision(
    session: AsyncSession, *, article: Article, title: str = "Before", version: int = 0
) -> ArticleRevision:
    revision = ArticleRevision(
        article_id=article.id,
        version=version,
        title=title,
        content=fake.paragraph(nb_sentences=5),
        author_id=article.author_id,
        created_at=clock.now(),
    )
    session.add(revision)
    await session.flush()
    return revision


async def create_preview_link(
    session: AsyncSession, *, article: Article, token: str | None = None
) -> PreviewLink:
    now = clock.now()
    link = PreviewLink(
        article_id=article.id,
        token_hash=fingerprint(token or new_preview_token()),
        created_by=article.author_id,
        created_at=now,
        expires_at=now + timedelta(hours=1),
    )
    session.add(link)
    await session.flush()
    return link


async def create_import(session: AsyncSession, *, user: User, **columns: Any) -> Import:
    """Create an import that has ended. `columns` are further columns of its row."""
    now = clock.now()
    values: dict[str, Any] = {
        "state": ImportState.COMPLETED,
        "format": "ndjson",
        "dry_run": False,
        "report": "{}",
        "created_at": now,
        "active_at": now,
        "finished_at": now,
    }
    row = Import(user_id=user.id, **{**values, **columns})
    session.add(row)
    await session.flush()
    return row


async def create_mail(session: AsyncSession, **columns: Any) -> Mail:
    """Create a mail that waits for delivery. `columns` are further columns of its row."""
    mail = Mail(**{"kind": "verify_email", "email": "reader@example.com", **columns})
    session.add(mail)
    await session.flush()
    return mail


async def create_media(session: AsyncSession, *, owner: User | None) -> Media:
    """Create an image without files. `owner` is None for an image of a deleted user."""
    media = Media(
        owner_id=owner.id if owner else None,
        folder=f"{next(_numbers):032x}",
        content_type="image/jpeg",
        bytes=1000,
        width=400,
        height=300,
        widths=[320],
        alt="",
        color="#aabbcc",
        placeholder="data:image/webp;base64,",
    )
    session.add(media)
    await session.flush()
    return media


async def author_of(database: Database, **columns: Any) -> User:
    """Create a user in a unit of work of its own."""
    async with database.unit_of_work() as session:
        return await create_user(session, **columns)


async def article_of(database: Database, author: User, **columns: Any) -> Article:
    """Create an article in a unit of work of its own."""
    async with database.unit_of_work() as session:
        return await create_article(session, author=author, **columns)


async def create_webhook(
    session: AsyncSession, *, owner: User, url: str = "https://example.com/hook", **columns: Any
) -> tuple[Webhook, str]:
    """Create a subscription to all events from now on; return it and its secret."""
    position, secret = await latest_position(session), new_secret()
    values: dict[str, Any] = {
        "events": [kind.value for kind in EventKind],
        "payload_version": 1,
        "is_active": True,
        "failures": 0,
        "event_xid": position.xid,
        "event_id": position.id,
        "sealed_secret": sealing.seal(secret, purpose=sealing.WEBHOOK),
    }
    webhook = Webhook(owner_id=owner.id, url=url, **values | columns)
    session.add(webhook)
    await session.flush()
    return webhook, secret


async def create_webhook_delivery(
    session: AsyncSession, *, webhook: Webhook, **columns: Any
) -> WebhookDelivery:
    """Create a delivery that was given up. `columns` are further columns of its row."""
    values: dict[str, Any] = {"kind": "test", "next_attempt_at": null(), **columns}
    delivery = WebhookDelivery(webhook_id=webhook.id, **values)
    session.add(delivery)
    await session.flush()
    return delivery


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
    """Return the headers of `user`, by default for the session that `create_user` opened."""
    session_id = login.id if login else _sessions[user.id]
    token = create_access_token(user_id=user.id, session_id=session_id)
    return {"Authorization": f"Bearer {token}"}


async def api_key(session: AsyncSession, *, user: User, scopes: Sequence[str]) -> dict[str, str]:
    """Create an API key of `user`, and return its headers."""
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
