"""User roles, shared by schemas, models and permissions."""

from enum import StrEnum


class Role(StrEnum):
    """Authors change their own articles, editors change all articles, admins change everything."""

    AUTHOR = "author"
    EDITOR = "editor"
    ADMIN = "admin"
