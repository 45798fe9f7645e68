"""Example data in bulk, the same for the same seed: for trying things out and for measuring."""

import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.security import hash_password
from app.core import clock
from app.core.config import SetupError
from app.core.errors import InvalidInput
from app.models.article import Article
from app.models.user import User

RANDOM_SEED = 20_260_101
PASSWORD = "pressroom-demo"  # noqa: S105 - known on purpose: production refuses to be seeded
DEMO_USERNAME = "demo"
DEMO_EMAIL = "demo@example.com"
BATCH = 1000
SENTENCES = 400
MEAN_CONTENT_LENGTH = 2000
MINUTES_BETWEEN_ARTICLES = 7
PUBLISHED_SHARE = 0.9

Progress = Callable[[int], None]

USER_COLUMNS = (
    "email",
    "username",
    "name",
    "hashed_password",
    "email_verified_at",
    "created_at",
    "updated_at",
)
ARTICLE_COLUMNS = ("title", "content", "published", "author_id", "created_at", "updated_at")


async def seed(session: AsyncSession, *, users: int, articles: int, advance: Progress) -> None:
    """Add `users` authors and `articles` of theirs, 2 KB each, nine in ten published.

    `advance` is told how many rows were just written. All authors share one password. Rows go in
    by COPY, in the session's unit of work. Raises InvalidInput where articles would have no author.
    """
    highest_id = await session.scalar(select(func.coalesce(func.max(User.id), 0))) or 0
    generator = random.Random(RANDOM_SEED + highest_id)  # noqa: S311 - reproducible, not secret
    fake = _faker(RANDOM_SEED + highest_id)
    hashed = await hash_password(PASSWORD) if users else ""
    now = clock.now()

    new_users = (
        (f"{username}@example.com", username, fake.name(), hashed, now, now, now)
        for username in (f"writer{highest_id + number}" for number in range(1, users + 1))
    )
    await _copy(session, User.__tablename__, USER_COLUMNS, new_users, advance)

    authors = (await session.scalars(select(User.id).order_by(User.id))).all()
    if articles and not authors:
        raise InvalidInput("Articles need authors: seed at least one user")
    sentences = [fake.sentence(nb_words=14) for _ in range(SENTENCES)]
    new_articles = (
        _article(generator, sentences, authors, now - timedelta(minutes=age))
        for age in range(0, articles * MINUTES_BETWEEN_ARTICLES, MINUTES_BETWEEN_ARTICLES)
    )
    await _copy(session, Article.__tablename__, ARTICLE_COLUMNS, new_articles, advance)
    await session.execute(text("ANALYZE users, articles"))


def _faker(seed: int) -> Any:
    try:
        from faker import Faker  # noqa: PLC0415 - not installed in production
    except ImportError as error:
        raise SetupError("Example data needs Faker: install requirements/local.txt") from error
    fake = Faker()
    fake.seed_instance(seed)
    return fake


def _article(
    generator: random.Random, sentences: list[str], authors: Any, written: datetime
) -> tuple[Any, ...]:
    title = generator.choice(sentences)[:200].rstrip(".")
    length = generator.randint(MEAN_CONTENT_LENGTH // 2, MEAN_CONTENT_LENGTH * 3 // 2)
    parts: list[str] = []
    size = 0
    while size < length:
        sentence = generator.choice(sentences)
        parts.append(sentence)
        size += len(sentence) + 1
    published = generator.random() < PUBLISHED_SHARE
    return (title, " ".join(parts), published, generator.choice(authors), written, written)


async def _copy(
    session: AsyncSession,
    table: str,
    columns: tuple[str, ...],
    records: Iterator[tuple[Any, ...]],
    advance: Progress,
) -> None:
    """COPY the records in batches, through the driver, on the session's own transaction."""
    raw = await (await session.connection()).get_raw_connection()
    driver: Any = raw.driver_connection
    while batch := list(islice(records, BATCH)):
        await driver.copy_records_to_table(table, records=batch, columns=columns)
        advance(len(batch))
