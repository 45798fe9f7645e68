"""A running API, at PRESSROOM_URL, and a user of it."""

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from pressroom_client import Client, MemoryStore, models

PASSWORD = "correct horse battery"


@pytest.fixture(scope="session")
def url() -> str:
    return os.environ.get("PRESSROOM_URL", "http://localhost:8000")


@pytest.fixture(scope="session")
def user(url: str) -> models.UserPrivate:
    name = f"py-{uuid4().hex[:12]}"
    with Client(url) as client:
        return client.create_user(
            models.UserCreate(
                email=f"{name}@example.com", username=name, name="Ada", password=PASSWORD
            )
        )


@pytest.fixture(scope="session")
def store(url: str, user: models.UserPrivate) -> MemoryStore:
    """The tokens of a session of the user."""
    store = MemoryStore()
    with Client(url, store=store) as client:
        client.login(models.LoginForm(username=user.username, password=PASSWORD))
    return store


@pytest.fixture
def client(url: str, store: MemoryStore) -> Iterator[Client]:
    with Client(url, store=store) as client:
        yield client


def publish(client: Client, title: str, *tags: str) -> models.ArticleResponse:
    return client.create_article(
        models.ArticleCreate(
            title=title, content="The engine weaves.", tags=list(tags), published=True
        )
    )
