from native_client.api.search import search_articles

from native.session import Session


def run(session: Session) -> None:
    article = session.publish("A tabulating machine")
    found = search_articles.sync(client=session.client, q="tabulating")
    assert isinstance(found, list), found
    snippets = {each.id: each.title_snippet for each in found}
    assert "<mark>" in snippets[article.id]
