from native_client.api.users import delete_user, read_limits, update_own_user
from native_client.models import UserDeletion, UserLimits, UserPrivate, UserUpdate

from native.session import PASSWORD, Session


def run(session: Session) -> None:
    changed = update_own_user.sync(client=session.client, body=UserUpdate(name="Ada King"))
    assert isinstance(changed, UserPrivate), changed
    assert changed.name == "Ada King"
    limits = read_limits.sync(session.user.id, client=session.client)
    assert isinstance(limits, UserLimits), limits
    assert "articles" in [each.kind for each in limits.limits]
    body = UserDeletion(password=PASSWORD)
    deleted = delete_user.sync_detailed(session.user.id, client=session.client, body=body)
    assert deleted.status_code == 204
