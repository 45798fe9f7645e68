"""The `pressroom` command in this process; tests/e2e/ runs it in its own process."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import uvicorn
from alembic import command
from sqlalchemy.engine import make_url

from app.auth.keys import signing_keys
from app.cli import base, keys
from app.core.config import get_settings
from app.db.migrate import alembic_config
from app.services.bulk import seed as seeding
from tests.commands import PRODUCTION, fetch, run
from tests.databases import driver_url, execute, temporary_database
from tests.processes import free_port

pytestmark = pytest.mark.usefixtures("restored_environment")


class TestMigrate:
    @pytest.mark.parametrize("found", ["from_the_future", None])
    def test_database_ahead_or_current_stays_as_it_is(
        self, fresh_database: str, found: str | None, capsys: pytest.CaptureFixture[str]
    ) -> None:
        if found:
            execute(fresh_database, f"UPDATE alembic_version SET version_num = '{found}'")
        before = fetch(fresh_database, "SELECT version_num FROM alembic_version")
        assert run("migrate") == 0
        assert fetch(fresh_database, "SELECT version_num FROM alembic_version") == before
        assert ("newer release" in capsys.readouterr().out) is bool(found)

    def test_empty_database_is_migrated(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with temporary_database() as url:
            monkeypatch.setenv("DATABASE_URL", url)
            get_settings.cache_clear()
            assert run("migrate") == 0
            assert fetch(url, "SELECT 1 FROM alembic_version")

    def test_locked_table_is_a_temporary_failure(
        self, fresh_database: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command.downgrade(alembic_config(fresh_database), "-1")

        async def migrate_while_locked() -> int:
            holder = await asyncpg.connect(driver_url(fresh_database))
            try:
                async with holder.transaction():
                    await holder.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
                    return await asyncio.to_thread(run, "migrate")
            finally:
                await holder.close()

        assert asyncio.run(migrate_while_locked()) == 75
        assert "locked" in capsys.readouterr().out

    def test_unreachable_database_is_a_temporary_failure(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unreachable = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
        monkeypatch.setenv("DATABASE_URL", unreachable)
        get_settings.cache_clear()
        assert run("migrate") == 75

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"FORWARDED_ALLOW_IPS": "nginx"}, "FORWARDED_ALLOW_IPS: 'nginx' must be"),
            (
                {"JWT_ALGORITHM": "ES256", "JWT_PRIVATE_KEY_FILE": "keys/missing.pem"},
                "The key keys/missing.pem cannot be read",
            ),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_database_stays_as_it_is_if_the_backend_could_not_start(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        settings: dict[str, str],
        message: str,
    ) -> None:
        with temporary_database() as url:
            for name, value in {"DATABASE_URL": url, **settings}.items():
                monkeypatch.setenv(name, value)
            get_settings.cache_clear()
            signing_keys.cache_clear()
            try:
                assert run("migrate") == 1
            finally:
                signing_keys.cache_clear()
            assert fetch(url, "SELECT FROM pg_tables WHERE schemaname = 'public'") == []
        assert message in capsys.readouterr().err

    @pytest.mark.parametrize("command", [("migrate",), ("users", "list")])
    @pytest.mark.parametrize("part", ["username", "database"])
    def test_refused_connection_names_the_setting(
        self,
        own_database: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        part: str,
        command: tuple[str, ...],
    ) -> None:
        """Running the command again cannot help."""
        url = make_url(own_database)
        url = url.set(username="unknown") if part == "username" else url.set(database="unknown")
        settings = {"DATABASE_URL": url.render_as_string(hide_password=False)}
        if command != ("migrate",):  # in development, all commands migrate
            settings = {**PRODUCTION, **settings}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        assert run(*command) == 1
        printed = capsys.readouterr().err
        assert "DATABASE_URL does not work: " in printed
        assert "unknown" in printed
        assert "DATABASE_PASSWORD" in printed

    @pytest.mark.parametrize("refused", ["DATABASE_URL", "DATABASE_OWNER_URL"])
    def test_refused_url_of_two_is_named(
        self,
        own_database: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        refused: str,
    ) -> None:
        application = make_url(own_database).set(username="application")
        urls = {"DATABASE_URL": application, "DATABASE_OWNER_URL": make_url(own_database)}
        urls[refused] = urls[refused].set(database="unknown")
        for name, url in urls.items():
            monkeypatch.setenv(name, url.render_as_string(hide_password=False))
        get_settings.cache_clear()
        # The container's server requires a password, the embedded one does not.
        execute(own_database, f"CREATE ROLE application LOGIN PASSWORD '{application.password}'")
        try:
            assert run("migrate") == 1
        finally:
            execute(own_database, "DROP OWNED BY application", "DROP ROLE application")
        assert f"{refused} does not work: " in capsys.readouterr().err


class TestCreateAdmin:
    ARGUMENTS = ("create-admin", "--email", "root@example.com", "--username", "root")

    def test_administrator_is_created(
        self, own_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PRESSROOM_ADMIN_PASSWORD", "correct horse battery")
        assert run(*self.ARGUMENTS) == 0
        assert "Created administrator root" in capsys.readouterr().out
        users = fetch(own_database, "SELECT username, role FROM users")
        assert [tuple(user) for user in users] == [("root", "admin")]
        events = fetch(own_database, "SELECT action FROM audit_events")
        assert [event["action"] for event in events] == ["CREATE_USER"]

    def test_password_is_read_from_a_file(
        self,
        own_database: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
    ) -> None:
        file = tmp_path / "password"
        monkeypatch.setenv("PRESSROOM_ADMIN_PASSWORD_FILE", str(file))
        assert run(*self.ARGUMENTS) == 1
        assert "cannot be read (No such file" in capsys.readouterr().err
        file.write_text("correct horse battery\n")
        assert run(*self.ARGUMENTS, "--password", "another") == 1
        assert "not both" in capsys.readouterr().err
        assert run(*self.ARGUMENTS) == 0
        assert len(fetch(own_database, "SELECT 1 FROM users")) == 1

    @pytest.mark.parametrize(
        ("arguments", "password", "message"),
        [
            (("--email", "nonsense", "--username", "root"), "correct horse", "email:"),
            (("--email", "a@example.com", "--username", "r t"), "correct horse", "username:"),
            (("--email", "a@example.com", "--username", "root"), "short", "at least 8 characters"),
            (("--email", "a@example.com", "--username", "root"), "password", "most common"),
        ],
    )
    def test_invalid_argument_is_reported_without_a_traceback(
        self,
        own_database: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: tuple[str, ...],
        password: str,
        message: str,
    ) -> None:
        monkeypatch.setenv("PRESSROOM_ADMIN_PASSWORD", password)
        assert run("create-admin", *arguments) == 1
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
        assert fetch(own_database, "SELECT 1 FROM users") == []

    def test_existing_username_is_rejected(
        self, own_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PRESSROOM_ADMIN_PASSWORD", "correct horse battery")
        assert run(*self.ARGUMENTS) == 0
        assert run(*self.ARGUMENTS) == 1
        assert "already exists" in capsys.readouterr().err


class TestSeed:
    def test_requested_rows_are_added(
        self, own_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(seeding, "BATCH_ROWS", 200)
        assert run("seed", "--users", "3", "--articles", "401") == 0
        assert "Added 401 articles" in capsys.readouterr().out
        rows = fetch(
            own_database,
            "SELECT count(*) AS n, count(DISTINCT author_id) AS authors,"
            " avg(length(content)) AS size, avg(published::int) AS published,"
            " count(DISTINCT created_at) AS times FROM articles",
        )
        row = rows[0]
        assert (row["n"], row["authors"], row["times"]) == (401, 3, 401)
        assert 1800 < row["size"] < 2300
        assert 0.85 < row["published"] < 0.95

    def test_empty_database_always_gets_the_same_rows(self, own_database: str) -> None:
        digest = "SELECT md5(string_agg(title || content, '' ORDER BY id)) AS digest FROM articles"
        digests = []
        for _ in range(2):
            execute(own_database, "TRUNCATE users RESTART IDENTITY CASCADE")
            assert run("seed", "--users", "2", "--articles", "50") == 0
            digests.append(fetch(own_database, digest)[0]["digest"])
        assert digests[0] == digests[1]

    def test_existing_rows_are_kept(self, own_database: str) -> None:
        for _ in range(2):
            assert run("seed", "--users", "2", "--articles", "2") == 0
        assert len(fetch(own_database, "SELECT 1 FROM users")) == 4

    def test_articles_need_at_least_one_author(
        self, own_database: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("seed", "--users", "0", "--articles", "1") == 1
        assert "add at least one user" in capsys.readouterr().err

    def test_production_is_rejected(
        self, own_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name, value in PRODUCTION.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        assert run("seed") == 1
        assert "do not use it in production" in capsys.readouterr().err

    def test_missing_faker_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "faker", None)
        with pytest.raises(RuntimeError, match=r"requirements/local\.txt"):
            seeding._faker(1)


class TestServe:
    def test_configured_database_is_used(
        self, own_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        served: dict[str, Any] = {}
        port = free_port()
        monkeypatch.setattr(uvicorn, "run", lambda app, **options: served.update(options, app=app))
        assert run("serve", "--port", str(port)) == 0
        assert served["app"] == "app.main:create_app"
        assert served["port"] == port
        banner = capsys.readouterr().out
        assert f"http://localhost:{port}/docs" in banner
        assert f"Pages        http://localhost:{port}/read\n" in banner
        assert f"Studio       http://localhost:{port}/studio\n" in banner
        assert "embedded" not in banner
        assert "Demo account" not in banner
        assert fetch(own_database, "SELECT 1 FROM users") == []

    def test_production_is_not_migrated_and_gets_no_demo_account(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(uvicorn, "run", lambda app, **options: None)
        with temporary_database() as url:
            for name, value in {**PRODUCTION, "DATABASE_URL": url}.items():
                monkeypatch.setenv(name, value)
            get_settings.cache_clear()
            assert run("serve", "--port", str(free_port())) == 0
            assert "Demo account" not in capsys.readouterr().out
            assert fetch(url, "SELECT 1 FROM pg_tables WHERE tablename = 'users'") == []

    def test_embedded_database_gets_a_demo_account(
        self, own_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delenv("DATABASE_URL")
        get_settings.cache_clear()
        embedded = get_settings().model_copy(update={"database_url": own_database})
        monkeypatch.setattr(base, "ensure_database_url", lambda settings: embedded)
        monkeypatch.setattr(uvicorn, "run", lambda app, **options: None)
        for _ in range(2):  # the second start finds the account
            monkeypatch.delenv("DATABASE_URL", raising=False)
            get_settings.cache_clear()
            assert run("serve", "--port", str(free_port())) == 0
            banner = capsys.readouterr().out
            assert "Demo account demo / pressroom-demo" in banner
            assert "/studio/first-start, with the code in the log below\n" in banner
        execute(own_database, "UPDATE users SET role = 'admin'")
        monkeypatch.delenv("DATABASE_URL", raising=False)
        get_settings.cache_clear()
        assert run("serve", "--port", str(free_port())) == 0
        assert "first-start" not in capsys.readouterr().out
        assert len(fetch(own_database, "SELECT 1 FROM users WHERE username = 'demo'")) == 1

    def test_busy_port_is_reported(
        self, own_database: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        import socket

        with socket.socket() as busy:
            busy.bind(("127.0.0.1", 0))
            busy.listen()
            assert run("serve", "--port", str(busy.getsockname()[1])) == 1
        assert "choose another PORT" in capsys.readouterr().err


def test_routes_lists_every_route(own_database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("routes") == 0
    listed = capsys.readouterr().out
    for part in ("/articles/{article_id}", "create_article", "required", "optional", "PATCH"):
        assert part in listed


def test_invalid_setting_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://root@localhost/x")
    get_settings.cache_clear()
    assert run("serve") == 1
    assert "DATABASE_URL: must look like postgresql://" in capsys.readouterr().err


class TestAfterRestore:
    """What a restored dump contains, and must not revive."""

    ROWS = """
        INSERT INTO users (id, email, username, name, hashed_password, created_at, updated_at)
          VALUES (1, 'ada@example.com', 'ada', 'Ada', 'x', now(), now());
        INSERT INTO user_sessions
          (user_id, token_hash, created_at, last_used_at, expires_at, user_agent)
          SELECT 1, 'x', now(), now(), now() + interval '1 day', '' FROM generate_series(1, 3);
        INSERT INTO mails (kind, email, user_id, details, created_at, attempts, next_attempt_at)
          VALUES ('register', 'eve@example.com', NULL, '{"name": "Eve"}', now(), 0, now());
        INSERT INTO account_tokens (purpose, user_id, email, token_hash, created_at, expires_at)
          VALUES ('reset_password', 1, 'ada@example.com', 'x', now(), now() + interval '1 hour');
        INSERT INTO attempts (key, failures, pending, tried_at) VALUES ('x', 1, 1, now());
        INSERT INTO upload_reservations (user_id, bytes, expires_at) VALUES (1, 1, now());
        INSERT INTO api_keys (user_id, name, hint, token_hash, scopes, created_at)
          VALUES (1, 'deploy', 'psr', 'x', '{}', now());
    """

    def test_nothing_of_former_clients_is_revived(
        self,
        own_database: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("MEDIA_DIR", str(tmp_path))
        get_settings.cache_clear()
        execute(own_database, self.ROWS)
        assert run("after-restore", "--keep-keys") == 0
        assert capsys.readouterr().out.splitlines() == [
            "sessions ended: 3",
            "queued mails cancelled: 1",
            "links in mails revoked: 1",
            "counts of login attempts reset: 1",
            "upload reservations released: 1",
            "images restored: 0",
            "events reordered: 1",
            "change feeds restarted: 1",
        ]
        left = "SELECT 1 FROM user_sessions WHERE revoked_at IS NULL"
        assert fetch(own_database, left) == []
        (mail,) = fetch(own_database, "SELECT next_attempt_at, details, error FROM mails")
        assert tuple(mail) == (None, None, "cancelled")
        assert run("after-restore") == 0
        again = capsys.readouterr().out
        assert "sessions ended: 0" in again
        assert "API keys deleted: 1" in again
        for table in ("account_tokens", "attempts", "upload_reservations", "api_keys"):
            assert fetch(own_database, f"SELECT 1 FROM {table}") == [], table


class TestKeys:
    @pytest.fixture(autouse=True)
    def _own_env_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(keys, "PROJECT_DIR", tmp_path)

    def settings_of(self, text: str) -> dict[str, str]:
        return dict(line.split("=", 1) for line in text.splitlines() if re.match("[A-Z_]+=", line))

    def rotate(self, monkeypatch: pytest.MonkeyPatch, *arguments: str, **environment: str) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        assert run("keys", "rotate", *arguments) == 0

    def test_new_secret_keeps_the_previous_ones(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.rotate(monkeypatch, SECRET_KEY="a" * 32, SECRET_KEYS_PREVIOUS="b" * 32)
        output = capsys.readouterr().out
        values = self.settings_of(output)
        assert set(values) == {"SECRET_KEY", "SECRET_KEYS_PREVIOUS"}
        assert len(values["SECRET_KEY"]) == 64
        assert values["SECRET_KEYS_PREVIOUS"] == "a" * 32 + "," + "b" * 32
        assert "pressroom keys reseal" in output
        assert f"{7 * 24 * 60} minutes" in output  # of tokens of the RealWorld API

    def test_secret_in_a_file_is_named(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        file = tmp_path / "secret_key"
        file.write_text("a" * 32)
        self.rotate(monkeypatch, SECRET_KEY_FILE=str(file))
        output = capsys.readouterr().out
        assert self.settings_of(output)["SECRET_KEYS_PREVIOUS"] == "a" * 32
        assert "SECRET_KEY is read from a file (SECRET_KEY_FILE): write it there." in output
        assert ".env" not in output

    def test_development_secret_is_not_kept(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.rotate(monkeypatch)
        assert self.settings_of(capsys.readouterr().out)["SECRET_KEYS_PREVIOUS"] == ""

    def test_settings_are_written_to_dotenv_only(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        file = tmp_path / ".env"
        file.write_text(f"# mine\nSECRET_KEY={'a' * 32}\nPORT=8001\n")
        self.rotate(monkeypatch, SECRET_KEY="a" * 32)
        text, output = file.read_text(), capsys.readouterr().out
        values = self.settings_of(text)
        assert values["SECRET_KEYS_PREVIOUS"] == "a" * 32
        assert values["PORT"] == "8001"
        assert text.startswith("# mine\n")
        assert text.count("SECRET_KEY=") == 1
        assert file.stat().st_mode & 0o077 == 0
        assert values["SECRET_KEY"] not in output
        assert list(tmp_path.iterdir()) == [file]

    @pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
    def test_new_key_pair_signs_and_the_previous_one_is_accepted(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        algorithm: str,
    ) -> None:
        arguments = ("--algorithm", algorithm, "--directory", str(tmp_path))
        self.rotate(monkeypatch, *arguments)
        first = self.settings_of(capsys.readouterr().out)
        assert first["JWT_ALGORITHM"] == algorithm
        assert first["JWT_PREVIOUS_KEY_FILES"] == ""
        assert Path(first["JWT_PRIVATE_KEY_FILE"]).stat().st_mode & 0o077 == 0

        self.rotate(monkeypatch, **first)
        second = self.settings_of(capsys.readouterr().out)
        assert second["JWT_PREVIOUS_KEY_FILES"] == first["JWT_PRIVATE_KEY_FILE"]
        assert Path(second["JWT_PRIVATE_KEY_FILE"]).parent == tmp_path
        for name, value in second.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        signing_keys.cache_clear()
        accepted = signing_keys()
        signing_keys.cache_clear()
        assert len(accepted.by_id) == 2
        assert accepted.current.public is not None
        assert accepted.current.public["alg"] == algorithm

    def test_missing_folder_is_reported(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("keys", "rotate", "--algorithm", "ES256", "--directory", "/nowhere") == 1
        assert "(No such file or directory)" in capsys.readouterr().err

    def test_reseal_without_second_factors(
        self, own_database: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("keys", "reseal") == 0
        assert "Resealed 0 second factors" in capsys.readouterr().out
