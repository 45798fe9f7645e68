"""Commands for operators: users, counters, mail and jobs. Each action is in the audit trail."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.config import get_settings
from tests.commands import PRODUCTION, fetch, run
from tests.databases import execute

pytestmark = pytest.mark.usefixtures("restored_environment")

HASH = "$bcrypt-sha256$v=2,t=2b,r=4$Bacxv1aHyR16bDyEN4cTde$kWSyS6JRjjBkm/5btei3WRdczey2Lme"
PASSWORD = "a better password"
MOMENT = "2020-01-01T00:00:00Z"

Command = Callable[..., str]


@pytest.fixture
def users(own_database: str) -> str:
    """Create the administrator `root` and the author `ada`, who has sessions and a second factor.

    Returns the URL of the database.
    """
    execute(
        own_database,
        "INSERT INTO users (email, username, name, hashed_password, role, email_verified_at) VALUES"
        f" ('root@example.com', 'root', 'Root', '{HASH}', 'admin', now()),"
        f" ('Ada@example.com', 'Ada', 'Ada', '{HASH}', 'author', now())",
        "INSERT INTO user_sessions (user_id, token_hash, created_at, last_used_at, expires_at, ip,"
        " user_agent) SELECT id, '', now(), now(), now() + interval '1 day', '192.0.2.1', ''"
        " FROM users",
        "INSERT INTO second_factors (user_id, sealed_secret, created_at, confirmed_at)"
        " SELECT id, 'sealed', now(), now() FROM users WHERE username = 'Ada'",
        "INSERT INTO recovery_codes (user_id, code_hash) SELECT user_id, '1' FROM second_factors",
    )
    return own_database


@pytest.fixture
def succeed(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command, which must succeed, and returns its output."""

    def run_command(*arguments: str) -> str:
        status = run(*arguments)
        printed = capsys.readouterr()
        assert status == 0, printed
        return " ".join(printed.out.split())

    return run_command


@pytest.fixture
def fail(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command, which must fail, and returns its error message."""

    def run_command(*arguments: str) -> str:
        assert run(*arguments) == 1
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return " ".join(error.split())

    return run_command


def events(url: str) -> list[tuple[Any, ...]]:
    """Return the audit events: action, actor and message. All have the id of a command."""
    rows = fetch(url, "SELECT action, actor_id, message, request_id FROM audit_events ORDER BY id")
    assert all(row["request_id"].startswith("command-") for row in rows)
    return [tuple(row)[:3] for row in rows]


def value(url: str, query: str) -> Any:
    return fetch(url, query)[0][0]


class TestUsers:
    def test_users_are_listed(
        self, users: str, succeed: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.cli.accounts.PAGE_SIZE", 1)
        execute(users, "UPDATE users SET is_active = false, email_verified_at = NULL WHERE id = 2")
        everyone = succeed("users", "list")
        assert everyone.index("root@example.com (active)") < everyone.index("Ada@example.com")
        assert "Ada author Ada@example.com (disabled, email not verified)" in everyone
        assert "Ada" not in succeed("users", "list", "--role", "admin")
        assert "root" not in succeed("users", "list", "--disabled")

    def test_disabled_user_loses_access_until_enabled(
        self, users: str, succeed: Command, fail: Command
    ) -> None:
        assert succeed("users", "disable", "ada") == "ada is disabled"
        open_sessions = "SELECT count(*) FROM user_sessions WHERE revoked_at IS NULL"
        assert value(users, open_sessions) == 1
        assert not value(users, "SELECT is_active FROM users WHERE username = 'Ada'")
        succeed("users", "disable", "ada")  # changes nothing, and is not recorded again
        succeed("users", "enable", "ada@EXAMPLE.com")
        assert value(users, "SELECT is_active FROM users WHERE username = 'Ada'")
        assert events(users) == [
            ("DISABLE_USER", None, "User 2 disabled from the command line"),
            ("ENABLE_USER", None, "User 2 enabled from the command line"),
        ]
        assert "last administrator" in fail("users", "disable", "root")
        assert "User not found" in fail("users", "disable", "nobody")
        assert value(users, "SELECT count(*) FROM limit_uses") == 0

    def test_role_is_changed(self, users: str, succeed: Command, fail: Command) -> None:
        succeed("users", "role", "ada", "editor")
        assert value(users, "SELECT role FROM users WHERE username = 'Ada'") == "editor"
        assert events(users) == [
            ("CHANGE_ROLE", None, "User 2 got a new role from the command line")
        ]
        assert "administrator" in fail("users", "role", "root", "author")
        assert run("users", "role", "ada", "owner") == 2

    def test_password_is_replaced(
        self, users: str, succeed: Command, fail: Command, tmp_path: Path
    ) -> None:
        assert "password: String should have at least 8 characters" in fail(
            "users", "reset-password", "ada", "--password", "short"
        )
        (tmp_path / "password").write_text(f"{PASSWORD}\n")
        file = ("--password-file", str(tmp_path / "password"))
        assert "all sessions have ended" in succeed("users", "reset-password", "ada", *file)
        changed = f"SELECT username FROM users WHERE hashed_password <> '{HASH}'"
        assert [row[0] for row in fetch(users, changed)] == ["Ada"]
        ended = "SELECT user_id FROM user_sessions WHERE revoked_at IS NOT NULL"
        assert [row[0] for row in fetch(users, ended)] == [2]
        assert value(users, "SELECT count(*) FROM second_factors") == 1
        assert [tuple(row) for row in fetch(users, "SELECT kind, email FROM mails")] == [
            ("password_changed", "Ada@example.com")
        ]
        assert events(users) == [
            ("RESET_PASSWORD", None, "User 2 got a new password from the command line")
        ]

    def test_link_to_reset_the_password_is_mailed(
        self, users: str, succeed: Command, fail: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        succeed("users", "reset-password", "ada", "--mail")
        assert [tuple(row) for row in fetch(users, "SELECT kind, user_id FROM mails")] == [
            ("reset_password", 2)
        ]
        assert [event[0] for event in events(users)] == ["MAIL_PASSWORD_RESET"]
        for name, setting in PRODUCTION.items():
            monkeypatch.setenv(name, setting)
        get_settings.cache_clear()
        assert "SMTP_HOST is not set" in fail("users", "reset-password", "ada", "--mail")

    def test_second_factor_is_removed(self, users: str, succeed: Command, fail: Command) -> None:
        succeed("users", "reset-second-factor", "ada")
        for table in ("second_factors", "recovery_codes"):
            assert value(users, f"SELECT count(*) FROM {table}") == 0
        assert events(users) == [
            (
                "DISABLE_SECOND_FACTOR",
                None,
                "User 2 no longer has a second factor from the command line",
            )
        ]
        assert "second factor is not enabled" in fail("users", "reset-second-factor", "ada")

    def test_arguments_of_reset_login_limits(self, users: str, fail: Command) -> None:
        for arguments in ((), ("ada", "--all"), ("--all", "--address", "192.0.2.1")):
            assert "either a user or --all" in fail("users", "reset-login-limits", *arguments)
        wrong = ("ada", "--address", "somewhere")
        assert "not an IP address" in fail("users", "reset-login-limits", *wrong)

    def test_all_login_limits_are_deleted(self, users: str, succeed: Command) -> None:
        execute(
            users,
            "INSERT INTO attempts (key, failures, pending, tried_at)"
            " SELECT int4send(n), 20, 0, now() FROM generate_series(1, 2500) AS n",
        )
        assert succeed("users", "reset-login-limits", "--all") == "Deleted 2500 login limits"
        assert value(users, "SELECT count(*) FROM attempts") == 0
        assert events(users) == [
            ("DELETE_LOGIN_LIMITS", None, "2500 login limits deleted from the command line")
        ]


class TestCounters:
    def test_wrong_counters_are_corrected(
        self, users: str, succeed: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counts = (
            "SELECT (SELECT jsonb_agg(c ORDER BY article_id) FROM article_counts AS c"
            " WHERE favorites + comments > 0)::text || (SELECT jsonb_agg(c ORDER BY user_id)"
            " FROM user_counts AS c)::text"
        )
        assert run("seed", "--users", "5", "--articles", "5") == 0
        execute(
            users,
            "INSERT INTO favorites (user_id, article_id, created_at)"
            " SELECT users.id, articles.id, now() FROM users, articles WHERE users.id > 3",
            "INSERT INTO comments (article_id, author_id, content, html, status)"
            " SELECT id, 1, 'x', '', s FROM articles, unnest('{visible,hidden}'::text[]) AS s",
            "INSERT INTO follows (follower_id, followed_id, created_at)"
            " SELECT a.id, b.id, now() FROM users AS a, users AS b WHERE a.id < b.id",
        )
        right = value(users, counts)
        assert right
        execute(
            users,
            "DELETE FROM article_counts WHERE article_id = (SELECT min(id) FROM articles)",
            "UPDATE article_counts SET favorites = 77",
            "UPDATE user_counts SET followers = 5, following = -1",
            "INSERT INTO user_counts (user_id, followers) VALUES (1, 9)"
            " ON CONFLICT (user_id) DO UPDATE SET followers = 9",
        )
        assert value(users, counts) != right
        assert "Corrected 12 counters" in succeed("counters", "recount")
        assert value(users, counts) == right
        assert "Corrected 0 counters" in succeed("counters", "recount")
        assert events(users)[-2:] == [
            ("RECOUNT_COUNTERS", None, "12 counters corrected from the command line"),
            ("RECOUNT_COUNTERS", None, "0 counters corrected from the command line"),
        ]


class TestMail:
    @pytest.fixture
    def mails(self, users: str) -> str:
        columns = "kind, email, details, created_at, attempts, next_attempt_at, sent_at, error"
        execute(
            users,
            f"INSERT INTO mails ({columns}) VALUES"
            " ('verify_email', 'a@x', NULL, now(), 15, NULL, NULL, 'gave up'),"
            " ('verify_email', 'b@x', NULL, now(), 3, now() + interval '1 hour', NULL, 'failed'),"
            " ('register', 'c@x', '{}', now(), 3, now() + interval '1 hour', NULL, 'failed'),"
            " ('register', 'd@x', NULL, now(), 15, NULL, NULL, 'gave up'),"
            " ('verify_email', 'e@x', NULL, now(), 1, NULL, now(), NULL),"
            " ('verify_email', 'f@x', NULL, now(), 0, NULL, NULL, 'cancelled'),"
            " ('verify_email', 'g@x', NULL, now() - interval '2 days', 15, NULL, NULL, 'old'),"
            " ('verify_email', 'h@x', NULL, now() - interval '1 hour', 0,"
            "   now() - interval '1 hour', NULL, NULL)",
        )
        return users

    def test_unsent_mails_are_listed(self, mails: str, succeed: Command) -> None:
        listed = succeed("mail", "list")
        assert [letter for letter in "abcdefgh" if f"{letter}@x" in listed] == list("abcdgh")
        assert "a@x 15 attempts, given up: gave up" in listed
        execute(mails, "DELETE FROM mails")
        assert succeed("mail", "list") == "No mail has failed"

    def test_failed_mails_are_queued_again(self, mails: str, succeed: Command) -> None:
        due = "SELECT email FROM mails WHERE attempts = 0 AND error IS NOT NULL AND email <> 'f@x'"
        assert succeed("mail", "requeue", "2") == "Queued 1 mail again"
        assert [row[0] for row in fetch(mails, due)] == ["b@x"]
        assert succeed("mail", "requeue") == "Queued 3 mails again"
        assert {row[0] for row in fetch(mails, due)} == {"a@x", "b@x", "c@x"}
        assert value(mails, "SELECT count(*) FROM mails WHERE next_attempt_at <= now()") == 4
        assert [event[2] for event in events(mails)] == [
            "1 mail queued again from the command line",
            "3 mails queued again from the command line",
        ]
        assert succeed("mail", "requeue", "999") == "Queued 0 mails again"


class TestWebhooks:
    @pytest.fixture
    def webhooks(self, users: str) -> str:
        """Create webhooks of `ada`: one works, one fails, one was disabled for its failures."""
        execute(
            users,
            "INSERT INTO webhooks (owner_id, url, events, payload_version, sealed_secret,"
            " event_xid, event_id, failures, failing_since, is_active, disabled_reason)"
            " SELECT users.id, 'https://' || host || '.example.com', '{article.published}', 1, 's',"
            " 0, 0, failures, CASE WHEN failures > 0 THEN now() END, reason IS NULL, reason"
            " FROM users, (VALUES ('works', 0, NULL), ('fails', 2, NULL), ('gone', 9, 'gave up'))"
            " AS given (host, failures, reason) WHERE username = 'Ada'",
            "INSERT INTO webhook_deliveries (webhook_id, message_id, kind, created_at, attempts,"
            " next_attempt_at, delivered_at)"
            " VALUES (2, gen_random_uuid(), 'article.updated', now(), 2, now(), NULL),"
            " (1, gen_random_uuid(), 'article.published', now(), 1, NULL, now())",
            "INSERT INTO webhook_attempts (delivery_id, started_at, milliseconds, status, error,"
            " answer) VALUES (1, now(), 12, 502, 'the receiver answered 502', 'Bad\nGateway'),"
            " (2, now(), 5, 204, NULL, '')",
        )
        return users

    def test_webhooks_are_listed(self, webhooks: str, succeed: Command) -> None:
        listed = succeed("webhooks", "list")
        assert "user 2 https://works.example.com working" in listed
        assert "https://fails.example.com 2 failures since 20" in listed
        assert "https://gone.example.com disabled: gave up" in listed
        failing = succeed("webhooks", "list", "--failing", "--owner", "2")
        assert "works" not in failing
        assert "fails" in failing
        assert succeed("webhooks", "list", "--owner", "1") == "There is no webhook"
        assert succeed("webhooks", "list", "--owner", "1", "--failing") == "No webhook fails"

    def test_all_pages_are_listed(self, webhooks: str, succeed: Command) -> None:
        columns = "owner_id, url, events, payload_version, sealed_secret, event_xid, event_id"
        execute(
            webhooks,
            f"INSERT INTO webhooks ({columns}) SELECT {columns} FROM webhooks,"
            " generate_series(1, 50)",
        )
        assert succeed("webhooks", "list").count("https://") == 153

    def test_deliveries_and_attempts_are_shown(
        self, webhooks: str, succeed: Command, fail: Command
    ) -> None:
        assert "article.updated pending, 2 attempts, next 20" in succeed(
            "webhooks", "deliveries", "2"
        )
        assert "article.published delivered, 1 attempt" in succeed("webhooks", "deliveries", "1")
        empty = succeed("webhooks", "deliveries", "2", "--state", "failed")
        assert empty == "There is no delivery"
        shown = succeed("webhooks", "show", "2", "1")
        assert "12 ms the receiver answered 502 'Bad\\nGateway'" in shown
        assert succeed("webhooks", "show", "1", "2").endswith("5 ms status 204")
        assert fail("webhooks", "show", "1", "1") == "Delivery not found"

    def test_webhook_is_disabled_and_enabled(
        self, webhooks: str, succeed: Command, fail: Command
    ) -> None:
        active = "SELECT is_active, failures FROM webhooks WHERE id = 2"
        assert succeed("webhooks", "disable", "2") == "Webhook 2 is disabled"
        assert tuple(fetch(webhooks, active)[0]) == (False, 2)
        assert succeed("webhooks", "enable", "2") == "Webhook 2 is enabled"
        assert tuple(fetch(webhooks, active)[0]) == (True, 0)
        assert (
            events(webhooks)
            == [("UPDATE_WEBHOOK", None, "Webhook 2 updated from the command line")] * 2
        )
        assert fail("webhooks", "enable", "9") == "Webhook not found"

    def test_deliveries_are_sent_again(
        self, webhooks: str, succeed: Command, fail: Command
    ) -> None:
        due = "SELECT count(*) FROM webhook_deliveries WHERE id = 2 AND next_attempt_at <= now()"
        span = ("--since", MOMENT, "--until", "2100-01-01T00:00:00Z")
        assert succeed("webhooks", "replay", "1", *span) == "1 delivery is sent again"
        assert value(webhooks, due) == 1
        assert succeed("webhooks", "replay", "1", *span) == "0 deliveries are sent again"
        assert "must be before" in fail(
            "webhooks", "replay", "1", "--since", MOMENT, "--until", MOMENT
        )


class TestJobs:
    def test_jobs_are_listed(self, users: str, succeed: Command) -> None:
        listed = succeed("jobs", "list")
        assert "housekeeping every 3600 s" in listed
        assert "media cleanup every 60 s" in listed

    def test_job_is_run_once(self, users: str, succeed: Command, fail: Command) -> None:
        execute(
            users,
            "INSERT INTO attempts (key, failures, pending, tried_at)"
            " VALUES ('1', 1, 0, now() - interval '2 days')",
        )
        assert "The job housekeeping is done" in succeed("jobs", "run", "housekeeping")
        assert value(users, "SELECT count(*) FROM attempts") == 0
        assert events(users) == [("RUN_JOB", None, "1 housekeeping job run from the command line")]
        assert "there are: housekeeping" in fail("jobs", "run", "nothing")

    def test_failed_steps_are_named(self, fresh_database: str, fail: Command) -> None:
        execute(fresh_database, "ALTER TABLE attempts RENAME TO renamed")
        error = fail("jobs", "run", "housekeeping")
        assert "attempts: ProgrammingError" in error
        assert "Traceback" not in error


class TestOperations:
    def test_recorded_runs_are_shown(self, users: str, succeed: Command) -> None:
        assert "no success recorded" in succeed("jobs", "list")
        succeed("jobs", "run", "announcing")
        listed = succeed("jobs", "list")
        assert re.search(r"announcing every 2 s last success 20\d\d-", listed), listed
        assert value(users, "SELECT count(*) FROM job_runs WHERE finished_at IS NOT NULL") == 1

    def test_waiting_mail_is_cancelled(self, users: str, succeed: Command, fail: Command) -> None:
        columns = "kind, email, created_at, attempts, next_attempt_at"
        execute(
            users, f"INSERT INTO mails ({columns}) VALUES ('verify_email', 'a', now(), 0, now())"
        )
        assert succeed("mail", "cancel", "1") == "Mail 1 is cancelled"
        assert "Only a mail that waits" in fail("mail", "cancel", "1")

    def test_audit_events_are_listed_and_exported(self, users: str, succeed: Command) -> None:
        succeed("jobs", "run", "announcing")
        listed = succeed("audit", "list", "--action", "RUN_JOB", "--since", MOMENT)
        assert "RUN_JOB - 1 announcing job run from the command line" in listed
        assert succeed("audit", "list", "--action", "LOGIN") == ""
        exported = succeed("audit", "export", "--until", MOMENT)
        assert exported == ""
        assert '"action":"RUN_JOB"' in succeed("audit", "export")

    def test_sessions_are_listed_and_ended(
        self, users: str, succeed: Command, fail: Command
    ) -> None:
        assert "1 root api opened" in succeed("sessions", "list", "--user", "1")
        assert succeed("sessions", "end", "1") == "Session 1 has ended"
        assert "Session not found" in fail("sessions", "end", "1")
        assert succeed("sessions", "list", "--user", "1") == "There is no active session"

    def test_statistics_are_json(self, users: str, succeed: Command) -> None:
        assert json.loads(succeed("stats"))["users"] == 2

    def test_maintenance_begins_and_ends(self, users: str, succeed: Command) -> None:
        assert succeed("maintenance", "show") == "The server is not in maintenance"
        assert "pressroom maintenance end" in succeed("maintenance", "begin", "We are moving.")
        assert succeed("maintenance", "show").endswith("UTC: We are moving.")
        assert succeed("maintenance", "end") == "The server accepts writes"
        assert succeed("maintenance", "show") == "The server is not in maintenance"
        assert [event[0] for event in events(users)] == ["BEGIN_MAINTENANCE", "END_MAINTENANCE"]


def test_created_administrator_has_the_command_line_as_its_actor(
    users: str, succeed: Command
) -> None:
    arguments = ("--email", "b@example.com", "--username", "boss", "--password", PASSWORD)
    succeed("create-admin", *arguments)
    assert events(users) == [("CREATE_USER", None, "User 3 created from the command line")]
