from native_client.api.addresses import create_address, list_addresses
from native_client.models import AddressInput, AddressResponse

from native.session import Session


def run(session: Session) -> None:
    new = AddressInput(label="home", line1="12 St James's Square", city="London", country="GB")
    created = create_address.sync(session.user.id, client=session.client, body=new)
    assert isinstance(created, AddressResponse), created
    listed = list_addresses.sync(session.user.id, client=session.client)
    assert isinstance(listed, list), listed
    assert [each.id for each in listed] == [created.id]
