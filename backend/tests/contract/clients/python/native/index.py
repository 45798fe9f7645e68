from native_client.api.index import read_index
from native_client.models import Index

from native.session import Session


def run(session: Session) -> None:
    index = read_index.sync(client=session.client)
    assert isinstance(index, Index), index
    assert index.name == "Pressroom"
