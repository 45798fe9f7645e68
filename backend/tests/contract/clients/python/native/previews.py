from native_client.api.previews import create_preview_link, read_preview
from native_client.models import ArticleResponse, PreviewLinkCreate, PreviewLinkCreated

from native.session import Session


def run(session: Session) -> None:
    article = session.publish("A preview")
    link = create_preview_link.sync(article.id, client=session.client, body=PreviewLinkCreate())
    assert isinstance(link, PreviewLinkCreated), link
    preview = read_preview.sync(link.token, client=session.client)
    assert isinstance(preview, ArticleResponse), preview
    assert preview.id == article.id
