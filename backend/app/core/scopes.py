"""The scopes of API keys, which schemas and the HTTP side of auth both speak of."""

from enum import StrEnum


class Scope(StrEnum):
    """What an API key may be used for; its user's role still limits what it may do there."""

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
    Scope.ARTICLES_READ: "Read articles, one's drafts too",
    Scope.ARTICLES_WRITE: "Write, change and delete articles",
    Scope.MEDIA_READ: "List one's pictures",
    Scope.MEDIA_WRITE: "Upload, describe and delete pictures",
    Scope.USERS_READ: "Read users, one's private fields too",
    Scope.USERS_WRITE: "Change one's profile",
    Scope.ADDRESSES_READ: "Read one's addresses",
    Scope.ADDRESSES_WRITE: "Add, change and delete one's addresses",
    Scope.COMMUNITY_READ: "Read comments, profiles, favorites and reports as oneself",
    Scope.COMMUNITY_WRITE: "Follow, favorite, comment, moderate and report",
}
