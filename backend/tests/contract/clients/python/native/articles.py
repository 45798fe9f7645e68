from native_client.api.articles import (
    create_article,
    list_articles,
    read_article,
    update_article,
)
from native_client.models import (
    ArticleCreate,
    ArticleNotFound,
    ArticlePart,
    ArticleResponse,
    ArticleUpdate,
    ListedArticle,
)
from native_client.types import Unset

from native.session import Session


def run(session: Session) -> None:
    client, author = session.client, session.user.username
    draft = ArticleCreate(title="Notes", content="The engine weaves.")
    created = create_article.sync(client=client, body=draft)
    assert isinstance(created, ArticleResponse), created
    changed = update_article.sync(created.id, client=client, body=ArticleUpdate(published=True))
    assert isinstance(changed, ArticleResponse), changed

    missing = read_article.sync(2**40, client=client)
    assert isinstance(missing, ArticleNotFound), missing
    assert missing.code == "article_not_found"

    found = list_articles.sync_detailed(client=client, author=author, count=True)
    assert found.headers["X-Total-Count"] == "1"
    assert isinstance(found.parsed, list)
    listed = found.parsed[0]
    assert isinstance(listed, ListedArticle)
    assert listed.title.lower() == "notes"
    parts = list_articles.sync(client=client, author=author, fields="title,html")
    assert isinstance(parts, list)
    part = parts[0]
    assert isinstance(part, ArticlePart)
    assert not isinstance(part.html, Unset)
