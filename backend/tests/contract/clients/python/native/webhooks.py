from native_client.api.webhooks import (
    create_webhook,
    delete_webhook,
    list_deliveries,
    send_test,
    update_webhook,
)
from native_client.models import (
    DeliveryResponse,
    WebhookCreate,
    WebhookCreated,
    WebhookResponse,
    WebhookUpdate,
)

from native.session import Session


def run(session: Session) -> None:
    new = WebhookCreate(url="https://example.com/hook", events=["article.published"])
    created = create_webhook.sync(client=session.client, body=new)
    assert isinstance(created, WebhookCreated), created
    assert created.secret.startswith("whsec_")
    off = WebhookUpdate(is_active=False)
    changed = update_webhook.sync(created.id, client=session.client, body=off)
    assert isinstance(changed, WebhookResponse), changed
    sent = send_test.sync(created.id, client=session.client)
    assert isinstance(sent, DeliveryResponse), sent
    listed = list_deliveries.sync(created.id, client=session.client)
    assert isinstance(listed, list), listed
    assert [each.message_id for each in listed] == [sent.message_id]
    delete_webhook.sync(created.id, client=session.client)
