"""`pressroom doctor` finds what is wrong, and says what to do."""

import http.server
import os
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app import __version__, diagnosis
from app.core import clock
from app.core.config import Environment, Settings, SmtpSecurity
from app.db.session import Database
from app.diagnosis import Finding, Level
from tests.certificates import Certificates
from tests.commands import PRODUCTION, run
from tests.databases import application_url, execute
from tests.processes import HOST, free_port
from tests.smtp import mail_server

pytestmark = pytest.mark.usefixtures("restored_environment")


async def found(check: AsyncIterator[Finding]) -> dict[Level, list[str]]:
    """Return subject, text and advice of the findings, by level."""
    findings: dict[Level, list[str]] = {level: [] for level in Level}
    async for level, *texts in check:
        findings[level].append(": ".join(texts))
    return findings


@pytest.fixture
def local(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"media_dir": tmp_path, "smtp_host": None})


@contextmanager
def site(answer: bytes, status: int = 200, *, tls: Path | None = None) -> Iterator[str]:
    """Run a server that answers every request like this; yield its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer((HOST, 0), Handler) as server:
        if tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http{'s' if tls else ''}://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


class TestDatabase:
    async def check(self, settings: Settings) -> dict[Level, list[str]]:
        database = Database.from_settings(settings)
        try:
            return await found(diagnosis.check_database(settings, database))
        finally:
            await database.dispose()

    async def test_restricted_role_at_the_current_revision(self, local: Settings) -> None:
        url = application_url(str(local.database_url))
        findings = await self.check(local.model_copy(update={"database_url": url}))
        assert findings[Level.WARNING] == findings[Level.PROBLEM] == []
        assert [text.split(":")[0] for text in findings[Level.OK]] == [
            "database",
            "clock",
            "revision",
        ]

    async def test_superuser_is_a_problem_in_production(self, local: Settings) -> None:
        warnings = (await self.check(local))[Level.WARNING]
        (warning,) = [each for each in warnings if "is a superuser" in each]
        assert "is a superuser: use a role that only reads" in warning
        production = local.model_copy(update={"environment": Environment.PRODUCTION})
        problems = (await self.check(production))[Level.PROBLEM]
        assert any(each.endswith(warning.partition(":")[2].strip()) for each in problems)

    async def test_unreachable_database(self, local: Settings) -> None:
        gone = local.model_copy(update={"database_url": "postgresql+asyncpg://u@127.0.0.1:1/d"})
        (problem,) = (await self.check(gone))[Level.PROBLEM]
        assert "ConnectionRefusedError" in problem
        assert "check DATABASE_URL" in problem

    async def test_wrong_clock(self, local: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        now = clock.now()
        monkeypatch.setattr(clock, "system_now", lambda: now - timedelta(minutes=1))
        warnings = (await self.check(local))[Level.WARNING]
        (warning,) = [each for each in warnings if "clock: the clock differs" in each]
        assert "NTP" in warning

    @pytest.mark.parametrize(
        ("revision", "level", "advice"),
        [("0001", Level.PROBLEM, "run migrate"), ("9999", Level.WARNING, "finish the upgrade")],
    )
    def test_other_revision(
        self,
        fresh_database: str,
        capsys: pytest.CaptureFixture[str],
        revision: str,
        level: Level,
        advice: str,
    ) -> None:
        execute(fresh_database, f"UPDATE alembic_version SET version_num = '{revision}'")
        run("doctor")
        lines = capsys.readouterr().out.splitlines()
        (index,) = [number for number, line in enumerate(lines) if " revision " in line]
        assert lines[index].startswith(level)
        expected = "docker compose run --rm migrate" if advice == "run migrate" else advice
        assert expected in lines[index + 1]


class TestUrls:
    async def check(self, settings: Settings, **changes: Any) -> dict[Level, list[str]]:
        return await found(diagnosis.check_urls(settings.model_copy(update=changes)))

    async def test_reachable_api(self, local: Settings) -> None:
        with site(b'{"status": "alive"}') as url:
            findings = await self.check(local, api_url=url)
        assert findings[Level.OK] == [f"urls: {url}/health/live answers: "]
        assert findings[Level.WARNING] == findings[Level.PROBLEM] == []

    @pytest.mark.parametrize(
        ("answer", "status", "text"),
        [
            (b"<html>", 200, "is another site"),
            (b"[]", 200, "is another site"),
            (b"{}", 200, "is another site"),
            (b"", 421, "answers 421: add the host of API_URL to ALLOWED_HOSTS"),
            (b"", 502, "answers 502: check API_URL"),
        ],
    )
    async def test_wrong_answer(
        self, local: Settings, answer: bytes, status: int, text: str
    ) -> None:
        with site(answer, status) as url:
            (problem,) = (await self.check(local, api_url=url))[Level.PROBLEM]
        assert text in problem

    async def test_unreachable_api_and_front_end_without_cors(self, local: Settings) -> None:
        warnings = (
            await self.check(
                local,
                api_url=f"http://localhost:{free_port()}",
                public_url="http://www.example.com",
                environment=Environment.PRODUCTION,
            )
        )[Level.WARNING]
        assert [text.split(": ")[1].split(" ")[0] for text in warnings[:2]] == [
            "API_URL",
            "PUBLIC_URL",
        ]
        assert "add it to CORS_ORIGINS" in warnings[2]
        assert "is not reachable from here" in warnings[3]

    async def test_pages_in_place_of_a_front_end(self, local: Settings) -> None:
        with site(b'{"status": "alive"}') as url:
            findings = await self.check(
                local,
                api_url=url,
                cors_origins=[],
                environment=Environment.PRODUCTION,
                web_reader=True,
                web_studio=True,
            )
        (warning,) = findings[Level.WARNING]
        assert "API_URL is not https" in warning


class TestCertificates:
    async def check(self, settings: Settings, **changes: Any) -> dict[Level, list[str]]:
        return await found(diagnosis.check_certificates(settings.model_copy(update=changes)))

    async def test_certificate_that_expires_soon(
        self, local: Settings, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
        with site(b"", tls=certificates.server) as url:
            (warning,) = (await self.check(local, api_url=url))[Level.WARNING]
            assert "API_URL: valid for 4 days" in warning
            now = clock.now()
            monkeypatch.setattr(clock, "now", lambda: now + timedelta(days=6))
            (problem,) = (await self.check(local, api_url=url))[Level.PROBLEM]
            assert "API_URL: expired on" in problem
            monkeypatch.setattr(clock, "now", lambda: now - timedelta(days=90))
            (valid,) = (await self.check(local, api_url=url))[Level.OK]
            assert "API_URL: valid for 94 days" in valid

    async def test_invalid_certificate_and_unreachable_server(
        self, local: Settings, certificates: Certificates
    ) -> None:
        closed = f"https://localhost:{free_port()}"
        with site(b"", tls=certificates.server) as url:
            findings = await self.check(local, api_url=url, public_url=closed)
        assert "install a valid certificate" in findings[Level.PROBLEM][0]
        assert "not reachable" in findings[Level.WARNING][0]

    async def test_certificate_of_the_database(
        self, local: Settings, certificates: Certificates
    ) -> None:
        url = f"postgresql+asyncpg://u@h/d?ssl=verify-full&sslrootcert={certificates.authority}"
        (warning,) = (await self.check(local, database_url=url))[Level.WARNING]
        assert f"{certificates.authority}: valid for 4 days" in warning


class TestMail:
    async def check(
        self, settings: Settings, database: Database, **changes: Any
    ) -> dict[Level, list[str]]:
        changed = settings.model_copy(update=changes)
        return await found(diagnosis.check_mail(changed, database))

    async def test_login_is_tried(self, local: Settings, database: Database) -> None:
        port = free_port()
        smtp = {
            "smtp_host": HOST,
            "smtp_port": port,
            "smtp_security": SmtpSecurity.NONE,
            "smtp_username": "blog",
        }
        with mail_server(port, auth_require_tls=False) as server:
            right = await self.check(local, database, **smtp, smtp_password="right")
            wrong = await self.check(local, database, **smtp, smtp_password="wrong")
        assert "accepts the connection and the login" in right[Level.OK][0]
        assert "SMTPAuthenticationError" in wrong[Level.PROBLEM][0]
        assert server.messages == []
        closed = await self.check(local, database, **smtp)
        assert "check SMTP_HOST" in closed[Level.PROBLEM][0]

    async def test_mail_without_a_server(self, local: Settings, database: Database) -> None:
        assert (await self.check(local, database))[Level.OK][
            0
        ] == "mail: mail is logged, not sent: "
        production = {"environment": Environment.PRODUCTION}
        (warning,) = (await self.check(local, database, **production))[Level.WARNING]
        assert "passwords cannot be recovered: set SMTP_HOST" in warning

    async def test_waiting_mail(self, local: Settings, database: Database) -> None:
        from sqlalchemy import text

        async with database.unit_of_work() as session:
            await session.execute(
                text(
                    "INSERT INTO mails (kind, email, created_at, attempts, next_attempt_at)"
                    " VALUES ('register', 'a@example.com', now(), 0, now() - interval '1 hour')"
                )
            )
        (warning,) = (await self.check(local, database))[Level.WARNING]
        assert "1 mail waits" in warning
        assert "pressroom mail requeue" in warning


class TestStorageAndDisk:
    async def test_file_is_stored_and_deleted(self, local: Settings, tmp_path: Path) -> None:
        findings = await found(diagnosis.check_storage(local))
        assert findings[Level.OK] == [f"storage: {tmp_path} stores and deletes files: "]
        assert not any(files for _, _, files in os.walk(tmp_path))

    async def test_unusable_folder(self, local: Settings, tmp_path: Path) -> None:
        (tmp_path / "incoming").touch()
        (problem,) = (await found(diagnosis.check_storage(local)))[Level.PROBLEM]
        assert "does not work" in problem
        assert "must be writable" in problem

    @pytest.mark.parametrize(
        ("free", "level"),
        [(50, Level.OK), (9, Level.WARNING), (0.5, Level.PROBLEM)],
    )
    async def test_free_space(
        self, local: Settings, monkeypatch: pytest.MonkeyPatch, free: float, level: Level
    ) -> None:
        gib = diagnosis.GIGABYTE
        monkeypatch.setattr(
            "shutil.disk_usage",
            lambda path: SimpleNamespace(total=100 * gib, free=free * gib),
        )
        assert f"{free:.1f} of 100.0 GiB" in (await found(diagnosis.check_disk(local)))[level][0]


class TestDoctor:
    def test_healthy_development_has_no_problems(
        self,
        own_database: str,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("MEDIA_DIR", str(tmp_path))
        assert run("doctor") == 0
        printed = capsys.readouterr().out
        assert f"Pressroom {__version__}" in printed
        for subject in ("settings", "keys", "database", "revision", "clock", "mail", "storage"):
            assert f"ok       {subject} " in printed
        assert " 1 key is accepted, HS256 signs" in printed
        assert "\n0 problems, " in printed

    def test_invalid_settings_are_a_problem(
        self, own_database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from app.core.config import get_settings

        for name, setting in {**PRODUCTION, "SECRET_KEY": "short"}.items():
            monkeypatch.setenv(name, setting)
        get_settings.cache_clear()
        assert run("doctor") == 1
        printed = capsys.readouterr().out
        assert "problem  settings" in printed
        assert "SECRET_KEY is shorter" in printed
        assert printed.endswith("\n1 problem, 0 warnings\n")

    async def test_check_with_a_defect_does_not_end_the_others(
        self, local: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> AsyncIterator[Finding]:
            raise ValueError("broken")

        monkeypatch.setattr(diagnosis, "check_urls", fail)
        findings = await diagnosis.examine(local, database)
        texts = [finding.text for finding in findings]
        assert "the check failed: ValueError: broken" in texts
        assert findings[-1].subject == "disk"
