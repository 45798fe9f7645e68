from native_client.api.administration import list_jobs, read_server_health
from native_client.models import NotAuthorized

from native.session import Session


def run(session: Session) -> None:
    jobs = list_jobs.sync(client=session.client)
    assert isinstance(jobs, NotAuthorized), jobs
    health = read_server_health.sync(client=session.client)
    assert isinstance(health, NotAuthorized), health
