"""The API of administrators: the audit trail, jobs, mail, sessions, statistics and health."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import null, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.enums import Role
from app.core.errors import DatabaseFull, NotAuthorized
from app.core.job_states import JobState, StepsFailed
from app.db import failures
from app.db.session import Database
from app.models import AuditEvent, JobRun, Mail, User, UserSession
from app.schemas.audit import AuditFilter
from app.schemas.mail import MailState
from app.services import gauges, job_runs, operations, outbox
from app.services.health import DISK_FULL
from app.services.purging import in_batches
from tests.factories import (
    bearer,
    create_article,
    create_mail,
    create_media,
    create_session,
    create_user,
)
from tests.test_operations import identity_of


@pytest.fixture
async def admin(session: AsyncSession) -> User:
    return await create_user(session, username="root", role=Role.ADMIN)


@pytest.fixture
def headers(admin: User) -> dict[str, str]:
    return bearer(admin)


def add_event(session: AsyncSession, **columns: Any) -> None:
    values = {"action": "LOGIN", "subject_type": "user", "subject_id": 1, "message": "User 1 …"}
    session.add(AuditEvent(**{**values, **columns}))


async def test_audit_events_are_filtered_and_paginated(
    client: httpx.AsyncClient, session: AsyncSession, admin: User, headers: dict[str, str]
) -> None:
    now = clock.now()
    for hours in range(5):
        add_event(session, actor_id=admin.id, occurred_at=now - timedelta(hours=hours))
        await session.flush()
    add_event(session, action="DELETE_ARTICLE", subject_type="article", subject_id=7)
    await session.flush()
    first = await client.get("/admin/audit", params={"limit": 4}, headers=headers)
    assert [each["action"] for each in first.json()] == ["DELETE_ARTICLE", *["LOGIN"] * 3]
    assert first.headers["Cache-Control"] == "no-store"
    following = first.headers["Link"].split(", ")[1].partition(">")[0].removeprefix("<")
    assert len((await client.get(following, headers=headers)).json()) == 2
    since = (now - timedelta(hours=2)).isoformat()
    for path, count in {
        f"actor={admin.id}": 5,
        "subject=article&subject_id=7": 1,
        "action=LOGIN": 5,
        f"actor={admin.id}&until={since}": 2,
        f"actor={admin.id}&since={since}": 3,
    }.items():
        listed = await client.get(f"/admin/audit?{path.replace('+', '%2B')}", headers=headers)
        assert len(listed.json()) == count, path


async def test_audit_export_has_all_events_in_batches(
    client: httpx.AsyncClient,
    session: AsyncSession,
    headers: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operations, "EXPORT_BATCH", 2)
    for number in range(1, 6):
        add_event(session, subject_id=number, message="two\nlines")
    add_event(session, action="LOGOUT")
    await session.flush()
    response = await client.get("/admin/audit/export?action=LOGIN", headers=headers)
    assert response.headers["Content-Type"] == "application/x-ndjson"
    assert response.headers["Cache-Control"] == "private, no-store"
    events = [json.loads(line) for line in response.text.splitlines()]
    assert [each["subject_id"] for each in events] == [5, 4, 3, 2, 1]


async def test_audit_export_ends_when_the_role_is_withdrawn(
    database: Database, session: AsyncSession, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "EXPORT_BATCH", 1)
    for _ in range(3):
        add_event(session)
    login = await create_session(session, user=admin)
    user = identity_of(admin)._replace(session_id=login.id)
    lines = await operations.export_events(database, query=AuditFilter(), user=user)
    assert await anext(lines)
    await session.execute(update(User).where(User.id == admin.id).values(role=Role.EDITOR))
    with pytest.raises(NotAuthorized):
        await anext(lines)


async def ended_run(session: AsyncSession, job: str) -> JobRun:
    """Wait until no run of the job is in progress, and return the last one."""
    async with asyncio.timeout(10):
        while True:
            run = await session.scalar(
                select(JobRun)
                .where(JobRun.job == job)
                .order_by(JobRun.id.desc())
                .limit(1)
                .execution_options(populate_existing=True)
            )
            if run is not None and run.finished_at is not None:
                return run
            await asyncio.sleep(0)


Work = Callable[[], Awaitable[object]]


@pytest.fixture
def jobs(app: FastAPI) -> Iterator[dict[str, Work]]:
    """Replace the jobs of the application with those that the test adds."""
    jobs: dict[str, Work] = {}
    original = app.state.work_by_name
    app.state.work_by_name = lambda database: jobs
    yield jobs
    app.state.work_by_name = original


async def test_requested_run_is_recorded(
    client: httpx.AsyncClient,
    session: AsyncSession,
    headers: dict[str, str],
    app: FastAPI,
    jobs: dict[str, Work],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(app.state.jobs, "counting", JobState(60))
    may_end = asyncio.Event()

    async def count() -> int:
        await may_end.wait()
        return 3

    jobs["counting"] = count
    url = "/admin/jobs/counting/run"
    response = await client.post(url, headers=headers)
    assert response.status_code == 202
    assert response.json()["finished_at"] is None
    again = await client.post(url, headers=headers)
    assert (again.status_code, again.json()["code"]) == (409, "job_already_running")
    may_end.set()
    run = await ended_run(session, "counting")
    assert (run.rows, run.error, run.host) == (3, None, job_runs.HOST)
    (listed,) = (await client.get("/admin/jobs", headers=headers)).json()
    assert listed["name"] == "counting"
    assert listed["interval_seconds"] == 60
    assert listed["last_run"]["rows"] == 3
    assert listed["last_success_at"] == listed["last_run"]["finished_at"]
    runs = await client.get("/admin/jobs/counting/runs", headers=headers)
    assert [each["id"] for each in runs.json()] == [run.id]
    message = await session.scalar(select(AuditEvent.message).where(AuditEvent.action == "RUN_JOB"))
    assert message == "1 counting job run"


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        (StepsFailed({"tags": ValueError("private")}), "StepsFailed: tags: ValueError"),
        (ValueError("private"), "ValueError"),
    ],
)
async def test_failed_run_is_recorded_without_personal_data(
    client: httpx.AsyncClient,
    session: AsyncSession,
    headers: dict[str, str],
    jobs: dict[str, Work],
    error: Exception,
    recorded: str,
) -> None:
    async def fail() -> None:
        raise error

    jobs["failing"] = fail
    assert (await client.post("/admin/jobs/failing/run", headers=headers)).status_code == 202
    assert (await ended_run(session, "failing")).error == recorded


async def test_unknown_job_is_not_found(
    client: httpx.AsyncClient, headers: dict[str, str], jobs: dict[str, Work]
) -> None:
    response = await client.post("/admin/jobs/none/run", headers=headers)
    assert (response.status_code, response.json()["code"]) == (404, "job_not_found")


async def test_run_of_a_lost_process_does_not_block_the_next(
    client: httpx.AsyncClient,
    session: AsyncSession,
    headers: dict[str, str],
    jobs: dict[str, Work],
) -> None:
    async def work() -> None:
        pass

    jobs["counting"] = work
    started = clock.now() - job_runs.LOST_AFTER - timedelta(seconds=1)
    lost = JobRun(job="counting", started_at=started, host="gone")
    session.add(lost)
    await session.flush()
    assert (await client.post("/admin/jobs/counting/run", headers=headers)).status_code == 202
    await ended_run(session, "counting")
    await session.refresh(lost)
    assert lost.error == "The process ended before the run did"


async def test_idle_runs_are_recorded_once_a_minute(
    database: Database, session: AsyncSession
) -> None:
    recorder = job_runs.Recorder(database, "idle")
    start = clock.now()

    async def note(seconds: int, **outcome: Any) -> None:
        moment = start + timedelta(seconds=seconds)
        await recorder.note(job_runs.Outcome(**outcome), started_at=moment)

    await note(0)
    await note(2)
    await note(4, rows=1)
    await note(6, error="ValueError")
    await note(8, error="ValueError")
    await note(10)
    await note(69)
    await note(70)
    runs = await session.execute(select(JobRun.started_at, JobRun.rows).order_by(JobRun.id))
    seconds = [round((run.started_at - start).total_seconds()) for run in runs]
    assert seconds == [0, 4, 6, 10, 70]


async def test_old_runs_are_deleted_except_for_the_last_success(
    database: Database, session: AsyncSession
) -> None:
    for days, error in [(30, None), (20, None), (10, "ValueError"), (0, "ValueError")]:
        moment = clock.now() - timedelta(days=days)
        values = {"started_at": moment, "finished_at": moment, "error": error, "host": "a"}
        session.add(JobRun(job="backup", **values))
        await session.flush()
    await in_batches(database, job_runs.purge)
    left = await session.scalars(select(JobRun.started_at).order_by(JobRun.id))
    assert [(clock.now() - each).days for each in left] == [20, 10, 0]


async def test_failed_mail_is_sent_again(
    client: httpx.AsyncClient, session: AsyncSession, headers: dict[str, str]
) -> None:
    failed = await create_mail(session, error="SMTPException 550", next_attempt_at=null())
    url = f"/admin/mail/{failed.id}/retry"
    assert (await client.post(url, headers=headers)).status_code == 204
    (listed,) = (await client.get("/admin/mail?state=waiting", headers=headers)).json()
    assert listed["id"] == failed.id
    await session.execute(update(Mail).values(sent_at=clock.now(), error=None))
    refused = await client.post(url, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (409, "mail_not_retryable")
    assert (await client.post("/admin/mail/999999/retry", headers=headers)).status_code == 404


async def test_waiting_mail_is_cancelled(
    client: httpx.AsyncClient, session: AsyncSession, headers: dict[str, str]
) -> None:
    mail = await create_mail(session, details={"password_hash": "secret"})
    url = f"/admin/mail/{mail.id}"
    assert (await client.delete(url, headers=headers)).status_code == 204
    await session.refresh(mail)
    assert (mail.next_attempt_at, mail.details, mail.error) == (None, None, "cancelled")
    again = await client.delete(url, headers=headers)
    assert (again.status_code, again.json()["code"]) == (409, "mail_not_cancellable")
    assert (await client.delete("/admin/mail/999999", headers=headers)).status_code == 404
    assert (await client.post(f"{url}/retry", headers=headers)).status_code == 409


async def test_sessions_of_all_users_are_listed_and_ended(
    client: httpx.AsyncClient, session: AsyncSession, headers: dict[str, str]
) -> None:
    ada, other = [await create_user(session, username=name) for name in ("ada", "other")]
    own = [await create_session(session, user=ada) for _ in range(3)]
    # Each user of the factory has a session, too.
    await create_session(session, user=other)
    await session.execute(
        update(UserSession).where(UserSession.id == own[0].id).values(by_page=True)
    )
    page = await client.get(f"/admin/sessions?user={ada.id}&limit=3", headers=headers)
    assert [each["id"] for each in page.json()] == [each.id for each in reversed(own)]
    following = page.headers["Link"].split(", ")[1].partition(">")[0].removeprefix("<")
    (last,) = (await client.get(following, headers=headers)).json()
    assert (last["username"], last["kind"], last["current"]) == ("ada", "api", False)
    assert [each["kind"] for each in page.json()] == ["api", "api", "page"]
    everyone = (await client.get("/admin/sessions", headers=headers)).json()
    assert {each["username"] for each in everyone} == {"ada", "other", "root"}
    assert [each["username"] for each in everyone if each["current"]] == ["root"]
    url = f"/admin/sessions/{own[0].id}"
    assert (await client.delete(url, headers=headers)).status_code == 204
    assert (await client.delete(url, headers=headers)).status_code == 404
    left = (await client.get(f"/admin/sessions?user={ada.id}", headers=headers)).json()
    assert len(left) == 3


async def test_statistics_count_content_and_sizes(
    client: httpx.AsyncClient, session: AsyncSession, admin: User, headers: dict[str, str]
) -> None:
    now = clock.now()
    await create_article(session, author=admin)
    await create_article(session, author=admin, published=False)
    await create_article(session, author=admin, published_at=now + timedelta(days=1))
    await create_article(session, author=admin, archived_at=now)
    old = await create_article(session, author=admin, deleted_at=now)
    old.created_at = now - timedelta(days=8)
    media = await create_media(session, owner=admin)
    await session.flush()
    found = (await client.get("/admin/stats", headers=headers)).json()
    assert found["articles"] == {
        "published": 1, "scheduled": 1, "drafts": 1, "archived": 1, "trash": 1,
    }  # fmt: skip
    assert found["growth"]["articles"] == {"day": 4, "week": 4, "month": 5}
    assert (found["users"], found["media"], found["media_bytes"]) == (1, 1, media.bytes)
    sizes = [each["bytes"] for each in found["tables"]]
    assert sizes == sorted(sizes, reverse=True)
    assert {"articles", "job_runs"} < {each["name"] for each in found["tables"]}
    assert found["database_bytes"] > 0


async def test_health_shows_what_an_operator_asks(
    client: httpx.AsyncClient,
    session: AsyncSession,
    headers: dict[str, str],
    app: FastAPI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = JobState(60)
    state.note_failure(ValueError())
    monkeypatch.setitem(app.state.jobs, "counting", state)
    moment = clock.now() - timedelta(hours=1)
    values = {"started_at": moment, "finished_at": moment, "host": "a"}
    session.add_all([JobRun(job="backup", **values), JobRun(job="backup", error="no", **values)])
    await create_mail(session, created_at=moment)
    await create_mail(session, error="refused", next_attempt_at=null())
    await session.flush()
    found = (await client.get("/admin/health", headers=headers)).json()
    assert found["status"] == "ready"
    assert found["problem"] is None
    assert abs(found["database"]["clock_skew_seconds"]) < 5
    assert found["database"]["replication_lag_seconds"] is None
    assert (found["mail"]["queued"], found["mail"]["failed"]) == (1, 1)
    assert found["mail"]["oldest_age_seconds"] >= 3600
    assert found["backup"]["age_seconds"] == pytest.approx(3600, abs=60)
    assert found["failing_jobs"] == {"counting": "ValueError"}
    assert found["volumes"][0]["name"] == "media"
    assert 0 < found["volumes"][0]["free_bytes"] <= found["volumes"][0]["total_bytes"]


async def test_health_warns_of_a_different_clock(
    client: httpx.AsyncClient, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = clock.system_now
    monkeypatch.setattr(clock, "system_now", lambda: exact() - timedelta(seconds=5))
    found = (await client.get("/admin/health", headers=headers)).json()
    assert found["database"]["clock_skew_seconds"] == pytest.approx(5, abs=1)
    assert any("clock of PostgreSQL differs by +" in each for each in found["warnings"])


async def test_health_of_an_unmigrated_database_names_the_problem(
    client: httpx.AsyncClient, session: AsyncSession, headers: dict[str, str]
) -> None:
    await session.execute(text("DELETE FROM alembic_version"))
    found = (await client.get("/admin/health", headers=headers)).json()
    assert found["status"] == "not_ready"
    assert "pressroom migrate" in found["problem"]
    assert found["revision"] is None


async def test_full_disk_of_the_database_is_a_warning(
    client: httpx.AsyncClient,
    database: Database,
    headers: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failures._Noted, "disk_full_at", None)
    full = text("DO $$ BEGIN RAISE EXCEPTION 'No space left' USING ERRCODE = '53100'; END $$")
    with pytest.raises(DatabaseFull):
        async with database.unit_of_work() as session, session.begin_nested():
            await session.execute(full)
    for path in ("/health/ready", "/admin/health"):
        response = await client.get(path, headers=headers)
        assert response.status_code == 200
        assert response.json()["warnings"] == [DISK_FULL]
    monkeypatch.setattr(failures, "DISK_FULL_SECONDS", 0)
    assert (await client.get("/health/ready")).json()["warnings"] == []


ROWS = """
    INSERT INTO audit_events (occurred_at, action, actor_id, subject_type, message)
      SELECT now(), 'LOGIN', n % 1000, 'user', '' FROM generate_series(1, 5000) n;
    INSERT INTO mails (kind, email, created_at, attempts, next_attempt_at, sent_at)
      SELECT 'register', '', now(), 1, CASE WHEN n < 9 THEN now() END,
        CASE WHEN n > 12 THEN now() END FROM generate_series(1, 5000) n;
    INSERT INTO job_runs (job, started_at, finished_at, host, error)
      SELECT 'job ' || n % 12, now(), now(), '', CASE WHEN n % 12 = 3 THEN '' END
      FROM generate_series(1, 5000) n;
    ANALYZE audit_events, mails, job_runs;
    SET LOCAL enable_seqscan = off
"""


@pytest.mark.parametrize(
    ("statement", "parameters", "index"),
    [
        (operations._events(frozenset({"actor"})).first, {"actor": 7}, "ix_audit_events_actor"),
        (operations._MAILS[MailState.FAILED].first, {}, "ix_mails_failed"),
        (operations._MAILS[MailState.WAITING].first, {}, "ix_mails_due"),
        (outbox._COUNTS, {}, "ix_mails_failed"),
        (job_runs._LATEST, {}, "ix_job_runs_job_id"),
        (job_runs._SUCCESSES, {}, "ix_job_runs_success"),
        (gauges._JOBS, {}, "ix_job_runs_success"),
    ],
    ids=["audit", "failed mails", "waiting mails", "counts", "jobs", "successes", "metrics"],
)
async def test_lists_of_administrators_read_indexes(
    session: AsyncSession, statement: Any, parameters: dict[str, int], index: str
) -> None:
    """Reading 300,000 rows or index entries would take 50 ms and more."""
    for preparation in ROWS.split(";"):
        await session.execute(text(preparation))
    wanted = {"limit": 21, **parameters}
    names = wanted.keys() & statement.compile().params.keys()
    sql = statement.params({name: wanted[name] for name in names}).compile(
        session.get_bind(), compile_kwargs={"literal_binds": True}
    )
    connection = await session.connection()
    explanation = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE) {sql}")
    plan = "\n".join(explanation.scalars())
    assert index in plan, plan
    assert max(map(float, re.findall(r"time=\S+ rows=(\S+)", plan))) < 1000, plan
