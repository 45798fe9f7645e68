"""Conditional requests (RFC 9110 §13): entity tags, preconditions and Cache-Control.

An entity tag is a digest of the response body. It changes with every field of the response, also
with an author's name or the publication time, and needs no version column.
"""

import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import NamedTuple, Self

from pydantic import BaseModel

from app.core.errors import PreconditionFailed

# Possessive quantifiers: matching a long run of white space takes linear time.
_ITEM = re.compile(r'[ \t]*+(?:(?:W/)?("[\x21\x23-\x7e\x80-\xff]*+"))?+[ \t]*+(?:,|\Z)')
_ANY = frozenset({"*"})


def entity_tag(body: bytes) -> str:
    """Return the strong entity tag of a body."""
    digest = sha256(body).digest()[:15]
    return f'"{urlsafe_b64encode(digest).decode()}"'


def resource_tag(resource: BaseModel) -> str:
    """Return the entity tag of a resource as the API returns it."""
    return entity_tag(resource.model_dump_json().encode())


class Precondition(NamedTuple):
    """The entity tags of If-Match (`tags`) and If-None-Match (`none_of`)."""

    tags: frozenset[str] | None = None
    """None without a precondition; `*` matches every version."""
    none_of: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, if_match: str | None, if_none_match: str | None = None) -> Self:
        """Parse the values of both headers.

        `W/` is ignored: tags of single resources are strong, but nginx weakens them when it
        compresses a response.
        """
        tags, none_of = parse_tags(if_match), parse_tags(if_none_match)
        if tags in {None, _ANY} and none_of is None:
            return cls()  # every version matches: the resource need not be read
        return cls(_ANY if tags is None else tags, none_of or frozenset())

    def require(self, current: BaseModel) -> None:
        """Raise PreconditionFailed unless `current`, the resource as read, matches."""
        if self.tags is None:
            return
        tag = resource_tag(current)
        names = {tag, "*"}
        if not self.tags & names or self.none_of & names:
            raise PreconditionFailed(etag=tag)


def parse_tags(header: str | None) -> frozenset[str] | None:
    """Return the opaque tags of a header; empty if it is malformed, None without a header."""
    if header is None:
        return None
    if header.strip() == "*":
        return _ANY
    tags: set[str | None] = set()
    position = 0
    while position < len(header):
        item = _ITEM.match(header, position)
        if item is None:
            return frozenset()
        tags.add(item[1])
        position = item.end()
    return frozenset(filter(None, tags))
