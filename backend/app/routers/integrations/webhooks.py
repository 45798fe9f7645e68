"""/webhooks: subscriptions to events, for their owners and for administrators."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Query, status

from app.auth.dependencies import RequiredWebhooksViewer, WebhooksActor
from app.core.errors import (
    DeliveryNotFound,
    DeliveryPending,
    LimitReached,
    NotAuthorized,
    TooManyWebhooks,
    WebhookNotFound,
)
from app.db.dependencies import ReadConnection, WriteSession
from app.http.routing import no_store
from app.routers.idempotency import idempotent
from app.routers.paging import Paging
from app.routers.parameters import DeliveryId, WebhookId
from app.routers.responses import create_router, errors
from app.schemas.integrations.webhook import (
    DeliveryDetails,
    DeliveryQuery,
    DeliveryResponse,
    Replay,
    Replayed,
    WebhookCreate,
    WebhookCreated,
    WebhookQuery,
    WebhookResponse,
    WebhookSecret,
    WebhookUpdate,
)
from app.services.integrations import webhooks

router = create_router(prefix="/webhooks", tag="webhooks", dependencies=[Depends(no_store)])


@router.get("", responses=errors(NotAuthorized))
async def list_webhooks(
    reader: ReadConnection,
    user: RequiredWebhooksViewer,
    query: Annotated[WebhookQuery, Query()],
    paging: Paging,
) -> Sequence[WebhookResponse]:
    """List your subscriptions, newest first. Administrators see those of all users."""
    return paging.describe(await webhooks.list_webhooks(reader, query=query, user=user))


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=errors(LimitReached, TooManyWebhooks),
    dependencies=[idempotent(WebhooksActor)],
)
async def create_webhook(
    session: WriteSession, actor: WebhooksActor, new: WebhookCreate
) -> WebhookCreated:
    """Subscribe to events. Only this response contains the secret of the signatures."""
    return await webhooks.create_webhook(session, new=new, actor=actor)


@router.get("/{webhook_id}", responses=errors(WebhookNotFound))
async def read_webhook(
    reader: ReadConnection, user: RequiredWebhooksViewer, webhook_id: WebhookId
) -> WebhookResponse:
    """Read a subscription."""
    return await webhooks.get_webhook(reader, webhook_id=webhook_id, user=user)


@router.patch("/{webhook_id}", responses=errors(LimitReached, WebhookNotFound))
async def update_webhook(
    session: WriteSession, actor: WebhooksActor, webhook_id: WebhookId, changes: WebhookUpdate
) -> WebhookResponse:
    """Change, disable or enable a subscription."""
    return await webhooks.update_webhook(
        session, webhook_id=webhook_id, changes=changes, actor=actor
    )


@router.delete(
    "/{webhook_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(LimitReached, WebhookNotFound),
)
async def delete_webhook(
    session: WriteSession, actor: WebhooksActor, webhook_id: WebhookId
) -> None:
    """Delete a subscription with its deliveries."""
    await webhooks.delete_webhook(session, webhook_id=webhook_id, actor=actor)


@router.post("/{webhook_id}/secret", responses=errors(LimitReached, WebhookNotFound))
async def rotate_secret(
    session: WriteSession, actor: WebhooksActor, webhook_id: WebhookId
) -> WebhookSecret:
    """Replace the secret. For a day, messages are signed with both."""
    return await webhooks.rotate_secret(session, webhook_id=webhook_id, actor=actor)


@router.post(
    "/{webhook_id}/test",
    status_code=status.HTTP_202_ACCEPTED,
    responses=errors(LimitReached, WebhookNotFound),
)
async def send_test(
    session: WriteSession, actor: WebhooksActor, webhook_id: WebhookId
) -> DeliveryResponse:
    """Send a message of the type `test`. The delivery shows the result."""
    return await webhooks.send_test(session, webhook_id=webhook_id, actor=actor)


@router.post(
    "/{webhook_id}/replay",
    status_code=status.HTTP_202_ACCEPTED,
    responses=errors(LimitReached, WebhookNotFound),
)
async def replay_deliveries(
    session: WriteSession, actor: WebhooksActor, webhook_id: WebhookId, span: Replay
) -> Replayed:
    """Send deliveries of a time again: the first 1000 that are not pending."""
    return await webhooks.replay_span(session, webhook_id=webhook_id, span=span, actor=actor)


@router.get("/{webhook_id}/deliveries", responses=errors(WebhookNotFound))
async def list_deliveries(
    reader: ReadConnection,
    user: RequiredWebhooksViewer,
    webhook_id: WebhookId,
    query: Annotated[DeliveryQuery, Query()],
    paging: Paging,
) -> Sequence[DeliveryResponse]:
    """List deliveries, newest first. They are kept for two weeks."""
    found = await webhooks.list_deliveries(reader, webhook_id=webhook_id, query=query, user=user)
    return paging.describe(found)


@router.get(
    "/{webhook_id}/deliveries/{delivery_id}", responses=errors(WebhookNotFound, DeliveryNotFound)
)
async def read_delivery(
    reader: ReadConnection,
    user: RequiredWebhooksViewer,
    webhook_id: WebhookId,
    delivery_id: DeliveryId,
) -> DeliveryDetails:
    """Read a delivery with the log of its last 50 attempts."""
    return await webhooks.get_delivery(
        reader, webhook_id=webhook_id, delivery_id=delivery_id, user=user
    )


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/replay",
    status_code=status.HTTP_202_ACCEPTED,
    responses=errors(LimitReached, WebhookNotFound, DeliveryNotFound, DeliveryPending),
)
async def replay_delivery(
    session: WriteSession, actor: WebhooksActor, webhook_id: WebhookId, delivery_id: DeliveryId
) -> DeliveryResponse:
    """Send a delivery again, with the same message id."""
    return await webhooks.replay(
        session, webhook_id=webhook_id, delivery_id=delivery_id, actor=actor
    )
