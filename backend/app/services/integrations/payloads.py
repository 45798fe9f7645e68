"""Bodies of messages, for each version of the payload.

A version never changes, except for additional fields.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from app.core.enums import EventKind
from app.schemas.integrations.webhook import MessageV1

TEST = "test"
"""The kind of a message that a user requests."""


class Occurrence(NamedTuple):
    """An event, or a test: what a message is about."""

    kind: str
    occurred_at: datetime
    article_id: int | None = None
    comment_id: int | None = None
    user_id: int | None = None
    media_id: int | None = None
    is_public: bool = False
    data: Mapping[str, Any] = {}


def compose(occurrence: Occurrence, *, version: int) -> bytes:
    """Return the body of a message in JSON."""
    return _VERSIONS[version](occurrence)


def _compose_v1(occurrence: Occurrence) -> bytes:
    data = _DATA_V1[occurrence.kind.partition(".")[0]](occurrence)
    message = MessageV1(
        type=occurrence.kind, version=1, timestamp=occurrence.occurred_at.astimezone(UTC), data=data
    )
    return message.model_dump_json().encode()


def _article_v1(occurrence: Occurrence) -> dict[str, Any]:
    return {"article": _article_part_v1(occurrence)}


def _article_part_v1(occurrence: Occurrence) -> dict[str, Any]:
    data = occurrence.data
    fields = ("title", "version", "published_at", "updated_at")
    return {
        "id": occurrence.article_id,
        "slug": data["slug"],
        "language": data["language"],
        "tags": data["tags"],
        "author": {"id": data["author_id"], "username": data["author"]},
        **{name: data[name] for name in fields if name in data},
    }


def _comment_v1(occurrence: Occurrence) -> dict[str, Any]:
    data = occurrence.data
    user = {"id": occurrence.user_id, "username": data["user"]}
    comment = {
        "id": occurrence.comment_id,
        "status": data["status"],
        "previous_status": data["was"],
        "parent_id": data["parent_id"],
        "thread_id": data["thread_id"],
        "author": None if occurrence.user_id is None else user,
    }
    return {"comment": comment, "article": _article_part_v1(occurrence)}


def _user_v1(occurrence: Occurrence) -> dict[str, Any]:
    return {"user": {"id": occurrence.user_id, **occurrence.data}}


def _media_v1(occurrence: Occurrence) -> dict[str, Any]:
    owner = {"owner_id": occurrence.user_id}
    return {"media": {"id": occurrence.media_id, **owner, **occurrence.data}}


_DATA_V1: Mapping[str, Callable[[Occurrence], dict[str, Any]]] = {
    "article": _article_v1,
    "comment": _comment_v1,
    "user": _user_v1,
    "media": _media_v1,
    TEST: lambda _: {},
}
_VERSIONS: Mapping[int, Callable[[Occurrence], bytes]] = {1: _compose_v1}

assert {kind.partition(".")[0] for kind in EventKind} < _DATA_V1.keys()  # noqa: S101 - at import
