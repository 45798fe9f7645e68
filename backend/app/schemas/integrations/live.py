"""Schemas of streams and sockets."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from app.core.enums import LiveTopic
from app.schemas.community.comment import CommentResponse
from app.schemas.types import Id, Input, Output

MAX_CURSOR_LENGTH = 1000
MAX_TOKEN_LENGTH = 4000
OF_ARTICLE = frozenset({LiveTopic.COMMENTS, LiveTopic.PRESENCE})


class StreamQuery(Input):
    """What a stream sends, and from where on."""

    topic: Annotated[
        Literal[LiveTopic.CHANGES, LiveTopic.FEED, LiveTopic.COMMENTS, LiveTopic.MODERATION],
        Field(
            description="`changes` of all articles, `feed`: of the users whom you follow, "
            "`comments` of an article, `moderation`: comments that you moderate"
        ),
    ] = LiveTopic.CHANGES
    article_id: Annotated[Id | None, Field(description="The article, for `comments`")] = None
    cursor: Annotated[
        str,
        Field(
            max_length=MAX_CURSOR_LENGTH,
            description="The id of the last event that you have. Without it, the stream starts "
            "now. `Last-Event-ID` replaces it",
        ),
    ] = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_article(self.topic, self.article_id)
        return self


class CommentEvent(Output):
    """What happened to a comment."""

    event_id: int
    """The same event has the same id, if it is sent again after a reconnect."""
    kind: Literal["created", "held", "deleted"]
    article_id: int
    comment_id: int
    thread_id: int
    occurred_at: datetime
    comment: CommentResponse | None
    """The comment as the subscriber may see it now; None if they must remove it."""


class Authenticate(Input):
    """The first message of a socket; later ones bring a new token of the same user."""

    type: Literal["authenticate"]
    token: Annotated[SecretStr, Field(min_length=1, max_length=MAX_TOKEN_LENGTH)]
    id: int | None = None


class Subscribe(Input):
    """Subscribe to a topic."""

    type: Literal["subscribe"]
    topic: LiveTopic
    article_id: Id | None = None
    cursor: Annotated[str, Field(max_length=MAX_CURSOR_LENGTH)] = ""
    id: int | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_article(self.topic, self.article_id)
        return self


class Unsubscribe(Input):
    """End a subscription."""

    type: Literal["unsubscribe"]
    topic: LiveTopic
    article_id: Id | None = None
    id: int | None = None


class Edit(Input):
    """Say that the user has an article open for editing, or no longer has."""

    type: Literal["edit"]
    article_id: Id
    editing: bool
    id: int | None = None


Command = Annotated[Authenticate | Subscribe | Unsubscribe | Edit, Field(discriminator="type")]
"""A message of a client."""


def _check_article(topic: LiveTopic, article_id: int | None) -> None:
    if (article_id is not None) != (topic in OF_ARTICLE):
        raise ValueError("article_id belongs to the topics comments and presence, which need it")
