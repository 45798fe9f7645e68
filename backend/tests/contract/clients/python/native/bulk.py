import io
import json

from native_client.api.bulk import import_articles
from native_client.models import ImportResponse
from native_client.types import File

from native.session import Session


def run(session: Session) -> None:
    record = {"title": "Imported", "content": "From another system."}
    body = File(payload=io.BytesIO(f"{json.dumps(record)}\n{{}}\n".encode()))
    report = import_articles.sync(client=session.client, body=body)
    assert isinstance(report, ImportResponse), report
    assert report.created == 1
    assert [failure.line for failure in report.errors] == [2]
