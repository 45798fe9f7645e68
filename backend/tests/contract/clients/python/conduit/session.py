"""A user who is logged in to the RealWorld API."""

from dataclasses import dataclass
from uuid import uuid4

from conduit_client import AuthenticatedClient, Client
from conduit_client.api.articles import create_article
from conduit_client.api.user_and_authentication import register
from conduit_client.models import (
    Article,
    ArticleResponse,
    NewArticle,
    NewArticleRequest,
    NewUser,
    NewUserRequest,
    User,
    UserResponse,
)

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Session:
    anonymous: Client
    client: AuthenticatedClient
    user: User

    def publish(self, title: str, *tags: str) -> Article:
        new = NewArticle(
            title=title, description="An essay", body="It weaves patterns.", tag_list=list(tags)
        )
        created = create_article.sync(client=self.client, body=NewArticleRequest(article=new))
        assert isinstance(created, ArticleResponse), created
        return created.article


def sign_up(url: str) -> Session:
    base_url = f"{url}/api"
    anonymous = Client(base_url=base_url)
    username = f"py-{uuid4().hex[:12]}"
    new = NewUser(username=username, email=f"{username}@example.com", password=PASSWORD)
    registered = register.sync(client=anonymous, body=NewUserRequest(user=new))
    assert isinstance(registered, UserResponse), registered
    user = registered.user
    client = AuthenticatedClient(base_url=base_url, token=user.token, prefix="Token")
    return Session(anonymous=anonymous, client=client, user=user)
