"""Background jobs: their selection, retries and shutdown."""

import asyncio
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import Environment, Settings
from app.core.errors import ServiceUnavailable
from app.core.job_states import JobState, StepsFailed
from app.db.session import Database
from app.jobs.background import Job, create_jobs, repeat, run_jobs
from app.jobs.housekeeping import delete_expired
from app.models import AccountToken, Mail
from app.services.accounts.mail_delivery import DeliveryError
from app.services.outbox import MailKind
from tests.accounts.test_mail_delivery import later, queue
from tests.factories import create_user
from tests.inbox import Inbox

pytestmark = pytest.mark.usefixtures("shared_app")  # configures logging


@pytest.fixture
def names(database: Database, settings: Settings) -> Callable[..., list[str]]:
    def names(**changes: object) -> list[str]:
        changed = settings.model_copy(update=changes)
        return [job.name for job in create_jobs(changed, database)]

    return names


def test_mail_delivery_depends_on_settings(
    names: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    always = ["housekeeping", "rendering", "announcing", "changing tags"]
    always += ["media cleanup", "first start", "webhooks"]
    both = [*always, "mail delivery"]
    assert names(environment=Environment.TEST) == always
    assert names(environment=Environment.TEST, smtp_host="mail") == both
    assert names(environment=Environment.DEVELOPMENT) == both
    assert names(environment=Environment.PRODUCTION, smtp_host="mail") == both
    assert "SMTP_HOST" not in caplog.text
    assert names(environment=Environment.PRODUCTION) == always
    assert "SMTP_HOST is not set" in caplog.text


async def log_of_runs(
    caplog: pytest.LogCaptureFixture, errors: Sequence[Exception | None], **options: Any
) -> list[str]:
    """Repeat a job that raises these errors, and return the lines that it logs."""
    done = asyncio.Event()
    remaining = iter(errors)

    async def work() -> None:
        try:
            error = next(remaining)
        except StopIteration:
            done.set()
            await asyncio.Event().wait()
        if error is not None:
            raise error

    task = asyncio.create_task(repeat(Job("work", work, interval=0), max_retry_delay=0, **options))
    async with asyncio.timeout(5):
        await done.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = [
        re.search(r"work.* (failed: \w+|works again)", each.getMessage()) for each in caplog.records
    ]
    return [each[0] for each in found if each is not None]


async def test_failing_job_is_retried_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    unavailable = ServiceUnavailable()
    lines = await log_of_runs(caplog, [unavailable] * 5 + [None, None, unavailable])
    failed = "work failed: ServiceUnavailable"
    assert lines == [failed, "work works again", failed]


async def test_no_failure_hides_another(caplog: pytest.LogCaptureFixture) -> None:
    one = StepsFailed({"one": ServiceUnavailable()})
    both = StepsFailed({"one": ServiceUnavailable(), "two": ValueError("a programming error")})
    changed = StepsFailed({"one": TypeError("another error"), "two": ValueError("the same")})
    assert await log_of_runs(caplog, [one, both, both, changed, one, None]) == [
        "work (one) failed: ServiceUnavailable",
        "work (two) failed: ValueError",
        "work (one) failed: TypeError",
        "work (two) works again",
        "work (one) failed: ServiceUnavailable",
        "work (one) works again",
    ]


async def test_lasting_failure_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    lines = await log_of_runs(caplog, [ServiceUnavailable()] * 3, reminder_interval=0)
    assert lines == ["work failed: ServiceUnavailable"] * 3


async def test_jobs_are_cancelled_at_shutdown() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with run_jobs([Job("work", work, interval=0)]):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert ended.is_set()


async def test_states_of_jobs() -> None:
    states: dict[str, JobState] = {}
    runs = asyncio.Queue[Exception | None]()

    async def work() -> None:
        error = await runs.get()
        runs.task_done()
        if error is not None:
            raise error

    async def after(error: Exception | None) -> tuple[str | None, bool, bool]:
        runs.put_nowait(error)
        async with asyncio.timeout(5):
            await runs.join()
        await asyncio.sleep(0)
        state = states["work"]
        return state.error, state.failing_since is not None, state.succeeded_at is not None

    async with run_jobs([Job("work", work, interval=0)], states):
        assert states["work"].succeeded_at is None
        assert await after(None) == (None, False, True)
        steps = StepsFailed({"one": ServiceUnavailable()})
        assert await after(steps) == ("StepsFailed", True, True)
    states["work"].note_failure(ValueError())
    assert states["work"].error == "ValueError"
    states["work"].note_success()
    assert states["work"].failing_since is None


async def test_housekeeping_deletes_expired_mails_and_tokens(
    session: AsyncSession,
    database: Database,
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    user = await create_user(session)
    sent = await queue(session, MailKind.RESET_PASSWORD, user)
    await inbox.deliver()
    waiting = await queue(session, MailKind.VERIFY_EMAIL, user)
    inbox.error = DeliveryError("SMTPConnectError")
    await inbox.deliver()

    async def left() -> tuple[int, int]:
        await delete_expired(database)
        mails = (await session.scalars(select(Mail.id))).all()
        tokens = (await session.scalars(select(AccountToken.id))).all()
        return len(mails), len(tokens)

    assert await left() == (2, 1)
    later(monkeypatch, timedelta(hours=1))
    assert await left() == (2, 0)
    later(monkeypatch, timedelta(days=7))
    assert await left() == (0, 0)
    assert sent.id != waiting.id
