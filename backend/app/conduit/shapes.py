"""What the services return, in Conduit's shapes."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app.auth.identity import Identity
from app.core.config import get_settings
from app.schemas.user import UserPrivate
from app.services.comments.reading import CommentWithProfile
from app.services.paging import ListPage
from app.services.profiles import ProfileRow

LISTED_FIELDS = (
    "slug",
    "title",
    "excerpt",
    "tags_in_order",
    "dated_at",
    "updated_at",
    "favorited",
    "favorites_count",
    "author_bio",
    "author_image_url",
    "follows_author",
    "author",
)
"""What a list selects."""
FIELDS = ("content", *LISTED_FIELDS)
"""What one article has."""


def moment(value: datetime) -> str:
    """ISO 8601 with milliseconds and Z, as JavaScript writes it."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def image(address: str | None) -> str:
    """The address of a picture, absolute; "" where there is none."""
    if address is None:
        return ""
    return f"{get_settings().api_url}{address}" if address.startswith("/") else address


def user(account: Identity | UserPrivate, token: str) -> dict[str, Any]:
    """One's own account, with the token to go on with."""
    return {
        "user": {
            "email": account.email,
            "token": token,
            "username": account.username,
            "bio": account.bio,
            "image": image(account.image_url),
        }
    }


def _profile(username: str, bio: str, image_url: str | None, following: bool) -> dict[str, Any]:
    return {"username": username, "bio": bio, "image": image(image_url), "following": following}


def profile(row: ProfileRow) -> dict[str, Any]:
    """A user as readers see them."""
    return {"profile": _profile(row.username, row.bio, row.image_url, row.following)}


def _article(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "slug": fields["slug"],
        "title": fields["title"],
        "description": fields["excerpt"],
        "tagList": fields["tags_in_order"],
        "createdAt": moment(fields["dated_at"]),
        "updatedAt": moment(fields["updated_at"]),
        "favorited": fields["favorited"],
        "favoritesCount": fields["favorites_count"],
        "author": _profile(
            fields["author"].username,
            fields["author_bio"],
            fields["author_image_url"],
            fields["follows_author"],
        ),
    }


def article(fields: Mapping[str, Any]) -> dict[str, Any]:
    """One article, of FIELDS."""
    return {"article": {**_article(fields), "body": fields["content"]}}


def articles(listed: ListPage[dict[str, Any]]) -> dict[str, Any]:
    """A page of articles, of LISTED_FIELDS, and how many there are in all."""
    return {
        "articles": [_article(fields) for fields in listed.items],
        "articlesCount": listed.total,
    }


def comment(row: CommentWithProfile) -> dict[str, Any]:
    """A comment of a list."""
    return {"comment": _comment(row)}


def _comment(row: CommentWithProfile) -> dict[str, Any]:
    comment = row.comment
    assert comment.author is not None  # noqa: S101 - it is seen, so it has one
    return {
        "id": comment.id,
        "createdAt": moment(comment.created_at),
        "updatedAt": moment(comment.updated_at),
        "body": comment.content,
        "author": _profile(comment.author.username, row.bio, row.image_url, row.following),
    }


def comments(rows: Sequence[CommentWithProfile]) -> dict[str, Any]:
    """All comments of an article."""
    return {"comments": [_comment(row) for row in rows]}
