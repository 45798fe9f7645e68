from native_client.api.agents import read_article_document, read_llms_txt

from native.session import Session


def run(session: Session) -> None:
    article = session.publish("For agents")
    index = read_llms_txt.sync_detailed(client=session.client)
    assert f"[{article.title}]" in index.content.decode()
    document = read_article_document.sync_detailed(article.slug, client=session.client)
    assert document.content.startswith(b"---\ntitle: For agents\n")
