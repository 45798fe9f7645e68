"""A user who is logged in."""

from dataclasses import dataclass
from uuid import uuid4

from native_client import AuthenticatedClient, Client
from native_client.api.articles import create_article
from native_client.api.auth import login
from native_client.api.users import create_user
from native_client.models import (
    ArticleCreate,
    ArticleResponse,
    LoginForm,
    LoginRequest,
    Tokens,
    UserCreate,
    UserPrivate,
)

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Session:
    anonymous: Client
    client: AuthenticatedClient
    user: UserPrivate

    def publish(self, title: str, *tags: str) -> ArticleResponse:
        new = ArticleCreate(
            title=title,
            content="The Analytical Engine weaves patterns.",
            tags=list(tags),
            published=True,
        )
        created = create_article.sync(client=self.client, body=new)
        assert isinstance(created, ArticleResponse), created
        return created


def log_in(anonymous: Client, body: LoginForm | LoginRequest) -> Tokens:
    tokens = login.sync(client=anonymous, body=body)
    assert isinstance(tokens, Tokens), tokens
    return tokens


def sign_up(url: str) -> Session:
    anonymous = Client(base_url=url)
    username = f"py-{uuid4().hex[:12]}"
    new = UserCreate(
        email=f"{username}@example.com", username=username, name="Ada", password=PASSWORD
    )
    user = create_user.sync(client=anonymous, body=new)
    assert isinstance(user, UserPrivate), user
    by_form = log_in(anonymous, LoginForm(username=username, password=PASSWORD))
    tokens = log_in(anonymous, LoginRequest(username=username, password=PASSWORD))
    assert by_form.refresh_token is not None
    client = AuthenticatedClient(base_url=url, token=tokens.access_token)
    return Session(anonymous=anonymous, client=client, user=user)
