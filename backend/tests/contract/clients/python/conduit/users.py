from conduit_client.api.user_and_authentication import login, read_user, update_user
from conduit_client.models import (
    GenericError,
    LoginUser,
    LoginUserRequest,
    UpdateUser,
    UpdateUserRequest,
    UserResponse,
)

from conduit.session import Session


def run(session: Session) -> None:
    changes = UpdateUserRequest(user=UpdateUser(bio="Programmer"))
    changed = update_user.sync(client=session.client, body=changes)
    assert isinstance(changed, UserResponse), changed
    current = read_user.sync(client=session.client)
    assert isinstance(current, UserResponse), current
    assert current.user.email == session.user.email
    form = LoginUserRequest(user=LoginUser(email=session.user.email, password="wrong"))
    refused = login.sync(client=session.anonymous, body=form)
    assert isinstance(refused, GenericError), refused
