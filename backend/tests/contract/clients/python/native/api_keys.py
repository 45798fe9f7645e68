from native_client.api.api_keys import create_api_key, delete_api_key
from native_client.models import ApiKeyCreate, ApiKeyCreated

from native.session import PASSWORD, Session


def run(session: Session) -> None:
    new = ApiKeyCreate(name="Deployment", scopes=["articles:read"], password=PASSWORD)
    created = create_api_key.sync(client=session.client, body=new)
    assert isinstance(created, ApiKeyCreated), created
    assert created.key.startswith(created.hint)
    assert created.expires_at is None
    delete_api_key.sync(created.id, client=session.client)
