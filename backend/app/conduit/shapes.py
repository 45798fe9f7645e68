"""Conversion of service results into response bodies of the RealWorld API."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app.auth.identity import Identity
from app.core.config import get_settings
from app.http.json import to_json
from app.schemas.accounts.user import UserPrivate
from app.schemas.community.comment import CommentWithProfile
from app.schemas.community.profile import ProfileResponse
from app.services.pages.paging import ListPage

LISTED_FIELDS = (
    "slug",
    "title",
    "excerpt",
    "tags",
    "dated_at",
    "updated_at",
    "favorited",
    "favorites_count",
    "author_username",
    "author_bio",
    "author_image_url",
    "follows_author",
)
"""Fields that a list of articles selects."""
FIELDS = ("content", *LISTED_FIELDS)
"""Fields that a single article selects."""


def format_datetime(value: datetime) -> str:
    """Return ISO 8601 in UTC with milliseconds and Z, the format of JavaScript."""
    # orjson takes a third of the time of `isoformat`; a list has 40 dates.
    text = to_json(value.astimezone(UTC)).decode()[1:-2]
    return f"{text[:-3]}Z" if value.microsecond else f"{text}.000Z"


def image(url: str | None) -> str | None:
    """Return the absolute URL of an image, which front ends show as it is."""
    if url is not None and url.startswith("/"):
        return f"{get_settings().api_url}{url}"
    return url


def user(account: Identity | UserPrivate, token: str) -> dict[str, Any]:
    """Return the body for the user's own account with its token."""
    return {
        "user": {
            "email": account.email,
            "token": token,
            "username": account.username,
            "bio": account.bio or None,
            "image": image(account.image_url),
        }
    }


def _profile(username: str, bio: str, image_url: str | None, following: bool) -> dict[str, Any]:
    return {
        "username": username,
        "bio": bio or None,
        "image": image(image_url),
        "following": following,
    }


def profile(row: ProfileResponse) -> dict[str, Any]:
    """Return the body for a profile."""
    return {"profile": _profile(row.username, row.bio, row.image_url, row.following)}


def _article(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "slug": fields["slug"],
        "title": fields["title"],
        "description": fields["excerpt"],
        "tagList": fields["tags"],
        "createdAt": format_datetime(fields["dated_at"]),
        "updatedAt": format_datetime(fields["updated_at"]),
        "favorited": fields["favorited"],
        "favoritesCount": fields["favorites_count"],
        "author": _profile(
            fields["author_username"],
            fields["author_bio"],
            fields["author_image_url"],
            fields["follows_author"],
        ),
    }


def article(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body for an article with FIELDS."""
    return {"article": {**_article(fields), "body": fields["content"]}}


def articles(listed: ListPage[dict[str, Any]]) -> dict[str, Any]:
    """Return the body for a page of articles with LISTED_FIELDS and their total count."""
    return {
        "articles": [_article(fields) for fields in listed.items],
        "articlesCount": listed.total,
    }


def comment(row: CommentWithProfile) -> dict[str, Any]:
    """Return the body for a comment."""
    return {"comment": _comment(row)}


def _comment(comment: CommentWithProfile) -> dict[str, Any]:
    return {
        "id": comment.id,
        "createdAt": format_datetime(comment.created_at),
        "updatedAt": format_datetime(comment.updated_at),
        "body": comment.content,
        "author": _profile(
            _author_name(comment),
            comment.author_bio,
            comment.author_image_url,
            comment.follows_author,
        ),
    }


def _author_name(comment: CommentWithProfile) -> str:
    """Return the author's username. The name of a guest is marked, so that it is not a username."""
    if comment.author is not None:
        return comment.author.username
    assert comment.guest is not None  # noqa: S101 - visible comments have an author or a guest
    return f"{comment.guest.name} (guest)"


def comments(rows: Sequence[CommentWithProfile]) -> dict[str, Any]:
    """Return the body for the comments of an article."""
    return {"comments": [_comment(row) for row in rows]}
