"""Migrations: upgrades, downgrades, drift, concurrency and file names."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import create_async_engine

from app.db.migrate import alembic_config, upgrade
from app.models import User
from tests.databases import driver_url, execute, migrated_database, temporary_database
from tests.postgres import fetch
from tests.processes import FORKS

DUMP = """
    SELECT 'column', table_name, column_name, data_type, is_nullable, column_default
    FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL
    SELECT 'index', tablename, indexname, indexdef, NULL, NULL
    FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), NULL, NULL
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'function', proname, pg_get_function_identity_arguments(oid), prosrc, NULL, NULL
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prokind = 'f'
    UNION ALL
    SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), NULL, NULL
    FROM pg_trigger WHERE NOT tgisinternal
    ORDER BY 1, 2, 3
"""

FUNCTIONS = """
    SELECT pg_get_functiondef(oid) AS definition FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND prokind = 'f'
"""


Schema = list[tuple[object, ...]]


def schema_of(url: str) -> Schema:
    return [tuple(row) for row in fetch(url, DUMP)]


@contextmanager
def schema_reader(url: str) -> Iterator[Callable[[], Schema]]:
    """Yield a function that returns the schema without the table of Alembic, on one connection."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(driver_url(url), statement_cache_size=0))

        def read() -> Schema:
            rows = map(tuple, runner.run(connection.fetch(DUMP)))
            return [row for row in rows if row[1] != "alembic_version"]

        try:
            yield read
        finally:
            runner.run(connection.close())


def test_upgrade_after_downgrade_gives_the_same_schema() -> None:
    with migrated_database() as url:
        first = schema_of(url)
        command.downgrade(alembic_config(url), "base")
        left = [entry for entry in schema_of(url) if entry[1] != "alembic_version"]
        assert left == []
        upgrade(url)
        assert schema_of(url) == first


def test_each_migration_can_be_upgraded_and_downgraded(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    # Otherwise each command would read all migrations.
    monkeypatch.setattr(ScriptDirectory, "from_config", lambda config: scripts)
    with temporary_database() as url, schema_reader(url) as schema:
        after: Schema = []
        for script in reversed(list(scripts.walk_revisions())):
            before = after
            upgrade(url, script.revision)
            after = schema()
            previous = script.down_revision
            assert not isinstance(previous, list | tuple)  # there are no merges
            command.downgrade(alembic_config(url), previous or "base")
            assert set(schema()) == set(before)
            upgrade(url, script.revision)
            assert schema() == after


def test_interrupted_migrations_can_be_run_again() -> None:
    """They commit in steps. An interruption may leave all changes without the new revision."""
    scripts = ScriptDirectory.from_config(alembic_config())
    set_revision = "UPDATE alembic_version SET version_num = '{0}'"
    with temporary_database() as url:
        for revision in ("0007b", "0008", "0009"):
            before = str(scripts.get_revision(revision).down_revision)
            upgrade(url, revision)
            after = schema_of(url)
            execute(url, set_revision.format(before))
            upgrade(url, revision)
            assert schema_of(url) == after
            command.downgrade(alembic_config(url), before)
            if revision != "0008":  # its downgrade is one transaction
                execute(url, set_revision.format(revision))
                command.downgrade(alembic_config(url), before)
            upgrade(url, revision)
            assert schema_of(url) == after


def test_models_and_migrations_agree(database_url: str) -> None:
    command.check(alembic_config(database_url))
    with temporary_database() as url:  # Alembic does not compare CHECK constraints
        functions = fetch(database_url, FUNCTIONS)  # some indexes use them
        asyncio.run(_create_from_models(url, [row["definition"] for row in functions]))
        migrated = {
            entry
            for entry in schema_of(database_url)
            if entry[1] != "alembic_version"
            and entry[0] != "trigger"
            and not str(entry[3]).startswith("TRIGGER")
        }
        assert set(schema_of(url)) == migrated


async def _create_from_models(url: str, functions: list[str]) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("SET check_function_bodies = off")
        for function in functions:
            await connection.exec_driver_sql(function)
        await connection.run_sync(User.metadata.create_all)
    await engine.dispose()


def test_previous_release_can_write_between_migrations() -> None:
    """Published articles stay published if the previous release changes them before 0004."""
    with temporary_database() as url:
        upgrade(url, "0002")
        execute(
            url,
            "INSERT INTO users (email, username, name, hashed_password)"
            " VALUES ('ada@example.com', 'ada', 'Ada', 'x')",
            "INSERT INTO articles (title, content, published, author_id)"
            " SELECT 'Title ' || number, 'Long enough.', number < 3, 1"
            " FROM generate_series(1, 4) AS number",
        )
        upgrade(url, "0003")
        execute(
            url,
            "UPDATE articles SET title = 'Corrected' WHERE id IN (1, 4)",
            "UPDATE articles SET published = true WHERE id = 3",
        )
        upgrade(url, "head")
        rows = fetch(
            url, "SELECT slug, published, published_at, dated_at FROM articles ORDER BY id"
        )
        assert [row["published"] for row in rows] == [True, True, True, False]
        assert [row["slug"] for row in rows] == ["article-1", "title-2-2", "article-3", "article-4"]
        assert all(row["published"] == (row["published_at"] is not None) for row in rows)
        changes = fetch(url, "SELECT article_id, kind FROM changes ORDER BY article_id")
        assert {row["article_id"] for row in changes} == {1, 2, 3}


def test_existing_tags_get_keys_while_previous_release_writes() -> None:
    """The older of two tags gets the key, tags of public articles are listed, and slugs stay."""
    with temporary_database() as url:
        upgrade(url, "0006")
        tag = "INSERT INTO tags (name, slug) VALUES ('{0}', '{1}')"
        execute(
            url,
            "INSERT INTO users (email, username, name, hashed_password)"
            " VALUES ('ada@example.com', 'ada', 'Ada', 'x')",
            "INSERT INTO articles (title, slug, content, author_id, published_at) VALUES"
            " ('T', 't', 'Long enough.', 1, now()), ('D', 'd', 'Long enough.', 1, NULL)",
            *(tag.format(*each) for each in (("C++", "c"), ("北京", "bei-jing"), ("№1", "n1"))),
            "INSERT INTO article_tags (article_id, tag_id) VALUES (1, 1), (2, 2)",
        )
        upgrade(url, "0007")
        execute(
            url,
            tag.format("No1", "no1"),  # №1, with the same key, has none yet
            tag.format("C#", "c-2"),
            "UPDATE articles SET published_at = now() WHERE id = 2",
        )
        upgrade(url, "head")
        execute(url, tag.format("c++", "other"), f"{tag.format('Ada', 'c')} ON CONFLICT DO NOTHING")
        rows = fetch(url, "SELECT slug, key, is_listed FROM tags ORDER BY id")
        assert [tuple(row) for row in rows] == [
            ("c", "c++", True),
            ("bei-jing", "北京", True),
            ("n1", None, False),
            ("no1", "no1", False),
            ("c-2", "c#", False),
            ("other", None, False),
        ]
        command.downgrade(alembic_config(url), "0006")
        execute(url, tag.format("Ada", "ada"))
        assert len(fetch(url, "SELECT FROM tags")) == 7


def test_downgrade_gives_drafts_a_slug() -> None:
    with migrated_database() as url:
        execute(
            url,
            "INSERT INTO users (email, username, name, hashed_password)"
            " VALUES ('a@example.com', 'a', 'A', 'x')",
        )
        execute(
            url,
            "INSERT INTO articles (title, content, slug, draft_slug, author_id)"
            " SELECT 'Draft', 'Long enough.', '~' || md5('x'), 'draft', id FROM users",
        )
        command.downgrade(alembic_config(url), "0007b")
        execute(url, "DO $$ BEGIN ASSERT (SELECT slug LIKE 'draft-%' FROM articles); END $$")


def test_releases_without_integrations_write_after_a_downgrade() -> None:
    """Triggers of events, sessions and users leave nothing behind, and other rows stay."""
    publish = (
        "INSERT INTO articles (title, content, slug, author_id, published_at)"
        " VALUES ('T', 'Long enough.', '{0}', 1, now())"
    )
    end_and_delete = (
        "UPDATE user_sessions SET revoked_at = NULL",
        "UPDATE user_sessions SET revoked_at = now()",
        "UPDATE users SET role = 'editor', is_active = NOT is_active WHERE id = 2",
        "DELETE FROM api_keys WHERE id = (SELECT min(id) FROM api_keys)",
        "DELETE FROM users WHERE id = (SELECT max(id) FROM users)",
    )
    counts = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM articles)"
    with migrated_database() as url:
        execute(
            url,
            "INSERT INTO users (email, username, name, hashed_password)"
            " SELECT number || '@example.com', 'u' || number, 'U', 'x'"
            " FROM generate_series(1, 6) AS number",
            "INSERT INTO user_sessions"
            " (user_id, token_hash, created_at, last_used_at, expires_at, user_agent)"
            " SELECT 1, number::text::bytea, now(), now(), now() + interval '1 day', ''"
            " FROM generate_series(1, 4) AS number",
            "INSERT INTO api_keys (user_id, name, hint, token_hash, scopes, created_at)"
            " SELECT 1, 'k', 'h', number::text::bytea, '{}', now()"
            " FROM generate_series(1, 4) AS number",
            publish.format("first"),
            "INSERT INTO webhooks"
            " (owner_id, url, events, payload_version, sealed_secret, event_xid, event_id)"
            " VALUES (1, 'https://example.com', '{article.published}', 1, 's', 0, 0)",
            "INSERT INTO webhook_deliveries (webhook_id, message_id, event_id, kind, created_at)"
            " SELECT 1, gen_random_uuid(), id, kind, now() FROM events",
            "INSERT INTO webhook_attempts (delivery_id, started_at, milliseconds)"
            " SELECT id, now(), 1 FROM webhook_deliveries",
        )
        for number, revision in enumerate(("0033b", "0033", "0032"), start=1):
            command.downgrade(alembic_config(url), revision)
            execute(url, *end_and_delete, publish.format(revision))
            assert [tuple(row) for row in fetch(url, counts)] == [(6 - number, 1 + number)]
        upgrade(url)
        execute(url, *end_and_delete, publish.format("last"))
        kinds = [row["kind"] for row in fetch(url, "SELECT kind FROM events ORDER BY id")]
        assert kinds == ["article.published"]
        assert [tuple(row) for row in fetch(url, counts)] == [(2, 5)]


def test_migrations_have_one_head() -> None:
    assert len(ScriptDirectory.from_config(alembic_config()).get_heads()) == 1


def test_file_names_start_with_a_date() -> None:
    for script in ScriptDirectory.from_config(alembic_config()).walk_revisions():
        assert re.match(r"\d{4}_\d{2}_\d{2}_", Path(script.path).name)


def test_concurrent_migrations_are_serialized() -> None:
    with temporary_database() as url:
        migrators = [FORKS.Process(target=upgrade, args=(url,)) for _ in range(2)]
        for migrator in migrators:
            migrator.start()
        for migrator in migrators:
            migrator.join()
        assert [migrator.exitcode for migrator in migrators] == [0, 0]
        assert schema_of(url)


def test_offline_mode_prints_the_sql(capsys: pytest.CaptureFixture[str]) -> None:
    command.upgrade(alembic_config("postgresql+asyncpg://"), "head", sql=True)
    assert "CREATE TABLE articles" in capsys.readouterr().out


def test_migration_fails_on_a_locked_table_instead_of_waiting() -> None:
    with migrated_database() as url:

        async def downgrade_locked_table() -> None:
            holder = await asyncpg.connect(driver_url(url))
            try:
                async with holder.transaction():
                    await holder.execute("LOCK TABLE articles IN ACCESS SHARE MODE")
                    downgrade = asyncio.to_thread(command.downgrade, alembic_config(url), "base")
                    with pytest.raises(Exception, match="lock timeout"):
                        await downgrade
            finally:
                await holder.close()

        asyncio.run(downgrade_locked_table())
        execute(url, "SELECT 1 FROM articles")
