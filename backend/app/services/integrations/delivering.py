"""Delivery of messages to the receivers of webhooks.

A process claims a delivery for CLAIM_DURATION, sends the message without holding a connection, and
records the result. If it ends before, another process sends the message again: delivery is at least
once. Of the deliveries of an article, only the first pending one may be claimed, so their order is
kept.
"""

import asyncio
import random
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, DateTime, bindparam, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.auth import sealing
from app.core import clock, metrics
from app.core.config import Settings
from app.core.enums import Role
from app.core.errors import PressroomError
from app.core.logging import get_logger
from app.db.session import Database
from app.models.accounts.user import User
from app.models.integrations.event import Event
from app.models.integrations.webhook import Webhook, WebhookAttempt, WebhookDelivery
from app.services import audit, outbox
from app.services.audit import AuditAction
from app.services.integrations import payloads, signing
from app.services.integrations.events import forget_foreign_transactions
from app.services.integrations.payloads import Occurrence
from app.services.integrations.queueing import may_see, queue_events
from app.services.integrations.sending import GONE, Outcome, Sender
from app.services.outbox import MailKind
from app.services.outgoing import is_public

logger = get_logger(__name__)

CLAIM_DURATION = timedelta(seconds=30)
"""How long a claim excludes other processes. Sending may take a third of it."""
POLL_SECONDS = 1.0
"""How often new events and due deliveries are looked for while messages are being sent."""
PER_WEBHOOK = 4
"""Messages that a process sends to one webhook at the same time; one if the last attempt failed."""
SLOW_SECONDS = 2.0
"""Duration from which on a receiver is slow."""
FIRST_DELAY = timedelta(seconds=10)
MAX_DELAY = timedelta(hours=8)
JITTER = 0.2
GIVE_UP_AFTER = timedelta(days=3)
PAUSE_AFTER = 5
"""After so many failures in a row, a webhook is paused. Then one delivery is tried at a time."""

_NOW = bindparam("now", type_=DateTime(timezone=True))
_IS_DUE = WebhookDelivery.next_attempt_at <= _NOW
_earlier = aliased(WebhookDelivery)
_DUE_WEBHOOKS = (
    select(Webhook.id, Webhook.failures)
    .join(User, User.id == Webhook.owner_id)
    .where(
        Webhook.is_active,
        User.is_active,
        or_(Webhook.paused_until.is_(None), Webhook.paused_until <= _NOW),
        exists().where(WebhookDelivery.webhook_id == Webhook.id, _IS_DUE),
    )
    .order_by(Webhook.id)
)
_DUE = (
    select(WebhookDelivery.id)
    .where(
        WebhookDelivery.webhook_id == bindparam("of_webhook", type_=BigInteger),
        _IS_DUE,
        ~exists().where(
            _earlier.webhook_id == WebhookDelivery.webhook_id,
            _earlier.article_id == WebhookDelivery.article_id,
            _earlier.next_attempt_at.is_not(None),
            _earlier.id < WebhookDelivery.id,
        ),
    )
    .order_by(WebhookDelivery.attempts, WebhookDelivery.id)
    .limit(1)
    .with_for_update(skip_locked=True)
)
"""New deliveries come first: one that always fails must not be the only one that is tried."""
_CLAIM = (
    update(WebhookDelivery)
    .where(WebhookDelivery.id == _DUE.scalar_subquery())
    .values(
        attempts=WebhookDelivery.attempts + 1,
        next_attempt_at=bindparam("until", type_=DateTime(timezone=True)),
    )
    .returning(WebhookDelivery.id)
    .execution_options(synchronize_session=False)
)
_CLAIMED = (
    select(WebhookDelivery, Webhook, User.role, Event)
    .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
    .join(User, User.id == Webhook.owner_id)
    .join(Event, Event.id == WebhookDelivery.event_id, isouter=True)
    .where(WebhookDelivery.id == bindparam("delivery_id", type_=BigInteger))
)


class Claim(NamedTuple):
    """A delivery that this process may send until `until`, as it was when it was claimed."""

    delivery_id: int
    webhook_id: int
    until: datetime
    url: str
    body: bytes
    sign: Callable[[datetime], Any]
    """Returns the headers of an attempt at a time."""


class _Running(NamedTuple):
    webhook_id: int
    started_at: float
    is_failing: bool


@cache
def _ssl_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def open_sender(settings: Settings) -> Sender:
    """Return a sender for these settings."""
    return Sender(
        connections=settings.webhook_connections,
        allows=(lambda _: True) if settings.webhook_private_addresses else is_public,
        ssl_context=_ssl_context(),
    )


class WebhookDispatcher:
    """Queues deliveries of new events, and sends those that are due, several at the same time.

    Failing and slow receivers get at most half of the connections, so that they delay no other.
    """

    def __init__(
        self,
        database: Database,
        *,
        connections: int,
        open_sender: Callable[[], Sender],
    ) -> None:
        self._database = database
        self._connections = connections
        self._open_sender = open_sender
        self._slow: set[int] = set()
        self._last = 0
        """The webhook that was claimed for last: the next ones have their turn."""

    async def deliver_due(self) -> int:
        """Work until nothing is due and nothing is being sent; return how many were delivered.

        Raises ServiceUnavailable if the database is not available.
        """
        await forget_foreign_transactions(self._database)
        await queue_events(self._database)
        running: dict[asyncio.Task[bool], _Running] = {}
        count = 0
        async with self._open_sender() as sender:
            try:
                next_poll = time.monotonic() + POLL_SECONDS
                while True:
                    error = await self._start_due(running, sender)
                    if not running:
                        break
                    await asyncio.wait(
                        running, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )
                    count += self._collect(running)
                    if error is None and time.monotonic() >= next_poll:
                        error = await self._queue()
                        next_poll = time.monotonic() + POLL_SECONDS
                if error is not None:
                    raise error
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        return count

    async def _queue(self) -> PressroomError | None:
        try:
            await queue_events(self._database)
        except PressroomError as error:
            return error
        return None

    async def _start_due(
        self, running: dict[asyncio.Task[bool], _Running], sender: Sender
    ) -> PressroomError | None:
        """Start deliveries while some are due and connections are free; return an error.

        The deliveries in progress continue after an error of the database.
        """
        try:
            waiting = await self._due_webhooks(running)
            while waiting and len(running) < self._connections:
                remaining = []
                for webhook_id, failures in waiting:
                    if not self._may_start(running, webhook_id, failures):
                        continue
                    claim = await claim_due(self._database, webhook_id=webhook_id)
                    if claim is None:
                        continue
                    self._last = webhook_id
                    task = asyncio.create_task(self._deliver(claim, sender))
                    running[task] = _Running(webhook_id, time.monotonic(), failures > 0)
                    remaining.append((webhook_id, failures))
                waiting = remaining
        except PressroomError as error:
            return error
        return None

    async def _due_webhooks(
        self, running: dict[asyncio.Task[bool], _Running]
    ) -> Sequence[tuple[int, int]]:
        """Return the webhooks with due deliveries, and their failures, in their turns."""
        if len(running) >= self._connections:
            return []
        async with self._database.unit_of_work() as session:
            rows = await session.execute(_DUE_WEBHOOKS, {"now": clock.now()})
            due = [(row.id, row.failures) for row in rows]
        return sorted(due, key=lambda each: (each[0] <= self._last, each[0]))

    def _may_start(
        self, running: dict[asyncio.Task[bool], _Running], webhook_id: int, failures: int
    ) -> bool:
        if len(running) >= self._connections:
            return False
        own = Counter(each.webhook_id for each in running.values())[webhook_id]
        if own >= (1 if failures else PER_WEBHOOK):
            return False
        if not failures and webhook_id not in self._slow:
            return True
        troubled = sum(each.is_failing or self._is_slow(each) for each in running.values())
        return troubled < max(1, self._connections // 2)

    def _is_slow(self, running: _Running) -> bool:
        elapsed = time.monotonic() - running.started_at
        return running.webhook_id in self._slow or elapsed >= SLOW_SECONDS

    async def _deliver(self, claim: Claim, sender: Sender) -> bool:
        """Send a message, and record the result. Other deliveries must not fail with it."""
        try:
            moment = clock.now()
            outcome = await sender.send(claim.url, claim.body, claim.sign(moment))
            await record(self._database, claim, outcome, started_at=moment)
        except PressroomError as error:  # the claim expires, and another attempt follows
            logger.warning(f"delivery {claim.delivery_id} not recorded: {type(error).__name__}")
        except Exception:
            logger.exception(f"delivery {claim.delivery_id} not recorded")
        else:
            return outcome.error is None
        return False

    def _collect(self, running: dict[asyncio.Task[bool], _Running]) -> int:
        """Remove the completed deliveries, and remember which webhooks are slow.

        Return how many were successful.
        """
        completed = [task for task in running if task.done()]
        count = 0
        for task in completed:
            each = running.pop(task)
            count += task.result()
            if time.monotonic() - each.started_at >= SLOW_SECONDS:
                self._slow.add(each.webhook_id)
            else:
                self._slow.discard(each.webhook_id)
        return count


async def claim_due(database: Database, *, webhook_id: int) -> Claim | None:
    """Claim the first due delivery of a webhook; return None if there is none.

    A delivery that must not be sent any more is given up, and the next one is claimed.
    """
    while True:
        now = clock.now()
        parameters = {"of_webhook": webhook_id, "now": now, "until": now + CLAIM_DURATION}
        async with database.unit_of_work() as session:
            delivery_id = await session.scalar(_CLAIM, parameters)
            if delivery_id is None:
                return None
            row = (await session.execute(_CLAIMED, {"delivery_id": delivery_id})).one()
            delivery: WebhookDelivery = row.WebhookDelivery
            delivery.first_attempt_at = delivery.first_attempt_at or now
            try:
                return _claim(delivery, row.Webhook, row.role, row.Event, now + CLAIM_DURATION)
            except _Undeliverable as reason:
                delivery.next_attempt_at = None
                session.add(_attempt(delivery_id, Outcome(0, None, str(reason)), now))


class _Undeliverable(Exception):
    """A delivery must not be sent. The message contains the reason."""


def _claim(
    delivery: WebhookDelivery, webhook: Webhook, role: Role, event: Event | None, until: datetime
) -> Claim:
    """Compose the message of a delivery. Raises _Undeliverable."""
    if delivery.event_id is None:
        occurrence = Occurrence(delivery.kind, delivery.created_at)
    elif event is None:
        raise _Undeliverable("the event was deleted")
    elif not may_see(event, user_id=webhook.owner_id, role=role):
        raise _Undeliverable("the owner may not see the event any more")
    else:
        occurrence = Occurrence(*(getattr(event, name) for name in Occurrence._fields))
    body = payloads.compose(occurrence, version=webhook.payload_version)
    sign = partial(
        signing.signed_headers,
        body,
        message_id=delivery.message_id,
        signed_with=_secrets(webhook),
    )
    return Claim(
        delivery.id, webhook.id, until, webhook.url, body, lambda moment: sign(moment=moment)
    )


def _secrets(webhook: Webhook) -> Sequence[str]:
    """Return the secrets of signatures. Raises _Undeliverable if the current one is lost."""
    try:
        secrets = [sealing.unseal(webhook.sealed_secret, purpose=sealing.WEBHOOK)]
        previous, until = webhook.sealed_previous_secret, webhook.previous_secret_until
        if previous is not None and until is not None and until > clock.now():
            secrets.append(sealing.unseal(previous, purpose=sealing.WEBHOOK))
    except sealing.UnsealError:
        raise _Undeliverable("SECRET_KEY has changed: rotate the secret") from None
    return secrets


async def record(
    database: Database, claim: Claim, outcome: Outcome, *, started_at: datetime
) -> None:
    """Record the result of an attempt, unless another process has claimed the delivery since.

    The webhook is locked before its delivery, as a deletion does.
    """
    metrics.count("pressroom_webhook_attempts_total", "failed" if outcome.error else "ok")
    async with database.unit_of_work() as session:
        webhook = await session.get(Webhook, claim.webhook_id, with_for_update=True)
        delivery = await session.get(WebhookDelivery, claim.delivery_id, with_for_update=True)
        if webhook is None or delivery is None or delivery.next_attempt_at != claim.until:
            return
        session.add(_attempt(delivery.id, outcome, started_at))
        if outcome.error is None:
            delivery.next_attempt_at = None
            delivery.delivered_at = clock.now()
            webhook.failures, webhook.failing_since, webhook.paused_until = 0, None, None
            webhook.last_success_at = delivery.delivered_at
        else:
            await _record_failure(session, webhook, delivery, outcome, started_at)


async def _record_failure(
    session: AsyncSession,
    webhook: Webhook,
    delivery: WebhookDelivery,
    outcome: Outcome,
    started_at: datetime,
) -> None:
    now = clock.now()
    webhook.failures += 1
    webhook.failing_since = webhook.failing_since or started_at
    first = delivery.first_attempt_at or started_at
    delivery.next_attempt_at = now + _delay(delivery.attempts)
    if webhook.failures >= PAUSE_AFTER:
        webhook.paused_until = now + _delay(webhook.failures)
    following = max(delivery.next_attempt_at, webhook.paused_until or now)
    if not webhook.is_active:
        return  # a message that was sent at the same time has disabled it, or a user
    if outcome.status == GONE or following > webhook.failing_since + GIVE_UP_AFTER:
        # The delivery stays pending: it is sent when the subscription is active again.
        await _disable(session, webhook, outcome.error or "")
    elif following > first + GIVE_UP_AFTER:
        delivery.next_attempt_at = None


def _delay(failures: int) -> timedelta:
    """Return the time until the next attempt: it triples each time, and varies by JITTER."""
    delay = min(FIRST_DELAY * 3.0 ** min(failures - 1, 20), MAX_DELAY)
    return delay * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - not a secret


async def _disable(session: AsyncSession, webhook: Webhook, error: str) -> None:
    """Disable a subscription whose receiver failed for too long, and tell its owner."""
    webhook.is_active = False
    webhook.disabled_reason = error[:200]
    owner = await session.get_one(User, webhook.owner_id)
    outbox.queue(session, MailKind.WEBHOOK_DISABLED, email=owner.email, user_id=owner.id)
    audit.record(
        session,
        AuditAction.DISABLE_WEBHOOK,
        actor_id=None,
        subject="webhook",
        subject_id=webhook.id,
    )


def _attempt(delivery_id: int, outcome: Outcome, started_at: datetime) -> WebhookAttempt:
    return WebhookAttempt(
        delivery_id=delivery_id,
        started_at=started_at,
        milliseconds=outcome.milliseconds,
        status=outcome.status,
        error=outcome.error,
        answer=outcome.answer,
    )
