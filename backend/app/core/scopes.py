"""API key scopes, shared by schemas and the authentication dependencies."""

from enum import StrEnum


class Scope(StrEnum):
    """An API key needs a scope for each operation; its user's role still applies."""

    ARTICLES_READ = "articles:read"
    ARTICLES_WRITE = "articles:write"
    MEDIA_READ = "media:read"
    MEDIA_WRITE = "media:write"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    ADDRESSES_READ = "addresses:read"
    ADDRESSES_WRITE = "addresses:write"
    COMMUNITY_READ = "community:read"
    COMMUNITY_WRITE = "community:write"


SCOPE_DESCRIPTIONS = {
    Scope.ARTICLES_READ: "Read articles, including your drafts",
    Scope.ARTICLES_WRITE: "Create, change and delete articles",
    Scope.MEDIA_READ: "List your pictures",
    Scope.MEDIA_WRITE: "Upload, describe and delete pictures",
    Scope.USERS_READ: "Read users, including your private fields",
    Scope.USERS_WRITE: "Change your profile",
    Scope.ADDRESSES_READ: "Read your addresses",
    Scope.ADDRESSES_WRITE: "Add, change and delete your addresses",
    Scope.COMMUNITY_READ: "Read comments, profiles, favorites and reports as this user",
    Scope.COMMUNITY_WRITE: "Follow, favorite, comment, moderate and report",
}
