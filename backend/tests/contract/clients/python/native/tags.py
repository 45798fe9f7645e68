from native_client.api.tags import change_tag, list_tags
from native_client.models import NotAuthorized, TagUpdate

from native.session import Session


def run(session: Session) -> None:
    session.publish("On looms", "Punched cards")
    tags = list_tags.sync(client=session.client, q="punched", sort="count")
    assert isinstance(tags, list), tags
    refused = change_tag.sync(tags[0].slug, client=session.client, body=TagUpdate(name="Cards"))
    assert isinstance(refused, NotAuthorized), refused
