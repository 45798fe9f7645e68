"""Recounting while users react. tests/test_operator_commands.py has the command."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from app.auth.identity import COMMAND_LINE
from app.core.config import Settings
from app.db.session import Database
from app.services.community import counters
from tests.databases import execute
from tests.postgres import fetch, holding, wait_until_blocked

FAVORITE = (
    "INSERT INTO favorites (user_id, article_id, created_at) SELECT 1, id, now() FROM articles"
)


def recount(settings: Settings) -> int:
    async def run() -> int:
        database = Database.from_settings(settings)
        try:
            return await counters.recount(database, actor=COMMAND_LINE)
        finally:
            await database.dispose()

    return asyncio.run(run())


def test_recount_is_exact_while_users_react(settings: Settings, own_database: str) -> None:
    """A favorite that is being added is counted once."""
    execute(
        own_database,
        "INSERT INTO users (email, username, name, hashed_password)"
        " SELECT n || '@example.com', 'user' || n, '', '' FROM generate_series(1, 1) AS n",
        "INSERT INTO articles (author_id, title, slug, content)"
        " VALUES (1, 'An article', 'a', repeat('a', 100))",
        "INSERT INTO article_counts (article_id, favorites) VALUES (1, 77)",
    )
    own = settings.model_copy(update={"database_url": own_database})
    with ThreadPoolExecutor() as threads:
        with holding(own_database, FAVORITE, end="COMMIT"):
            recounting = threads.submit(recount, own)
            wait_until_blocked(own_database)
        assert recounting.result() == 1
    assert fetch(own_database, "SELECT favorites FROM article_counts")[0][0] == 1
