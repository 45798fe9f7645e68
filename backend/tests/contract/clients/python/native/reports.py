from native_client.api.reports import list_reports, report_article
from native_client.models import NotAuthorized, ReportCreate, ReportReceipt

from native.session import Session


def run(session: Session) -> None:
    article = session.publish("Advertising")
    new = ReportCreate(reason="Advertising")
    receipt = report_article.sync(article.id, client=session.client, body=new)
    assert isinstance(receipt, ReportReceipt), receipt
    refused = list_reports.sync(client=session.client, state=receipt.state)
    assert isinstance(refused, NotAuthorized), refused
