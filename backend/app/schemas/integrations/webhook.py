"""Webhooks: subscriptions, deliveries and their attempts."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StrictBool,
    StringConstraints,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from app.core.enums import EventKind
from app.core.validation import pattern
from app.schemas.articles.article import Language, TagName
from app.schemas.page import CursorQuery
from app.schemas.types import Id, Input, Line, Moment, Output, omitted

PayloadVersion = Literal[1]
CURRENT_VERSION: PayloadVersion = 1

WebhookUrl = Annotated[
    str,
    StringConstraints(
        max_length=2000,
        pattern=pattern(
            r"^https?://[!-;=?-~]+$",
            "should be a URL that starts with http:// or https://, in ASCII without spaces",
        ),
    ),
]


def _unique(kinds: list[EventKind]) -> list[EventKind]:
    if len(set(kinds)) < len(kinds):
        raise ValueError("must name each event once")
    return sorted(kinds)


class _UniqueItems:
    """Describes the items of a list as unique. `omitted` cannot be combined with another extra."""

    @staticmethod
    def __get_pydantic_json_schema__(
        schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(schema), "uniqueItems": True}


Events = Annotated[
    list[EventKind],
    Field(min_length=1, max_length=len(EventKind)),
    AfterValidator(_unique),
    _UniqueItems,
]
_AUTHOR = "Only events of articles of this user"
_TAG = "Only events of articles with this tag"
_LANGUAGE = "Only events of articles in this language"


class WebhookCreate(Input):
    """A new subscription. With a filter, it gets only events of articles and their comments."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "url": "https://example.com/hooks/pressroom",
                    "events": ["article.published", "article.updated"],
                }
            ]
        }
    )

    url: WebhookUrl
    events: Events
    description: Annotated[str, Line(200)] | Literal[""] = ""
    tag: Annotated[TagName | None, Field(description=_TAG)] = None
    author_id: Annotated[Id | None, Field(description=_AUTHOR)] = None
    language: Annotated[Language | None, Field(description=_LANGUAGE)] = None
    payload_version: PayloadVersion = CURRENT_VERSION


class WebhookUpdate(Input):
    """Changes of a subscription. `null` removes a filter.

    An inactive subscription keeps its position: once it is active again, it gets the events since
    then that are not deleted yet.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"is_active": False}]})

    url: WebhookUrl = omitted()
    events: Events = omitted()
    description: Annotated[str, Line(200)] | Literal[""] = omitted()
    tag: Annotated[TagName | None, Field(description=_TAG)] = omitted()
    author_id: Annotated[Id | None, Field(description=_AUTHOR)] = omitted()
    language: Annotated[Language | None, Field(description=_LANGUAGE)] = omitted()
    payload_version: PayloadVersion = omitted()
    is_active: StrictBool = omitted()


class WebhookQuery(CursorQuery):
    """Filter and page of the list. Other users' subscriptions are for administrators."""

    owner: Id | None = None


class WebhookResponse(Output):
    """A subscription, without its secret."""

    id: int
    owner_id: int
    url: str
    description: str
    events: list[EventKind]
    tag: str | None
    author_id: int | None
    language: str | None
    payload_version: int
    is_active: bool
    disabled_reason: str | None
    """Why it was disabled after failures; null if a user did it."""
    failures: int
    """Failed attempts since the last success."""
    failing_since: datetime | None
    paused_until: datetime | None
    last_success_at: datetime | None
    previous_secret_until: datetime | None
    created_at: datetime
    updated_at: datetime


class WebhookCreated(WebhookResponse):
    """A new subscription. Only this response contains `secret`."""

    secret: str


class WebhookSecret(Output):
    """A new secret. Messages are signed with the previous one, too, until a time."""

    secret: str
    previous_secret_until: datetime


class DeliveryState(StrEnum):
    """The progress of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """It was given up."""


class DeliveryQuery(CursorQuery):
    """Filter and page of deliveries."""

    state: DeliveryState | None = None


class DeliveryResponse(Output):
    """An event that is sent to a webhook."""

    id: int
    message_id: UUID
    """The header `webhook-id` is `msg_` and this id, without hyphens."""
    kind: str
    """The kind of the event, or `test`."""
    event_id: int | None
    article_id: int | None
    state: DeliveryState
    created_at: datetime
    attempts: int
    next_attempt_at: datetime | None
    delivered_at: datetime | None


class AttemptResponse(Output):
    """An attempt to deliver."""

    started_at: datetime
    milliseconds: int
    status: int | None
    error: str | None
    answer: str | None
    """The first KB of the response's body."""


class DeliveryDetails(DeliveryResponse):
    """A delivery with its last attempts, the newest first."""

    log: list[AttemptResponse]


class Replay(Input):
    """Deliveries to send again: those of events that were queued in this time."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"since": "2026-11-20T09:00:00Z", "until": "2026-11-20T10:00:00Z"}]
        }
    )

    since: Moment
    until: Moment

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.since >= self.until:
            raise ValueError("`since` must be before `until`")
        return self


class Replayed(Output):
    """How many deliveries are sent again."""

    deliveries: int


class MessageV1(Output):
    """The body of a message, as Standard Webhooks describe it."""

    type: str
    version: int
    timestamp: datetime
    data: dict[str, Any]
