from native_client.api.health import check_readiness
from native_client.models import Readiness

from native.session import Session


def run(session: Session) -> None:
    readiness = check_readiness.sync(client=session.client)
    assert isinstance(readiness, Readiness), readiness
    assert readiness.status == "ready"
