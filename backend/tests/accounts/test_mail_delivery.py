"""Mail delivery: queue, retries and limits."""

import asyncio
from datetime import datetime, timedelta
from email.message import EmailMessage
from itertools import pairwise

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.config import Settings
from app.db.session import Database
from app.models import AccountToken, Mail, User
from app.schemas.accounts.user import UserCreate
from app.services import outbox
from app.services.accounts import mail_delivery, users
from app.services.accounts.mail_delivery import (
    CLAIM_DURATION,
    MAX_ATTEMPTS,
    DeliveryError,
)
from app.services.accounts.mail_dispatch import MailDispatcher
from app.services.accounts.mail_texts import MailText, compose
from app.services.outbox import MailKind
from tests.factories import PASSWORD, create_user
from tests.inbox import Inbox, token_in


async def queue(
    session: AsyncSession,
    kind: MailKind,
    user: User | None = None,
    *,
    email: str | None = None,
) -> Mail:
    """Queue a mail for a user, for an address, or for a user at another address."""
    address = email or (user.email if user else "")
    outbox.queue(session, kind, email=address, user_id=user.id if user else None)
    await session.flush()
    row = await session.scalar(select(Mail).order_by(Mail.id.desc()).limit(1))
    assert row is not None
    return row


def later(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    moment = clock.now() + by
    monkeypatch.setattr(clock, "now", lambda: moment)


async def test_defective_mail_does_not_block_others(session: AsyncSession, inbox: Inbox) -> None:
    user = await create_user(session, email="=?utf-8?q?bob=3e=0d=0aX?=@example.com")
    broken = await queue(session, MailKind.RESET_PASSWORD, user)
    await queue(session, MailKind.RESET_PASSWORD, await create_user(session))
    assert len(await inbox.deliver()) == 1
    await session.refresh(broken)
    assert broken.error == "cannot be composed"
    assert broken.next_attempt_at is None


class TestDelivery:
    async def test_sent_mail_is_not_sent_again(self, session: AsyncSession, inbox: Inbox) -> None:
        row = await queue(session, MailKind.RESET_PASSWORD, await create_user(session))
        assert len(await inbox.deliver()) == 1
        assert await inbox.deliver() == []
        await session.refresh(row)
        assert row.sent_at is not None
        assert row.next_attempt_at is None
        assert (row.attempts, row.error, row.subject, row.text) == (1, None, None, None)

    async def test_failed_request_sends_no_mail(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        await create_user(session, username="ada")
        body = {"email": "new@example.com", "username": "ADA", "name": "A", "password": PASSWORD}
        assert (await client.post("/users", json=body)).status_code == 409
        assert await inbox.deliver() == []

    async def test_failed_delivery_is_retried_with_backoff_and_new_token(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        inbox: Inbox,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        row = await queue(session, MailKind.VERIFY_EMAIL, await create_user(session))
        inbox.error = DeliveryError("SMTPConnectError")
        pauses = []
        for number in range(1, MAX_ATTEMPTS + 1):
            await inbox.deliver()
            await inbox.deliver()  # it is not due
            assert len(inbox.rejected) == number
            await session.refresh(row)
            assert (row.attempts, row.error) == (number, "SMTPConnectError")
            assert (await session.scalars(select(AccountToken))).all() == []
            if row.next_attempt_at is not None:
                pauses.append((row.next_attempt_at - clock.now()).total_seconds())
                later(monkeypatch, row.next_attempt_at - clock.now())
        assert [round(pause) for pause in pauses[:4]] == [2, 4, 8, 16]
        assert round(pauses[-1]) == 3600
        assert row.next_attempt_at is None
        assert row.sent_at is None
        tokens = [token_in(message) for message in inbox.rejected]
        assert len(set(tokens)) == MAX_ATTEMPTS
        response = await client.post("/auth/email/verify", json={"token": tokens[-1]})
        assert response.status_code == 400

    async def test_later_attempt_can_succeed(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        inbox: Inbox,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        row = await queue(session, MailKind.VERIFY_EMAIL, await create_user(session))
        inbox.error = DeliveryError("SMTPConnectError")
        await inbox.deliver()
        inbox.error = None
        later(monkeypatch, timedelta(seconds=2))
        token = await inbox.token()
        await session.refresh(row)
        assert (row.attempts, row.error, row.next_attempt_at) == (2, None, None)
        body = {"token": token, "password": PASSWORD}
        response = await client.post("/auth/email/verify", json=body)
        assert response.status_code == 204

    async def test_permanent_failure_is_not_retried(
        self, session: AsyncSession, inbox: Inbox
    ) -> None:
        row = await queue(session, MailKind.VERIFY_EMAIL, await create_user(session))
        inbox.error = DeliveryError("SMTPRecipientsRefused 550", permanent=True)
        await inbox.deliver()
        await session.refresh(row)
        assert (row.next_attempt_at, row.error) == (None, "SMTPRecipientsRefused 550")

    async def test_claimed_mail_is_left_to_its_process(
        self,
        session: AsyncSession,
        database: Database,
        settings: Settings,
        inbox: Inbox,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        await queue(session, MailKind.VERIFY_EMAIL, await create_user(session))

        meanwhile = []

        async def end(message: EmailMessage) -> None:
            meanwhile.append(await inbox.deliver())
            raise asyncio.CancelledError

        await MailDispatcher(database, settings=settings, send=end).deliver_due()
        assert meanwhile == [[]]
        assert await inbox.deliver() == []
        later(monkeypatch, CLAIM_DURATION)
        assert len(await inbox.deliver()) == 1

    @pytest.mark.parametrize("is_claimed", [False, True])
    async def test_cancelled_mail_is_not_sent(
        self,
        session: AsyncSession,
        database: Database,
        settings: Settings,
        inbox: Inbox,
        is_claimed: bool,
    ) -> None:
        user = await create_user(session)
        row = await queue(session, MailKind.CHANGE_EMAIL, user)
        claim = await mail_delivery.claim_due(database) if is_claimed else None
        await outbox.cancel(
            session, user_id=user.id, email=user.email, kinds=[MailKind.CHANGE_EMAIL]
        )
        if claim is not None:
            assert await mail_delivery._compose(database, claim, settings) is None
        assert await inbox.deliver() == []
        await session.refresh(row)
        assert row.error == "cancelled"
        assert (await session.scalars(select(AccountToken))).all() == []

    @pytest.mark.parametrize("kind", [MailKind.VERIFY_EMAIL, MailKind.RESET_PASSWORD])
    async def test_mail_goes_only_to_the_stored_address(
        self, session: AsyncSession, inbox: Inbox, kind: MailKind
    ) -> None:
        """PostgreSQL lowers `İ` (U+0130) to `i`, but the two belong to different mailboxes."""
        await create_user(session, email="mike@example.com")
        await queue(session, kind, email="m\u0130ke@example.com")
        (message,) = await inbox.deliver()
        assert message["To"] == "mike@example.com"

    @pytest.mark.parametrize("kind", [MailKind.VERIFY_EMAIL, MailKind.RESET_PASSWORD])
    async def test_mail_is_dropped_after_email_change(
        self, session: AsyncSession, inbox: Inbox, kind: MailKind
    ) -> None:
        user = await create_user(session)
        row = await queue(session, kind, user)
        user.email = "new@example.com"
        await create_user(session, email=row.email)
        assert await inbox.deliver() == []
        await session.refresh(row)
        assert row.error == "no user has this address"

    @pytest.mark.parametrize(
        "kind", [MailKind.VERIFY_EMAIL, MailKind.RESET_PASSWORD, MailKind.CHANGE_EMAIL]
    )
    async def test_disabled_user_gets_no_mail(
        self, session: AsyncSession, inbox: Inbox, kind: MailKind
    ) -> None:
        await queue(session, kind, await create_user(session, is_active=False))
        assert await inbox.deliver() == []

    async def test_mail_older_than_one_day_is_dropped(
        self, session: AsyncSession, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        row = await queue(session, MailKind.RESET_PASSWORD, await create_user(session))
        later(monkeypatch, timedelta(days=1, seconds=1))
        assert await inbox.deliver() == []
        await session.refresh(row)
        assert row.error == "older than one day"

    async def test_mail_with_too_many_attempts_is_dropped(
        self, session: AsyncSession, inbox: Inbox
    ) -> None:
        row = await queue(session, MailKind.RESET_PASSWORD, await create_user(session))
        row.attempts = MAX_ATTEMPTS
        await session.flush()
        assert await inbox.deliver() == []
        await session.refresh(row)
        assert row.error == "too many attempts"

    async def test_verified_user_gets_no_verification_mail(
        self, session: AsyncSession, inbox: Inbox
    ) -> None:
        new = UserCreate(
            email="ada@example.com", username="ada", name="Ada", password=SecretStr(PASSWORD)
        )
        created = await users.create_user(session, new=new, email_verified=True)
        assert created.email_verified_at is not None
        assert await inbox.deliver() == []


class TestLimits:
    @pytest.mark.parametrize("is_known", [True, False])
    async def test_one_mail_per_minute_and_five_per_hour(
        self,
        session: AsyncSession,
        inbox: Inbox,
        monkeypatch: pytest.MonkeyPatch,
        is_known: bool,
    ) -> None:
        user = await create_user(session)
        sent: list[datetime] = []
        for pause in [30] * 14 + [240] * 6:  # half an hour
            email = user.email.upper() if len(sent) % 2 else user.email
            known = user if is_known else None
            await queue(session, MailKind.RESET_PASSWORD, known, email=email)
            sent += [clock.now()] * len(await inbox.deliver())
            later(monkeypatch, timedelta(seconds=pause))
        assert len(sent) == 5
        gaps = [after - before for before, after in pairwise(sent)]
        assert min(gaps) >= timedelta(minutes=1)
        later(monkeypatch, timedelta(minutes=31))
        await queue(session, MailKind.RESET_PASSWORD, user)
        assert len(await inbox.deliver()) == 1

    async def test_limits_are_separate_per_user_and_kind(
        self, session: AsyncSession, inbox: Inbox
    ) -> None:
        user = await create_user(session)
        await queue(session, MailKind.RESET_PASSWORD, user)
        await queue(session, MailKind.VERIFY_EMAIL, user)
        await queue(session, MailKind.RESET_PASSWORD, await create_user(session))
        assert len(await inbox.deliver()) == 3

    async def test_user_can_correct_an_address_but_not_flood_many(
        self, session: AsyncSession, inbox: Inbox
    ) -> None:
        user = await create_user(session)
        for number in range(8):
            email = f"other{number}@example.com"
            await queue(session, MailKind.CHANGE_EMAIL, user, email=email)
        assert len(await inbox.deliver()) == 5

    async def test_notices_have_no_limit(self, session: AsyncSession, inbox: Inbox) -> None:
        user = await create_user(session)
        for _ in range(7):
            await queue(session, MailKind.PASSWORD_CHANGED, user)
        assert len(await inbox.deliver()) == 7

    async def test_repeated_request_makes_queued_mail_due(
        self, session: AsyncSession, inbox: Inbox
    ) -> None:
        user = await create_user(session)
        first = await queue(session, MailKind.RESET_PASSWORD, user)
        inbox.error = DeliveryError("SMTPConnectError")
        await inbox.deliver()
        second = await queue(session, MailKind.RESET_PASSWORD, user)
        inbox.error = None
        assert len(await inbox.deliver()) == 1
        for row in (first, second):
            await session.refresh(row)
        assert first.sent_at is not None
        assert (second.sent_at, second.error) == (None, "another mail of this kind is queued")


class TestTexts:
    @pytest.mark.parametrize("mail_text", MailText)
    def test_mail_is_plain_text_and_auto_submitted(
        self, mail_text: MailText, settings: Settings
    ) -> None:
        link = "http://localhost:8000/studio/verify-email#token=" + "x" * 43
        message = compose(mail_text, recipient="ada@exämple.com", settings=settings, link=link)
        assert message["From"] == "Pressroom <pressroom@localhost>"
        assert message["To"] == "ada@xn--exmple-cua.com"
        assert message["Auto-Submitted"] == "auto-generated"
        assert message["Message-ID"].endswith("@localhost>")
        assert message["Date"] is not None
        assert message.get_content_type() == "text/plain"
        text = message.get_content()
        assert "{" not in text
        assert all(line in message.as_string().splitlines() for line in text.splitlines())

    async def test_links_do_not_use_the_host_header(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        user = await create_user(session)
        forged = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
        body = {"email": user.email}
        await client.post("/auth/password/forgot", json=body, headers=forged)
        (message,) = await inbox.deliver()
        assert "evil" not in message.as_string()
        assert "http://localhost:8000/studio/reset-password#token=" in message.get_content()

    async def test_mail_contains_no_user_input(
        self, client: httpx.AsyncClient, inbox: Inbox
    ) -> None:
        body = {
            "email": "victim@example.com",
            "username": "www.evil.example",
            "name": "Win at evil.example",
            "password": PASSWORD,
        }
        assert (await client.post("/users", json=body)).status_code == 201
        (message,) = await inbox.deliver()
        assert "evil" not in message.as_string()
