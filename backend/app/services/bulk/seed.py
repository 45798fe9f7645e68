"""Reproducible example data in bulk, for demonstrations and benchmarks.

Benchmarks rely on these properties: `harbour` is in every second article, `zeppelin` in one of
1,000, `quokka` in one of 100,000. There are 300 tags. The first one is on three in ten articles,
the n-th on about an n-th as many. Nine in ten articles are published, at intervals of seven
minutes until now.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache, lru_cache
from itertools import accumulate, islice
from typing import Any, NamedTuple

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.security import hash_password
from app.content.markdown import Rendered, render_sync
from app.content.slugs import slugify
from app.core import clock
from app.core.config import SetupError
from app.core.errors import InvalidInput
from app.db.session import Database
from app.models.accounts.user import User
from app.models.articles.article import Article
from app.services.articles.inserting import NewArticle, insert_articles
from app.services.articles.tagging import add_tags, lock_tags

RANDOM_SEED = 20_260_101
PASSWORD = "pressroom-demo"  # noqa: S105 - public on purpose: seeding is disabled in production
DEMO_USERNAME = "demo"
DEMO_EMAIL = "demo@example.com"
BATCH_ROWS = 1000
SENTENCES = 400
TITLES = 2000
MEAN_CONTENT_LENGTH = 2000
ARTICLE_INTERVAL = timedelta(minutes=7)
MAX_TIME_SPAN = timedelta(days=50 * 365)
PUBLISHED_SHARE = 0.9
TAGS = 300
TAG_COUNTS = (1, 2, 2, 3)
MARKER_WORDS = {2: "harbour", 1000: "zeppelin", 100_000: "quokka"}
"""Words by their frequency: `zeppelin` is in one of 1,000 articles."""

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


class Sentence(NamedTuple):
    """A sentence and its number of words."""

    text: str
    words: int


class ValuePool(NamedTuple):
    """The values from which articles are generated."""

    titles: Sequence[tuple[str, str]]
    """Titles with their slugs."""
    sentences: Sequence[Sentence]
    authors: Sequence[int]
    tags: Sequence[str]
    """The most used first."""
    length: int
    last_id: int
    """The highest id of an article before. Slugs of new articles end with higher numbers."""


async def seed(
    database: Database,
    *,
    users: int,
    articles: int,
    length: int = MEAN_CONTENT_LENGTH,
    advance: Progress,
) -> None:
    """Add `users` authors, and `articles` with `length` characters on average.

    `advance` is called with the number of rows written. All authors have the same password. Each
    batch has its own transaction. Raises InvalidInput if there is no author for the articles.
    """
    hashed = await hash_password(PASSWORD) if users else ""
    async with database.unit_of_work() as session:
        highest_id = await session.scalar(select(func.coalesce(func.max(User.id), 0))) or 0
        generator = random.Random(RANDOM_SEED + highest_id)  # noqa: S311 - reproducible, not secret
        fake = _faker(RANDOM_SEED + highest_id)
        await _add_users(session, fake, range(highest_id + 1, highest_id + users + 1), hashed)
        advance(users)
        authors = (await session.scalars(select(User.id).order_by(User.id))).all()
        if not articles:
            return
        if not authors:
            raise InvalidInput("Articles require authors: add at least one user")
        last_id = await session.scalar(select(func.coalesce(func.max(Article.id), 0))) or 0
        pool = _make_pool(fake, authors, length, last_id)
    now = clock.now()
    step = min(ARTICLE_INTERVAL, MAX_TIME_SPAN / articles)
    rows = (_article(generator, pool, number, now - step * number) for number in range(articles))
    while batch := list(islice(rows, BATCH_ROWS)):
        async with database.unit_of_work() as session:
            await _add_articles(session, generator, pool, batch)
        advance(len(batch))
    async with database.unit_of_work() as session:
        await session.execute(text("ANALYZE users, articles, tags, article_tags"))


def _faker(seed: int) -> Any:
    try:
        from faker import Faker  # noqa: PLC0415 - not installed in production
    except ImportError as error:
        raise SetupError("Example data requires Faker: install requirements/local.txt") from error
    fake = Faker()
    fake.seed_instance(seed)
    return fake


async def _add_users(session: AsyncSession, fake: Any, numbers: range, hashed: str) -> None:
    now = clock.now()
    rows = (
        (f"writer{number}@example.com", f"writer{number}", fake.name(), hashed, now, now, now)
        for number in numbers
    )
    await _copy(session, User.__tablename__, USER_COLUMNS, rows)


def _make_pool(fake: Any, authors: Sequence[int], length: int, last_id: int) -> ValuePool:
    sentences = [fake.sentence(nb_words=14) for _ in range(SENTENCES)]
    titles = [fake.sentence(nb_words=6).rstrip(".") for _ in range(TITLES)]
    return ValuePool(
        titles=[(title, slugify(title)) for title in titles],
        sentences=[Sentence(sentence, len(sentence.split())) for sentence in sentences],
        authors=authors,
        tags=[word.capitalize() for word in fake.words(TAGS, unique=True)],
        length=length,
        last_id=last_id,
    )


def _article(
    generator: random.Random, pool: ValuePool, number: int, written: datetime
) -> NewArticle:
    title, slug = generator.choice(pool.titles)
    length = generator.randint(pool.length // 2, pool.length * 3 // 2)
    parts = [
        Sentence(f"There was a {word}.", 4)
        for share, word in MARKER_WORDS.items()
        if number % share == 0
    ]
    size = sum(len(part.text) + 1 for part in parts)
    while size < length:
        part = generator.choice(pool.sentences)
        parts.append(part)
        size += len(part.text) + 1
    content = " ".join([part.text for part in parts])
    words = sum([part.words for part in parts])
    before, after = _paragraph()
    return NewArticle(
        title=title,
        content=content,
        rendered=Rendered(f"{before}{content}{after}", content, [], words, _reading_time(words)),
        excerpt=None,
        cover_image_url=None,
        language=None,
        published_at=written if generator.random() < PUBLISHED_SHARE else None,
        author_id=generator.choice(pool.authors),
        created_at=written,
        updated_at=written,
        slugs=[f"{slug}-{pool.last_id + number + 1}"],
    )


@lru_cache(maxsize=1)
def _paragraph() -> tuple[str, str]:
    """Return the HTML around a paragraph. Plain sentences then need no rendering."""
    before, _, after = render_sync("X").html.partition("X")
    return before, after


@cache
def _reading_time(words: int) -> int:
    return render_sync("word " * words).reading_time if words < 20_000 else words // 200


async def _add_articles(
    session: AsyncSession,
    generator: random.Random,
    pool: ValuePool,
    articles: Sequence[NewArticle],
) -> None:
    inserted = await insert_articles(session, articles, now=clock.now())
    tags = list((await lock_tags(session, pool.tags)).by_key.values())
    weights = list(accumulate(1 / rank for rank in range(1, len(tags) + 1)))
    tagged = {
        article.id: dict.fromkeys(
            generator.choices(tags, cum_weights=weights, k=generator.choice(TAG_COUNTS))
        )
        for article in inserted
        if article is not None
    }
    await add_tags(session, tagged)


async def _copy(
    session: AsyncSession,
    table: str,
    columns: tuple[str, ...],
    records: Iterable[tuple[Any, ...]],
) -> None:
    """COPY the records in batches with asyncpg, in the session's transaction."""
    raw = await (await session.connection()).get_raw_connection()
    driver: Any = raw.driver_connection
    remaining = iter(records)
    while batch := list(islice(remaining, BATCH_ROWS)):
        await driver.copy_records_to_table(table, records=batch, columns=columns)
