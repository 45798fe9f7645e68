"""Webhooks: subscriptions to events, their secrets, deliveries, tests and repetitions.

Users manage their own subscriptions, administrators all. A subscription gets the events that its
owner may see: those of public things and of their own, and all if the owner is an administrator.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    and_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import sealing
from app.auth.identity import Identity
from app.auth.permissions import Action, may, may_on_any, require
from app.core import clock
from app.core.errors import (
    DeliveryNotFound,
    DeliveryPending,
    InvalidInput,
    TooManyWebhooks,
    WebhookNotFound,
)
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.selection import Selection
from app.db.session import NO_KEY_UPDATE
from app.models.accounts.user import User
from app.models.integrations.webhook import Webhook, WebhookAttempt, WebhookDelivery
from app.schemas.integrations.webhook import (
    AttemptResponse,
    DeliveryDetails,
    DeliveryQuery,
    DeliveryResponse,
    DeliveryState,
    Replay,
    Replayed,
    WebhookCreate,
    WebhookCreated,
    WebhookQuery,
    WebhookResponse,
    WebhookSecret,
    WebhookUpdate,
)
from app.services import audit, limits
from app.services.audit import AuditAction
from app.services.integrations.events import latest_position
from app.services.integrations.payloads import TEST
from app.services.integrations.signing import new_secret
from app.services.outgoing import NotContacted, parse_target
from app.services.pages.keyset import Keyset, keyset, read_page
from app.services.pages.paging import ListPage
from app.services.purging import Batch, delete_oldest, lowest

MAX_WEBHOOKS = 20
"""Subscriptions of a user."""
ROTATION = timedelta(days=1)
"""How long messages are signed with the previous secret, too."""
MAX_REPLAYED = 1000
"""Deliveries that one request sends again."""
RETENTION = timedelta(days=14)
"""How long deliveries and their attempts are kept."""
MAX_ATTEMPTS_SHOWN = 50

_WEBHOOK = Selection.of(WebhookResponse, Webhook)
_OWNER = bindparam("owner_id", type_=BigInteger)
_LIST = keyset(
    "webhooks",
    _WEBHOOK,
    select(*_WEBHOOK.columns).where(or_(_OWNER.is_(None), Webhook.owner_id == _OWNER)),
    Webhook.id,
)
_ONE = select(*_WEBHOOK.columns).where(Webhook.id == bindparam("webhook_id", type_=BigInteger))
_STATES: Mapping[DeliveryState | None, ColumnElement[bool]] = {
    None: true(),
    DeliveryState.PENDING: WebhookDelivery.next_attempt_at.is_not(None),
    DeliveryState.DELIVERED: WebhookDelivery.delivered_at.is_not(None),
    DeliveryState.FAILED: and_(
        WebhookDelivery.next_attempt_at.is_(None), WebhookDelivery.delivered_at.is_(None)
    ),
}
_STATE = case(
    (_STATES[DeliveryState.PENDING], literal(DeliveryState.PENDING.value)),
    (_STATES[DeliveryState.DELIVERED], literal(DeliveryState.DELIVERED.value)),
    else_=literal(DeliveryState.FAILED.value),
)
_DELIVERY = Selection.of(DeliveryResponse, WebhookDelivery, state=_STATE)
_DELIVERIES = select(*_DELIVERY.columns).where(
    WebhookDelivery.webhook_id == bindparam("webhook_id", type_=BigInteger)
)
_DELIVERY_LISTS: Mapping[DeliveryState | None, Keyset[DeliveryResponse]] = {
    state: keyset("deliveries", _DELIVERY, _DELIVERIES.where(condition), WebhookDelivery.id)
    for state, condition in _STATES.items()
}
_ONE_DELIVERY = _DELIVERIES.where(WebhookDelivery.id == bindparam("delivery_id", type_=BigInteger))
_ATTEMPT = Selection.of(AttemptResponse, WebhookAttempt)
_ATTEMPTS = (
    select(*_ATTEMPT.columns)
    .where(WebhookAttempt.delivery_id == bindparam("delivery_id", type_=BigInteger))
    .order_by(WebhookAttempt.id.desc())
    .limit(MAX_ATTEMPTS_SHOWN)
)


async def list_webhooks(
    reader: Reader, *, query: WebhookQuery, user: Identity
) -> ListPage[WebhookResponse]:
    """List the user's subscriptions, newest first; administrators see those of all users.

    Raises NotAuthorized for another `owner`, InvalidCursor.
    """
    owner_id = query.owner
    if owner_id is None and not may_on_any(user, Action.MANAGE_WEBHOOKS):
        owner_id = user.id
    if owner_id is not None:
        require(user, Action.MANAGE_WEBHOOKS, owner_id=owner_id)
    return await read_page(
        reader, _LIST, query=query, parameters={"owner_id": owner_id}, of=owner_id
    )


async def get_webhook(reader: Reader, *, webhook_id: int, user: Identity) -> WebhookResponse:
    """Return a subscription. Raises WebhookNotFound, also for that of another user."""
    row = (await reader.execute(_ONE, {"webhook_id": webhook_id})).one_or_none()
    if row is None:
        raise WebhookNotFound
    found = _WEBHOOK.read(row)
    if not may(user, Action.MANAGE_WEBHOOKS, owner_id=found.owner_id):
        raise WebhookNotFound
    return found


async def create_webhook(
    session: AsyncSession, *, new: WebhookCreate, actor: Identity
) -> WebhookCreated:
    """Create a subscription, which gets the events from now on.

    The user's row is locked, so that concurrent requests cannot exceed MAX_WEBHOOKS. Raises
    TooManyWebhooks, LimitReached.
    """
    await session.execute(
        select(User.id).where(User.id == actor.id).with_for_update(**NO_KEY_UPDATE)
    )
    count = select(func.count()).select_from(Webhook).where(Webhook.owner_id == actor.id)
    if (await session.scalar(count) or 0) >= MAX_WEBHOOKS:
        raise TooManyWebhooks
    _require_valid(new.url)
    position = await latest_position(session)
    secret = new_secret()
    webhook = Webhook(
        owner_id=actor.id,
        **new.model_dump(exclude={"events"}),
        events=[kind.value for kind in new.events],
        sealed_secret=sealing.seal(secret, purpose=sealing.WEBHOOK),
        event_xid=position.xid,
        event_id=position.id,
        is_active=True,
        failures=0,
    )
    session.add(webhook)
    await session.flush()  # assigns the id
    _record(session, AuditAction.CREATE_WEBHOOK, webhook.id, actor)
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    response = WebhookResponse.model_validate(webhook)
    return WebhookCreated(**response.model_dump(), secret=secret)


async def update_webhook(
    session: AsyncSession, *, webhook_id: int, changes: WebhookUpdate, actor: Identity
) -> WebhookResponse:
    """Change a subscription. Its pending deliveries go to the new address.

    Raises WebhookNotFound, LimitReached.
    """
    webhook = await _locked(session, webhook_id, actor)
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    values = changes.model_dump(exclude_unset=True)
    if "url" in values:
        _require_valid(changes.url)
    if "events" in values:
        values["events"] = [kind.value for kind in changes.events]
    if values.get("is_active") or "url" in values:
        values |= {"failures": 0, "failing_since": None, "paused_until": None}
    if values.get("is_active") and not webhook.is_active:
        values["disabled_reason"] = None
        await session.execute(_AGAIN, {"of_webhook": webhook_id, "now": clock.now()})
    for field, value in values.items():
        setattr(webhook, field, value)
    if session.is_modified(webhook):
        _record(session, AuditAction.UPDATE_WEBHOOK, webhook_id, actor)
    await session.flush()  # sets `updated_at`
    return WebhookResponse.model_validate(webhook)


_AGAIN = (
    update(WebhookDelivery)
    .where(
        WebhookDelivery.webhook_id == bindparam("of_webhook", type_=BigInteger),
        WebhookDelivery.next_attempt_at.is_not(None),
    )
    .values(attempts=0, first_attempt_at=None, next_attempt_at=bindparam("now"))
    .execution_options(synchronize_session=False)
)
"""Make all pending deliveries due, as if they were new."""


async def delete_webhook(session: AsyncSession, *, webhook_id: int, actor: Identity) -> None:
    """Delete a subscription with its deliveries. Raises WebhookNotFound, LimitReached."""
    webhook = await _locked(session, webhook_id, actor)
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    await session.delete(webhook)
    _record(session, AuditAction.DELETE_WEBHOOK, webhook_id, actor)


async def rotate_secret(
    session: AsyncSession, *, webhook_id: int, actor: Identity
) -> WebhookSecret:
    """Replace the secret. Messages are signed with both for a day.

    A rotation within this day drops the oldest secret. Raises WebhookNotFound, LimitReached.
    """
    webhook = await _locked(session, webhook_id, actor)
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    secret, until = new_secret(), clock.now() + ROTATION
    webhook.sealed_previous_secret = webhook.sealed_secret
    webhook.previous_secret_until = until
    webhook.sealed_secret = sealing.seal(secret, purpose=sealing.WEBHOOK)
    _record(session, AuditAction.ROTATE_WEBHOOK, webhook_id, actor)
    return WebhookSecret(secret=secret, previous_secret_until=until)


async def send_test(session: AsyncSession, *, webhook_id: int, actor: Identity) -> DeliveryResponse:
    """Queue a message of the kind `test`. Raises WebhookNotFound, LimitReached."""
    await _locked(session, webhook_id, actor)
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    delivery = WebhookDelivery(webhook_id=webhook_id, kind=TEST)
    session.add(delivery)
    await session.flush()
    return await _response(session, webhook_id, delivery.id)


async def list_deliveries(
    reader: Reader, *, webhook_id: int, query: DeliveryQuery, user: Identity
) -> ListPage[DeliveryResponse]:
    """List a subscription's deliveries, newest first. Raises WebhookNotFound, InvalidCursor."""
    await get_webhook(reader, webhook_id=webhook_id, user=user)
    return await read_page(
        reader,
        _DELIVERY_LISTS[query.state],
        query=query,
        parameters={"webhook_id": webhook_id},
        of=(webhook_id, query.state),
    )


async def get_delivery(
    reader: Reader, *, webhook_id: int, delivery_id: int, user: Identity
) -> DeliveryDetails:
    """Return a delivery with the log of its attempts. Raises WebhookNotFound, DeliveryNotFound."""
    await get_webhook(reader, webhook_id=webhook_id, user=user)
    parameters = {"webhook_id": webhook_id, "delivery_id": delivery_id}
    row = (await reader.execute(_ONE_DELIVERY, parameters)).one_or_none()
    if row is None:
        raise DeliveryNotFound
    attempts = await reader.execute(_ATTEMPTS, {"delivery_id": delivery_id})
    log = [_ATTEMPT.read(each) for each in attempts]
    return DeliveryDetails(**_DELIVERY.read(row).model_dump(), log=log)


_REPLAYED: dict[str, Any] = {"attempts": 0, "first_attempt_at": None, "delivered_at": None}


async def replay(
    session: AsyncSession, *, webhook_id: int, delivery_id: int, actor: Identity
) -> DeliveryResponse:
    """Send a delivery again, with the same message id.

    Raises WebhookNotFound, DeliveryNotFound, DeliveryPending, LimitReached.
    """
    await _locked(session, webhook_id, actor)
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    delivery = await session.get(WebhookDelivery, delivery_id, with_for_update=True)
    if delivery is None or delivery.webhook_id != webhook_id:
        raise DeliveryNotFound
    if delivery.next_attempt_at is not None:
        raise DeliveryPending
    for field, value in {**_REPLAYED, "next_attempt_at": clock.now()}.items():
        setattr(delivery, field, value)
    await session.flush()
    return await _response(session, webhook_id, delivery_id)


async def replay_span(
    session: AsyncSession, *, webhook_id: int, span: Replay, actor: Identity
) -> Replayed:
    """Send the deliveries again that were queued in a time, except for those that are pending.

    The first MAX_REPLAYED of them. Raises WebhookNotFound, LimitReached.
    """
    await _locked(session, webhook_id, actor)
    chosen = (
        select(WebhookDelivery.id)
        .where(
            WebhookDelivery.webhook_id == webhook_id,
            WebhookDelivery.next_attempt_at.is_(None),
            WebhookDelivery.created_at >= span.since,
            WebhookDelivery.created_at < span.until,
        )
        .order_by(WebhookDelivery.id)
        .limit(MAX_REPLAYED)
        .with_for_update()
        .cte("chosen")
    )
    replayed = await session.scalars(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == chosen.c.id)
        .values(**_REPLAYED, next_attempt_at=clock.now())
        .returning(WebhookDelivery.id)
        .execution_options(synchronize_session=False)
    )
    count = len(replayed.all())
    # A tenth of a change for each, so that nobody can flood a receiver.
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1 + count // 10})
    return Replayed(deliveries=count)


async def reseal_all(session: AsyncSession) -> int:
    """Encrypt secrets again that a previous SECRET_KEY encrypted; return how many subscriptions.

    A secret that no key can decrypt is left unchanged.
    """
    count = 0
    rows = await session.stream_scalars(select(Webhook).order_by(Webhook.id).with_for_update())
    async for webhook in rows:
        before = webhook.sealed_secret, webhook.sealed_previous_secret
        webhook.sealed_secret = _resealed(webhook.sealed_secret)
        if webhook.sealed_previous_secret is not None:
            webhook.sealed_previous_secret = _resealed(webhook.sealed_previous_secret)
        count += before != (webhook.sealed_secret, webhook.sealed_previous_secret)
    return count


def _resealed(sealed: str) -> str:
    if not sealing.needs_reseal(sealed, purpose=sealing.WEBHOOK):
        return sealed
    try:
        secret = sealing.unseal(sealed, purpose=sealing.WEBHOOK)
    except sealing.UnsealError:
        return sealed
    return sealing.seal(secret, purpose=sealing.WEBHOOK)


async def purge(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of old deliveries with their attempts, also pending ones; return how many."""
    old = WebhookDelivery.created_at < clock.now() - RETENTION
    key = WebhookDelivery.id
    return await delete_oldest(session, batch, key, old, lowest(batch, key), order_by=key)


def _require_valid(url: str) -> None:
    """Raise InvalidInput unless messages could be sent to the URL. Its host is not resolved."""
    try:
        parse_target(url)
    except NotContacted as error:
        raise InvalidInput(f"`url`: {error}") from None


async def _locked(session: AsyncSession, webhook_id: int, actor: Identity) -> Webhook:
    """Lock and return a subscription. Raises WebhookNotFound, also for that of another user."""
    webhook = await session.get(Webhook, webhook_id, with_for_update=True)
    if webhook is None or not may(actor, Action.MANAGE_WEBHOOKS, owner_id=webhook.owner_id):
        raise WebhookNotFound
    return webhook


async def _response(session: AsyncSession, webhook_id: int, delivery_id: int) -> DeliveryResponse:
    parameters = {"webhook_id": webhook_id, "delivery_id": delivery_id}
    return _DELIVERY.read((await session.execute(_ONE_DELIVERY, parameters)).one())


def _record(session: AsyncSession, action: AuditAction, webhook_id: int, actor: Identity) -> None:
    audit.record(session, action, actor_id=actor.id, subject="webhook", subject_id=webhook_id)
