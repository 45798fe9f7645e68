"""The roles of users, which schemas, models and permissions all speak of."""

from enum import StrEnum


class Role(StrEnum):
    """What a user may do: authors their own, editors any article, admins anything."""

    AUTHOR = "author"
    EDITOR = "editor"
    ADMIN = "admin"
