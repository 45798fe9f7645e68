from conduit_client.api.profile import follow, read_profile
from conduit_client.models import GenericError, ProfileResponse

from conduit.session import Session


def run(session: Session) -> None:
    username = session.user.username
    profile = read_profile.sync(username, client=session.client)
    assert isinstance(profile, ProfileResponse), profile
    refused = follow.sync(username, client=session.client)
    assert isinstance(refused, GenericError), refused
