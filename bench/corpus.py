"""Generated articles for the content benchmark: English-like, 1.5 KB each.

Word frequencies follow Zipf's law. Some words are in as many articles as their names tell.
PostgreSQL assembles the articles from paragraphs that are generated here: a million in minutes.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import asyncpg

from app.auth.security import hash_password
from app.content.markdown import RENDERER
from app.services.bulk.seed import PASSWORD

RANDOM_SEED: Final = 1815
MAX_AUTHORS: Final = 1000
ADMIN: Final = "bench-admin"
TAGS: Final = 1000
PARAGRAPHS: Final = 20_000
WORDS: Final = 30_000
BATCH: Final = 50_000
DAYS: Final = 3650
GERMAN_EVERY: Final = 40
"""One article in 40 is German, the others are English, to measure search in two languages."""

MARKERS: Final = {
    "everywhere": "true",
    "halfway": "hash % 2 = 0",
    "twentieth": "hash % 20 = 1",
    "hundredth": "hash % 100 = 2",
    "thousandth": "hash % 1000 = 3",
    "tenfold": "i % greatest(:n / 10, 1) = 0",
    "evenly": "i % 2 = 0",
    "oddly": "i % 2 = 1",
    "bygone": "i < :n / 2",
}
"""Words and the SQL condition for their articles. `i` numbers articles by age, `hash` is random."""

_SYLLABLES: Final = (
    "ba be bi bo bu ca ce co da de di do fa fe fi fo ga go gra ha hi ho ka ki la le li lo lu "
    "ma me mi mo mu na ne ni no pa pe pi po pra ra re ri ro ru sa se si so sta ta te ti to "
    "tra va ve vi wa za "
)
_ENDINGS: Final = "n r s l t nd st ing ed ly ness tion "
_STOP_WORDS: Final = (
    "the of and to in a is that for it as was with be by on not he his but at are this have "
    "from or had an they which one you were all their there been has when who will no more if "
    "out so up "
)

_ARTICLES: Final = """
INSERT INTO articles (
  title, slug, content, html, plain_text, excerpt, rendered_with, word_count, reading_time,
  language, published, published_at, archived_at, deleted_at, dated_at, author_id,
  created_at, updated_at, search_vector
)
SELECT title, slug, content, '<p>' || content || '</p>', content, left(content, 200), :renderer,
  240, 2, language, coalesce(published_at <= :now, false), published_at, archived_at, deleted_at,
  coalesce(published_at, created_at), author_id, created_at, created_at,
  public.article_search_vector(language, title, left(content, 200), content)
FROM (
  SELECT
    i,
    initcap(left(heading.body, position(' ' IN substr(heading.body, 40)) + 38))
      || CASE WHEN hash % 10 = 0 THEN :marked_title ELSE '' END AS title,
    'article-' || i AS slug,
    first.body || E'\\n\\n' || :marked || E'\\n\\n' || second.body AS content,
    CASE WHEN i % :german = 7 THEN 'de' ELSE 'en' END AS language,
    CASE WHEN hash % 50 = 11 THEN NULL
      WHEN hash % 200 = 13 THEN :now + interval '30 years' ELSE written END AS published_at,
    CASE WHEN hash % 200 = 17 THEN :now END AS archived_at,
    CASE WHEN hash % 200 = 19 THEN :now END AS deleted_at,
    written AS created_at,
    :first_author + 1 + hash % :authors AS author_id
  FROM (
    SELECT i, hashint8(i)::bigint & 1073741823 AS hash,
      :now - interval '1 minute' - (:n - i) * (interval '1 day' * :days / :n) AS written
    FROM generate_series(:start, :stop) AS i
  ) AS numbered
  JOIN bench_paragraphs AS heading ON heading.id = hash % :paragraphs
  JOIN bench_paragraphs AS first ON first.id = (hash / 7) % :paragraphs
  JOIN bench_paragraphs AS second ON second.id = (hash / 31) % :paragraphs
) AS made
ORDER BY i
"""

_TAGGED: Final = """
INSERT INTO article_tags (article_id, tag_id, listed_at)
SELECT id, tag, CASE WHEN archived_at IS NULL AND deleted_at IS NULL THEN published_at END
FROM (
  SELECT id, published_at, archived_at, deleted_at, :first_tag + chosen.tag AS tag
  FROM articles
  CROSS JOIN LATERAL (
    SELECT DISTINCT 1 + floor(power(
      (hashint8extended(id, number) & 1073741823) / 1073741824.0, 3
    ) * :tags)::bigint AS tag
    FROM generate_series(1, 3) AS number
  ) AS chosen
  WHERE id > :after
) AS tagged
"""

_TAG_NAMES: Final = """
UPDATE articles SET tag_names = found.names, tag_names_in_order = found.names
FROM (
  SELECT article_id, array_agg(tags.name ORDER BY tags.slug) AS names
  FROM article_tags JOIN tags ON tags.id = tag_id GROUP BY article_id
) AS found
WHERE articles.id = found.article_id
"""


def fill(url: str, *, articles: int, log: Callable[[str], None]) -> None:
    """Fill a migrated, empty database with articles, their authors and their tags.

    The role must be a superuser: triggers are disabled, and their columns are set here.
    """
    asyncio.run(_fill(url.replace("+asyncpg", "", 1), articles, log))


async def _fill(url: str, articles: int, log: Callable[[str], None]) -> None:
    connection: asyncpg.Connection[Any] = await asyncpg.connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("SET maintenance_work_mem = '1GB'")
        await connection.execute("SET synchronous_commit = off")
        values = await _add_related_rows(connection, articles)
        indexes = await connection.fetch(
            "SELECT indexname, indexdef FROM pg_indexes"
            " WHERE schemaname = 'public' AND tablename IN ('articles', 'article_tags')"
            " AND indexname !~ '^(pk|uq)_'"
        )
        for index in indexes:
            await connection.execute(f"DROP INDEX {index['indexname']}")
        started = time.monotonic()
        for start in range(1, articles + 1, BATCH):
            stop = min(start + BATCH - 1, articles)
            await connection.execute(
                _substitute(_ARTICLES, values | {"n": articles, "start": start, "stop": stop})
            )
            log(f"{stop:,} articles after {time.monotonic() - started:.0f} s")
        await connection.execute(_substitute(_TAGGED, values | {"after": 0}))
        await connection.execute(_TAG_NAMES)
        log(f"tagged after {time.monotonic() - started:.0f} s")
        for index in indexes:
            await connection.execute(index["indexdef"])
            log(f"{index['indexname']} after {time.monotonic() - started:.0f} s")
        await connection.execute("DROP TABLE bench_paragraphs")
        await _add_admin(connection)
        await connection.execute("VACUUM (FREEZE, ANALYZE)")
        log(f"all done after {time.monotonic() - started:.0f} s")
    finally:
        await connection.close()


def add_admin(url: str) -> None:
    """Add an administrator with the password of the users of `pressroom seed`."""

    async def add() -> None:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(url.replace("+asyncpg", "", 1))
        try:
            await _add_admin(connection)
        finally:
            await connection.close()

    asyncio.run(add())


async def _add_admin(connection: "asyncpg.Connection[Any]") -> None:
    await connection.execute(
        "INSERT INTO users (email, username, name, hashed_password, role, email_verified_at)"
        " VALUES ($1, $2, $2, $3, 'admin', now())",
        f"{ADMIN}@example.com",
        ADMIN,
        await hash_password(PASSWORD),
    )


async def _add_related_rows(
    connection: "asyncpg.Connection[Any]", articles: int
) -> dict[str, object]:
    """Add authors, tags and paragraphs. Return the values for the article statements."""
    authors = min(MAX_AUTHORS, max(1, articles // 100))
    await connection.execute(
        "INSERT INTO users (email, username, name, hashed_password)"
        " SELECT 'author' || i || '@example.com', 'author' || i, 'Author ' || i, ''"
        " FROM generate_series(1, $1::bigint) AS i",
        authors,
    )
    await connection.execute(
        "INSERT INTO tags (name, key, slug, is_listed)"
        " SELECT 'Tag ' || i, 'tag ' || i, 'tag-' || i, true"
        " FROM generate_series(1, $1::bigint) AS i",
        TAGS,
    )
    await connection.execute(
        "CREATE UNLOGGED TABLE bench_paragraphs (id bigint PRIMARY KEY, body text)"
    )
    await connection.copy_records_to_table(
        "bench_paragraphs", records=list(enumerate(itertools.islice(_paragraphs(), PARAGRAPHS)))
    )
    await connection.execute("ANALYZE bench_paragraphs")
    marked = " || ".join(
        f"CASE WHEN {condition} THEN '{word} ' ELSE '' END" for word, condition in MARKERS.items()
    )
    marked_title = " || ".join(
        f"CASE WHEN {condition} THEN ' {word}' ELSE '' END" for word, condition in MARKERS.items()
    )
    return {
        "marked_title": f"({marked_title})",
        "marked": f"({marked})",
        "now": "date_trunc('minute', now())",
        "first_author": await connection.fetchval("SELECT min(id) - 1 FROM users"),
        "first_tag": await connection.fetchval("SELECT min(id) - 1 FROM tags"),
        "authors": authors,
        "tags": TAGS,
        "paragraphs": PARAGRAPHS,
        "german": GERMAN_EVERY,
        "days": DAYS,
        "renderer": RENDERER,
    }


def _substitute(statement: str, values: dict[str, object]) -> str:
    """Replace `:names` in a statement, also in replaced values."""
    for _ in range(2):
        for name in sorted(values, key=len, reverse=True):
            statement = statement.replace(f":{name}", str(values[name]))
    return statement


def _paragraphs() -> Iterator[str]:
    generator = random.Random(RANDOM_SEED)  # noqa: S311 - reproducible, not secret
    syllables, endings = _SYLLABLES.split(), ["", "", "", *_ENDINGS.split()]
    stop_words = _STOP_WORDS.split()
    words = [
        "".join(generator.choices(syllables, k=generator.choice((2, 2, 3, 3, 4))))
        + generator.choice(endings)
        for _ in range(WORDS)
    ]
    weights = list(itertools.accumulate(1 / (rank + 2) for rank in range(WORDS)))
    while True:
        drawn = iter(generator.choices(words, cum_weights=weights, k=70))
        stops = iter(generator.choices(stop_words, k=45))
        text = [
            next(stops, "") if number % 5 in (0, 3) else next(drawn, "") for number in range(115)
        ]
        sentences = [
            " ".join(filter(None, text[start : start + 16])).capitalize()
            for start in range(0, len(text), 16)
        ]
        yield ". ".join(sentences) + "."
