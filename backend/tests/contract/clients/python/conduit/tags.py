from conduit_client.api.tags import list_tags
from conduit_client.models import TagsResponse

from conduit.session import Session


def run(session: Session) -> None:
    session.publish("With a tag", "Mills")
    tags = list_tags.sync(client=session.anonymous)
    assert isinstance(tags, TagsResponse), tags
    assert tags.tags
