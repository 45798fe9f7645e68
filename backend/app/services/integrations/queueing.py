"""Queueing deliveries: each subscription reads the events after its position.

The deliveries and the new position are written in one transaction, so each event is queued once.
Processes share the subscriptions by row locks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, bindparam, func, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.permissions import Action, roles_allowed_on_any
from app.content.slugs import tag_key
from app.core import clock
from app.core.enums import Role
from app.db.session import Database
from app.models.accounts.user import User
from app.models.integrations.webhook import Webhook, WebhookDelivery
from app.services.integrations.events import AFTER, Position, latest_position

BATCH = 500
"""Events that one transaction reads."""
MAX_PENDING = 1000
"""Pending deliveries of a subscription. Then it reads no events until some are delivered."""

_TARGET = tuple_(bindparam("xid", type_=BigInteger), bindparam("id", type_=BigInteger))
_PENDING = (
    select(func.count())
    .select_from(
        select(WebhookDelivery.id)
        .where(
            WebhookDelivery.webhook_id == Webhook.id, WebhookDelivery.next_attempt_at.is_not(None)
        )
        .limit(MAX_PENDING)
        .correlate(Webhook)
        .subquery()
    )
    .scalar_subquery()
)
_BEHIND = (
    select(Webhook, User.role)
    .join(User, User.id == Webhook.owner_id)
    .where(
        tuple_(Webhook.event_xid, Webhook.event_id) < _TARGET,
        Webhook.is_active,
        User.is_active,
        _PENDING < MAX_PENDING,
    )
    .order_by(Webhook.id)
    .limit(1)
    .with_for_update(of=Webhook, skip_locked=True)
)


async def queue_events(database: Database) -> int:
    """Queue deliveries of the present events for all active subscriptions; return how many.

    Later events wait for the next call. Otherwise, while events keep coming, the subscriptions with
    the lowest ids would be behind again before the others have their turn.
    """
    return await queue_until(database, await latest_position(database.primary))


async def queue_until(database: Database, target: Position) -> int:
    """Queue deliveries until no subscription is before a position; return how many."""
    count = 0
    while True:
        async with database.unit_of_work() as session:
            row = (await session.execute(_BEHIND, target._asdict())).one_or_none()
            if row is None:
                return count
            count += await _queue(session, row.Webhook, row.role, target)


async def _queue(session: AsyncSession, webhook: Webhook, role: Role, target: Position) -> int:
    parameters = {"xid": webhook.event_xid, "id": webhook.event_id, "limit": BATCH}
    found: Sequence[Any] = (await session.execute(AFTER, parameters)).all()
    # Without any, those up to the target have been deleted meanwhile.
    webhook.event_xid, webhook.event_id = (found[-1].xid, found[-1].id) if found else target
    now = clock.now()
    rows = [
        {
            "webhook_id": webhook.id,
            "event_id": event.id,
            "kind": event.kind,
            "article_id": event.article_id,
            "created_at": now,
            "next_attempt_at": now,
        }
        for event in found
        if is_wanted(webhook, event) and may_see(event, user_id=webhook.owner_id, role=role)
    ]
    if rows:
        await session.execute(insert(WebhookDelivery), rows)
    return len(rows)


def may_see(event: Any, *, user_id: int, role: Role) -> bool:
    """Return whether a user may get an event: a public one, their own, or any as administrator."""
    return (
        event.is_public
        or role in roles_allowed_on_any(Action.MANAGE_WEBHOOKS)
        or user_id in {event.user_id, event.data.get("author_id")}
    )


def is_wanted(webhook: Webhook, event: Any) -> bool:
    """Return whether an event is of a subscribed kind, and passes the filters.

    A change also passes if the article matched them before: its receiver may have a copy.
    """
    data = event.data
    return event.kind in webhook.events and (
        _matches(webhook, data) or ("former" in data and _matches(webhook, data["former"]))
    )


def _matches(webhook: Webhook, data: Mapping[str, Any]) -> bool:
    return (
        (webhook.author_id is None or webhook.author_id == data.get("author_id"))
        and (webhook.language is None or webhook.language == data.get("language"))
        and (
            webhook.tag is None
            or tag_key(webhook.tag) in {tag_key(name) for name in data.get("tags", ())}
        )
    )
