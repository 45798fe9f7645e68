"""Delivery to webhooks: order, repetition, backoff, outages and several processes.

Events are written on commit, so these tests commit, on a server of their own.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import delete, select, text, update
from standardwebhooks import WebhookVerificationError

from app.core import clock
from app.core.config import Settings
from app.core.enums import Role
from app.db.session import Database
from app.jobs.background import Job, run_jobs
from app.jobs.housekeeping import delete_expired
from app.models import Article, ArticleTag, Mail, User, Webhook, WebhookAttempt, WebhookDelivery
from app.services.integrations import delivering
from app.services.integrations.delivering import (
    CLAIM_DURATION,
    GIVE_UP_AFTER,
    PAUSE_AFTER,
    WebhookDispatcher,
    claim_due,
    record,
)
from app.services.integrations.events import forget_transactions, latest_position
from app.services.integrations.queueing import BATCH, queue_events, queue_until
from app.services.integrations.sending import Outcome
from tests.databases import delete_all_rows
from tests.factories import (
    article_of,
    author_of,
    create_article,
    create_comment,
    create_media,
    create_user,
    create_webhook,
)
from tests.integrations.receivers import (
    BROKEN,
    OK,
    Receiver,
    local_sender,
    receiving,
)
from tests.processes import DEADLINE

Move = Callable[[timedelta], None]
GONE = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
async def database(settings: Settings, committing_url: str) -> AsyncIterator[Database]:
    own = settings.model_copy(update={"database_url": committing_url, "database_pool_size": 10})
    database = Database.from_settings(own)
    async with database.unit_of_work() as session:
        await session.execute(text(delete_all_rows()))
    yield database
    await database.dispose()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch) -> Move:
    """Return a function that moves the time."""
    start, passed = clock.now, timedelta()

    def move(by: timedelta) -> None:
        nonlocal passed
        passed += by

    monkeypatch.setattr(clock, "now", lambda: start() + passed)
    return move


def dispatcher_of(database: Database, **options: Any) -> WebhookDispatcher:
    values: dict[str, Any] = {"connections": 8, "open_sender": local_sender}
    return WebhookDispatcher(database, **values | options)


async def deliver(database: Database) -> int:
    return await dispatcher_of(database).deliver_due()


async def webhook_of(
    database: Database, url: str, *, owner: User | None = None, **columns: Any
) -> tuple[int, str]:
    """Create a subscription of `owner`, by default of a new author; return its id and secret."""
    owner = owner or await author_of(database)  # before, because this is an event of the owner
    async with database.unit_of_work() as session:
        webhook, secret = await create_webhook(session, owner=owner, url=url, **columns)
        return webhook.id, secret


async def edit(database: Database, article: Article, title: str) -> None:
    async with database.unit_of_work() as session:
        await session.execute(update(Article).where(Article.id == article.id).values(title=title))


async def stored(database: Database, webhook_id: int) -> Webhook:
    async with database.unit_of_work() as session:
        return await session.get_one(Webhook, webhook_id)


async def deliveries_of(database: Database, webhook_id: int) -> list[WebhookDelivery]:
    async with database.unit_of_work() as session:
        of_webhook = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
        return list(await session.scalars(of_webhook.order_by(WebhookDelivery.id)))


class TestMessages:
    async def test_payloads(self, database: Database, receiver: Receiver) -> None:
        admin = await author_of(database, role=Role.ADMIN)
        _, secret = await webhook_of(database, receiver.url, owner=admin)
        author = await author_of(database)
        article = await article_of(database, author, title="Frost", slug="frost", tags=["Winter"])
        async with database.unit_of_work() as session:
            comment = await create_comment(session, article=article, author=admin)
            media = await create_media(session, owner=author)
        assert await deliver(database) == 4
        by_type = {message.type: message.json for message in receiver.messages}
        shown = {
            "id": article.id,
            "slug": "frost",
            "language": "en",
            "tags": ["Winter"],
            "author": {"id": author.id, "username": author.username},
        }
        published = by_type["article.published"]
        assert published.keys() == {"type", "version", "timestamp", "data"}
        assert published["version"] == 1
        assert datetime.fromisoformat(published["timestamp"]) <= clock.now()
        assert (
            published["data"]["article"] | shown | {"title": "Frost"}
            == published["data"]["article"]
        )
        assert by_type["comment.created"]["data"] == {
            "comment": {
                "id": comment.id,
                "status": "visible",
                "previous_status": None,
                "parent_id": None,
                "thread_id": comment.id,
                "author": {"id": admin.id, "username": admin.username},
            },
            "article": shown,
        }
        user = {"id": author.id, "username": author.username, "role": "author"}
        assert by_type["user.created"]["data"] == {"user": user}
        assert by_type["media.created"]["data"]["media"]["id"] == media.id
        assert by_type["media.created"]["data"]["media"]["owner_id"] == author.id
        for message in receiver.messages:
            message.verify(secret)
            assert author.email not in message.body.decode()
        assert len({message.id for message in receiver.messages}) == 4

    async def test_authors_get_public_and_own_events(
        self, database: Database, receiver: Receiver
    ) -> None:
        author, other = await author_of(database), await author_of(database)
        await webhook_of(database, receiver.url, owner=author)
        article = await article_of(database, other)
        hidden = await article_of(database, other, published=False)
        async with database.unit_of_work() as session:
            await create_user(session)
            await create_media(session, owner=other)
            await create_comment(session, article=hidden, author=other)
            mine = await create_media(session, owner=author)
        await deliver(database)
        found = [(each.type, each.json["data"]) for each in receiver.messages]
        assert [kind for kind, _ in found] == ["article.published", "media.created"]
        assert found[0][1]["article"]["id"] == article.id
        assert found[1][1]["media"]["id"] == mine.id

    async def test_article_that_leaves_a_filter(
        self, database: Database, receiver: Receiver
    ) -> None:
        """A copy of the articles with a tag would keep it otherwise."""
        author = await author_of(database)
        await webhook_of(database, receiver.url, tag="frost")
        article = await article_of(database, author, tags=["Frost"])
        async with database.unit_of_work() as session:
            await session.execute(delete(ArticleTag))
            await session.execute(update(Article).values(version=Article.version + 1))
        await edit(database, article, "Afterwards")
        await deliver(database)
        assert receiver.types == ["article.published", "article.updated"]
        shown = receiver.messages[1].json["data"]["article"]
        assert shown["tags"] == []
        assert "former" not in shown

    async def test_demoted_administrator_gets_no_pending_events(
        self, database: Database, receiver: Receiver
    ) -> None:
        admin = await author_of(database, role=Role.ADMIN)
        webhook_id, _ = await webhook_of(database, receiver.url, owner=admin)
        await author_of(database)
        assert await queue_events(database) == 1
        async with database.unit_of_work() as session:
            await session.execute(update(User).where(User.id == admin.id).values(role=Role.AUTHOR))
        assert await deliver(database) == 0
        assert receiver.messages == []
        (delivery,) = await deliveries_of(database, webhook_id)
        assert (delivery.next_attempt_at, delivery.delivered_at) == (None, None)

    async def test_inactive_webhooks_and_owners_get_nothing(
        self, database: Database, receiver: Receiver
    ) -> None:
        owner = await author_of(database)
        webhook_id, _ = await webhook_of(database, receiver.url, owner=owner, is_active=False)
        await article_of(database, await author_of(database))
        assert await deliver(database) == 0
        async with database.unit_of_work() as session:
            await session.execute(update(Webhook).values(is_active=True))
            await session.execute(update(User).where(User.id == owner.id).values(is_active=False))
        assert await deliver(database) == 0
        async with database.unit_of_work() as session:
            await session.execute(update(User).where(User.id == owner.id).values(is_active=True))
        assert await deliver(database) == 2
        assert sorted(receiver.types) == ["article.published", "user.disabled"]
        assert (await stored(database, webhook_id)).last_success_at is not None

    async def test_test_message_and_rotation(
        self, database: Database, receiver: Receiver, move: Move
    ) -> None:
        webhook_id, secret = await webhook_of(database, receiver.url)
        other, _ = await webhook_of(database, receiver.url)
        async with database.unit_of_work() as session:
            webhook = await session.get_one(Webhook, webhook_id)
            other_secret = (await session.get_one(Webhook, other)).sealed_secret
            webhook.sealed_previous_secret = webhook.sealed_secret
            webhook.sealed_secret = other_secret
            webhook.previous_secret_until = clock.now() + timedelta(days=1)
            session.add(WebhookDelivery(webhook_id=webhook_id, kind="test"))
        assert await deliver(database) == 1
        (message,) = receiver.messages
        assert (message.type, message.json["data"]) == ("test", {})
        message.verify(secret)
        move(timedelta(days=2))
        async with database.unit_of_work() as session:
            session.add(WebhookDelivery(webhook_id=webhook_id, kind="test"))
        assert await deliver(database) == 1
        assert len(receiver.messages[1].headers["webhook-signature"].split(" ")) == 1
        with pytest.raises(WebhookVerificationError):
            receiver.messages[1].verify(secret)

    async def test_lost_key_is_no_crash(self, database: Database, receiver: Receiver) -> None:
        webhook_id, _ = await webhook_of(database, receiver.url, sealed_secret="gAAAA")
        async with database.unit_of_work() as session:
            session.add(WebhookDelivery(webhook_id=webhook_id, kind="test"))
        assert await deliver(database) == 0
        async with database.unit_of_work() as session:
            errors = await session.scalars(select(WebhookAttempt.error))
            assert list(errors) == ["SECRET_KEY has changed: rotate the secret"]


class TestOrder:
    async def test_events_of_an_article_arrive_in_order(
        self, database: Database, receiver: Receiver, move: Move
    ) -> None:
        """A failed message delays the later ones of its article, but of no other article."""
        author = await author_of(database)
        await webhook_of(database, receiver.url)
        first, second = [await article_of(database, author) for _ in range(2)]
        for number in range(3):
            for article in (first, second):
                await edit(database, article, f"Title {number}")
        failed = 0

        async def answer(writer: asyncio.StreamWriter) -> None:
            nonlocal failed
            message = receiver.messages[-1]
            title = message.json["data"]["article"]["title"]
            is_broken = message.json["data"]["article"]["id"] == first.id and failed < 2
            failed += is_broken
            writer.write(BROKEN if is_broken else OK)
            delivered.append(
                (message.json["data"]["article"]["id"], title)
            ) if not is_broken else None

        delivered: list[tuple[int, str]] = []
        receiver.answer = answer
        await deliver(database)
        assert [title for each, title in delivered if each == second.id] == [
            second.title, "Title 0", "Title 1", "Title 2"
        ]  # fmt: skip
        assert [each for each, _ in delivered if each == first.id] == []
        for _ in range(3):
            move(timedelta(minutes=2))
            await deliver(database)
        assert [title for each, title in delivered if each == first.id] == [
            first.title, "Title 0", "Title 1", "Title 2"
        ]  # fmt: skip

    async def test_two_processes_share_the_work(
        self, database: Database, receiver: Receiver
    ) -> None:
        author = await author_of(database)
        webhook_id, _ = await webhook_of(database, receiver.url)
        articles = [await article_of(database, author) for _ in range(10)]
        for number in range(3):
            for article in articles:
                await edit(database, article, f"Title {number}")
        counts = await asyncio.gather(*(deliver(database) for _ in range(3)))
        assert sum(counts) == 40
        assert len({message.id for message in receiver.messages}) == len(receiver.messages) == 40
        titles: dict[int, list[str]] = defaultdict(list)
        for message in receiver.messages:
            data = message.json["data"]["article"]
            titles[data["id"]].append(data["title"])
        for article in articles:
            assert titles[article.id] == [article.title, "Title 0", "Title 1", "Title 2"]
        assert (await stored(database, webhook_id)).failures == 0

    async def test_events_are_queued_in_batches(
        self, database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.services.integrations.queueing.BATCH", 3)
        author = await author_of(database)
        await webhook_of(database, receiver.url)
        async with database.unit_of_work() as session:
            for _ in range(10):
                await create_article(session, author=author)
        assert await deliver(database) == 10

    async def test_queueing_ends_while_events_keep_coming(
        self, database: Database, receiver: Receiver
    ) -> None:
        """Otherwise, nothing is sent meanwhile, and the last webhooks have no turn."""
        author = await author_of(database)
        webhooks = [(await webhook_of(database, receiver.url))[0] for _ in range(5)]
        article = await article_of(database, author)

        async def write() -> None:
            while True:
                await edit(database, article, str(uuid4()))

        writers = [asyncio.create_task(write()) for _ in range(3)]
        try:
            async with asyncio.timeout(DEADLINE):
                assert await queue_events(database) >= len(webhooks)
        finally:
            for writer in writers:
                writer.cancel()
            await asyncio.gather(*writers, return_exceptions=True)
        for webhook_id in webhooks:
            assert 0 < len(await deliveries_of(database, webhook_id)) < BATCH

    async def test_events_that_are_deleted_meanwhile_are_passed(
        self, database: Database, receiver: Receiver
    ) -> None:
        webhook_id, _ = await webhook_of(database, receiver.url)
        await article_of(database, await author_of(database))
        target = await latest_position(database.primary)
        async with database.unit_of_work() as session:
            await session.execute(text("DELETE FROM events"))
        async with asyncio.timeout(DEADLINE):
            assert await queue_until(database, target) == 0
        webhook = await stored(database, webhook_id)
        assert (webhook.event_xid, webhook.event_id) == target

    async def test_queue_of_a_webhook_is_bounded(
        self, database: Database, receiver: Receiver
    ) -> None:
        """Its position waits, so nothing is lost."""
        author = await author_of(database)
        webhook_id, _ = await webhook_of(database, receiver.url)
        await article_of(database, author)
        async with database.unit_of_work() as session:
            await session.execute(
                text(
                    "INSERT INTO webhook_deliveries"
                    " (webhook_id, message_id, kind, created_at, next_attempt_at)"
                    " SELECT :id, gen_random_uuid(), 'test', now(), now() + interval '1 day'"
                    " FROM generate_series(1, 1000)"
                ),
                {"id": webhook_id},
            )
        assert await queue_events(database) == 0
        async with database.unit_of_work() as session:
            await session.execute(text("DELETE FROM webhook_deliveries WHERE id % 2 = 0"))
        assert await queue_events(database) == 1


class TestFailures:
    async def test_backoff_then_disabled_with_a_mail(
        self, database: Database, receiver: Receiver, move: Move
    ) -> None:
        """The receiver is down for days."""
        owner = await author_of(database)
        webhook_id, _ = await webhook_of(database, receiver.url, owner=owner)
        author = await author_of(database)
        article = await article_of(database, author)
        receiver.answer = BROKEN
        start, pauses = clock.now(), list[timedelta]()
        while (await stored(database, webhook_id)).is_active:
            await deliver(database)
            webhook = await stored(database, webhook_id)
            (delivery,) = await deliveries_of(database, webhook_id)
            assert delivery.next_attempt_at is not None
            until = max(delivery.next_attempt_at, webhook.paused_until or clock.now())
            pauses.append(until - clock.now())
            move(until - clock.now() + timedelta(seconds=1))
        assert GIVE_UP_AFTER - timedelta(hours=10) < clock.now() - start < GIVE_UP_AFTER * 1.2
        assert timedelta(seconds=7) < pauses[0] < timedelta(seconds=13)
        for earlier, later in pairwise(pauses[:6]):
            assert later > earlier * 1.5
        assert max(pauses) < timedelta(hours=9.7)
        assert 10 < len(receiver.messages) < 25
        assert len({message.id for message in receiver.messages}) == 1
        assert webhook.disabled_reason == "the receiver answered 500"
        async with database.unit_of_work() as session:
            (mail,) = await session.scalars(select(Mail))
            assert (mail.kind, mail.email) == ("webhook_disabled", owner.email)
            attempts = list(await session.scalars(select(WebhookAttempt)))
        assert len(attempts) == len(receiver.messages)
        assert {(each.status, each.answer) for each in attempts} == {(500, "oops")}

        # Later events wait. Once the webhook is active again, nothing is missing.
        await edit(database, article, "During the outage")
        await deliver(database)
        before = len(receiver.messages)
        receiver.answer = OK
        async with database.unit_of_work() as session:
            await session.execute(
                update(Webhook).values(
                    is_active=True, failures=0, failing_since=None, paused_until=None
                )
            )
            await session.execute(update(WebhookDelivery).values(next_attempt_at=clock.now()))
        await deliver(database)
        assert receiver.types[before:] == ["article.published", "article.updated"]

    async def test_gone_disables_at_once(self, database: Database, receiver: Receiver) -> None:
        webhook_id, _ = await webhook_of(database, receiver.url)
        await article_of(database, await author_of(database))
        receiver.answer = GONE
        await deliver(database)
        webhook = await stored(database, webhook_id)
        assert (webhook.is_active, webhook.disabled_reason) == (False, "the receiver answered 410")

    async def test_messages_at_the_same_time_disable_once(
        self, database: Database, receiver: Receiver
    ) -> None:
        webhook_id, _ = await webhook_of(database, receiver.url)
        author = await author_of(database)
        for _ in range(delivering.PER_WEBHOOK):
            await article_of(database, author)
        all_arrived = asyncio.Event()

        async def answer(writer: asyncio.StreamWriter) -> None:
            if len(receiver.messages) == delivering.PER_WEBHOOK:
                all_arrived.set()
            await all_arrived.wait()
            writer.write(GONE)

        receiver.answer = answer
        await deliver(database)
        assert not (await stored(database, webhook_id)).is_active
        async with database.unit_of_work() as session:
            assert len(list(await session.scalars(select(Mail)))) == 1

    async def test_answer_after_a_user_has_disabled_it_changes_no_reason(
        self, database: Database, receiver: Receiver
    ) -> None:
        webhook_id, _ = await webhook_of(database, receiver.url)
        await article_of(database, await author_of(database))

        async def answer(writer: asyncio.StreamWriter) -> None:
            async with database.unit_of_work() as session:
                await session.execute(update(Webhook).values(is_active=False))
            writer.write(GONE)

        receiver.answer = answer
        await deliver(database)
        assert (await stored(database, webhook_id)).disabled_reason is None
        async with database.unit_of_work() as session:
            assert list(await session.scalars(select(Mail))) == []

    async def test_one_message_that_always_fails_does_not_disable(
        self, database: Database, receiver: Receiver, move: Move
    ) -> None:
        author = await author_of(database)
        webhook_id, _ = await webhook_of(database, receiver.url)
        article = await article_of(database, author)

        async def answer(writer: asyncio.StreamWriter) -> None:
            data = receiver.messages[-1].json["data"]
            writer.write(BROKEN if data["article"]["id"] == article.id else OK)

        receiver.answer = answer
        now = clock.now()  # the database has its own clock: later ones would be scheduled
        for number in range(15):
            await article_of(database, author, published_at=now)
            assert await deliver(database) == 1, number
            move(timedelta(hours=6))
        webhook = await stored(database, webhook_id)
        assert webhook.is_active
        failed = (await deliveries_of(database, webhook_id))[0]
        assert (failed.next_attempt_at, failed.delivered_at) == (None, None)
        async with database.unit_of_work() as session:
            assert list(await session.scalars(select(Mail))) == []

    async def test_failing_message_does_not_hold_a_paused_webhook(
        self, database: Database, receiver: Receiver, move: Move
    ) -> None:
        """After a pause, a message that has not failed yet is tried first."""
        author = await author_of(database)
        webhook_id, _ = await webhook_of(database, receiver.url)
        await article_of(database, author)
        receiver.answer = BROKEN
        await deliver(database)
        async with database.unit_of_work() as session:
            long_ago = clock.now() - GIVE_UP_AFTER + timedelta(hours=1)
            failing = {"failures": PAUSE_AFTER, "failing_since": long_ago}
            await session.execute(update(Webhook).values(**failing))
        await article_of(database, author)
        move(timedelta(hours=1))
        receiver.answer = OK
        first = len(receiver.messages)
        assert await deliver(database) == 2
        assert receiver.messages[first].id != receiver.messages[0].id
        assert (await stored(database, webhook_id)).is_active

    async def test_paused_webhook_tries_one_at_a_time(
        self, database: Database, receiver: Receiver, move: Move
    ) -> None:
        author = await author_of(database)
        webhook_id, _ = await webhook_of(database, receiver.url)
        for _ in range(20):
            await article_of(database, author)
        receiver.answer = BROKEN
        await deliver(database)
        assert PAUSE_AFTER <= len(receiver.messages) < PAUSE_AFTER + delivering.PER_WEBHOOK
        before = len(receiver.messages)
        for _ in range(3):
            paused_until = (await stored(database, webhook_id)).paused_until
            assert paused_until is not None
            move(paused_until - clock.now() + timedelta(seconds=1))
            await deliver(database)
        assert len(receiver.messages) == before + 3
        receiver.answer = OK
        move(timedelta(hours=9))
        assert await deliver(database) == 20

    async def test_slow_and_dead_receivers_delay_no_other(
        self, database: Database, receiver: Receiver
    ) -> None:
        """More hanging receivers than connections for them."""
        author = await author_of(database)
        async with receiving() as hanging:
            release = asyncio.Event()

            async def hang(writer: asyncio.StreamWriter) -> None:
                await release.wait()
                writer.write(OK)

            hanging.answer = hang
            for _ in range(5):
                await webhook_of(database, hanging.url, failures=1)
            await webhook_of(database, receiver.url)
            articles = [await article_of(database, author) for _ in range(3)]
            dispatcher = dispatcher_of(database, connections=4)
            async with run_jobs([Job("webhooks", dispatcher.deliver_due, interval=0.01)]):
                async with asyncio.timeout(DEADLINE):
                    while len(receiver.messages) < 3:
                        receiver.arrived.clear()
                        await receiver.arrived.wait()
                assert len(hanging.messages) == 2
                # What happens meanwhile arrives, too.
                await edit(database, articles[0], "News")
                async with asyncio.timeout(DEADLINE):
                    while len(receiver.messages) < 4:
                        receiver.arrived.clear()
                        await receiver.arrived.wait()
                release.set()

    async def test_connections_are_bounded(self, database: Database, receiver: Receiver) -> None:
        author = await author_of(database)
        async with receiving() as other:
            at_once: dict[str, int] = defaultdict(int)
            most: dict[str, int] = defaultdict(int)

            def answering(server: Receiver) -> Callable[[asyncio.StreamWriter], Any]:
                async def answer(writer: asyncio.StreamWriter) -> None:
                    at_once[server.url] += 1
                    most[server.url] = max(most[server.url], at_once[server.url])
                    await asyncio.sleep(0)
                    at_once[server.url] -= 1
                    writer.write(OK)

                return answer

            for each in (receiver, other):
                each.answer = answering(each)
                await webhook_of(database, each.url)
            for _ in range(20):
                await article_of(database, author)
            assert await dispatcher_of(database, connections=6).deliver_due() == 40
            assert max(most.values()) <= delivering.PER_WEBHOOK


class TestProcesses:
    async def test_claim_that_ends_is_sent_again(
        self, database: Database, receiver: Receiver, move: Move
    ) -> None:
        """A process was killed between claim and result."""
        webhook_id, _ = await webhook_of(database, receiver.url)
        await article_of(database, await author_of(database))
        await queue_events(database)
        claim = await claim_due(database, webhook_id=webhook_id)
        assert claim is not None
        assert await deliver(database) == 0
        move(CLAIM_DURATION + timedelta(seconds=1))
        assert await deliver(database) == 1
        # Its result comes too late, and changes nothing.
        await record(database, claim, Outcome(1, 500, "late"), started_at=clock.now())
        (delivery,) = await deliveries_of(database, webhook_id)
        assert delivery.delivered_at is not None
        assert (await stored(database, webhook_id)).failures == 0

    async def test_deleted_while_it_is_sent(self, database: Database, receiver: Receiver) -> None:
        webhook_id, _ = await webhook_of(database, receiver.url)
        await article_of(database, await author_of(database))

        async def answer(writer: asyncio.StreamWriter) -> None:
            async with database.unit_of_work() as session:
                await session.delete(await session.get_one(Webhook, webhook_id))
            writer.write(OK)

        receiver.answer = answer
        await deliver(database)
        assert len(receiver.messages) == 1
        assert await deliveries_of(database, webhook_id) == []

    async def test_database_fails_while_it_is_sent(
        self, database: Database, receiver: Receiver, move: Move, committing_url: str
    ) -> None:
        """The message is sent again, because its result was not stored."""
        webhook_id, _ = await webhook_of(database, receiver.url)
        await article_of(database, await author_of(database))

        async def answer(writer: asyncio.StreamWriter) -> None:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            async with database.unit_of_work() as session:
                here = " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                await session.execute(text("ALTER TABLE webhook_attempts RENAME TO hidden"))
                await session.execute(text(others + here))
            writer.write(OK)

        receiver.answer = answer
        await deliver(database)
        async with database.unit_of_work() as session:
            await session.execute(text("ALTER TABLE hidden RENAME TO webhook_attempts"))
        (delivery,) = await deliveries_of(database, webhook_id)
        assert delivery.delivered_at is None
        receiver.answer = OK
        move(CLAIM_DURATION + timedelta(seconds=1))
        assert await deliver(database) == 1
        assert len({message.id for message in receiver.messages}) == 1

    async def test_events_after_a_restore_are_read(
        self, database: Database, receiver: Receiver
    ) -> None:
        """In a new cluster, the numbers of transactions begin again."""
        author = await author_of(database)
        webhook_id, _ = await webhook_of(database, receiver.url)
        await article_of(database, author)
        assert await deliver(database) == 1
        await article_of(database, author)
        async with database.unit_of_work() as session:
            await session.execute(text("UPDATE events SET xid = xid + 1000000000"))
            await session.execute(text("UPDATE webhooks SET event_xid = event_xid + 1000000000"))
        await article_of(database, author)
        assert await deliver(database) == 2
        await article_of(database, author)
        assert await deliver(database) == 1
        assert await forget_transactions(database) > 0
        assert await deliver(database) == 0
        assert (await stored(database, webhook_id)).event_id > 0


async def test_old_deliveries_are_deleted(
    database: Database, receiver: Receiver, move: Move
) -> None:
    webhook_id, _ = await webhook_of(database, receiver.url)
    await article_of(database, await author_of(database))
    assert await deliver(database) == 1
    move(timedelta(days=13))
    await delete_expired(database)
    assert len(await deliveries_of(database, webhook_id)) == 1
    move(timedelta(days=2))
    await delete_expired(database)
    assert await deliveries_of(database, webhook_id) == []


async def test_deleted_event_ends_its_delivery(database: Database, receiver: Receiver) -> None:
    webhook_id, _ = await webhook_of(database, receiver.url)
    await article_of(database, await author_of(database))
    await queue_events(database)
    async with database.unit_of_work() as session:
        await session.execute(text("DELETE FROM events"))
    assert await deliver(database) == 0
    (delivery,) = await deliveries_of(database, webhook_id)
    assert delivery.next_attempt_at is None
    assert receiver.messages == []
