"""Conditional requests (RFC 9110 §13): which version a client has, and which it means to change.

An entity tag is a digest of the answer's body: it changes whenever anything in the answer does, an
author's name or the moment of publication included, and needs no bookkeeping.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import blake2b
from typing import NamedTuple, Self

from pydantic import BaseModel
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response

from app.core import clock
from app.core.errors import PreconditionFailed

PUBLIC = "public, max-age=0, must-revalidate"
"""Anybody may keep what anybody may read, and has to ask whether it is still so."""
PRIVATE = "private, no-cache"
"""What somebody in particular has asked for is for their own cache."""

# Possessive: a header of nothing but tabs is read once, not once for each of them.
_ITEM = re.compile(r'[ \t]*+(?:(?:W/)?("[\x21\x23-\x7e\x80-\xff]*+"))?+[ \t]*+(?:,|\Z)')
_ANY = frozenset({"*"})
_OF_THE_BODY = ("content-length", "content-type", "last-modified")


def entity_tag(body: bytes) -> str:
    """The strong entity tag of a body."""
    digest = blake2b(body, digest_size=15).digest()
    return f'"{urlsafe_b64encode(digest).decode()}"'


def last_modified(moments: Iterable[datetime]) -> Mapping[str, str]:
    """The header that says when the latest of `moments` was; none for an empty list.

    `If-Modified-Since` alone is not honoured: a list from which something has gone, or on which an
    author has another name, is not newer by this. The entity tag knows.
    """
    latest = max(moments, default=None)
    if latest is None:
        return {}
    # RFC 9110 §8.8.2.1: never later than the answer itself, whatever another replica's clock said.
    moment = min(latest, clock.now()).astimezone(UTC)
    return {"Last-Modified": format_datetime(moment, usegmt=True)}


class Precondition(NamedTuple):
    """The versions of which a client says that one is current, and none of the others is."""

    tags: frozenset[str] | None = None
    """None where the client does not say anything; `*` is any version."""
    none_of: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, if_match: str | None, if_none_match: str | None = None) -> Self:
        """The values of both headers.

        `W/` is overlooked: we never call a single resource's tag weak, but nginx does when it has
        compressed the answer.
        """
        tags, none_of = _tags(if_match), _tags(if_none_match)
        if tags in {None, _ANY} and none_of is None:
            return cls()  # what is there will do, and need not be read
        return cls(_ANY if tags is None else tags, none_of or frozenset())

    def require(self, current: BaseModel) -> None:
        """Raise PreconditionFailed unless `current`, as the resource would be read, is meant."""
        if self.tags is None:
            return
        tag = entity_tag(current.model_dump_json().encode())
        names = {tag, "*"}
        if not self.tags & names or self.none_of & names:
            raise PreconditionFailed(etag=tag)


def _tags(header: str | None) -> frozenset[str] | None:
    """The opaque tags of a list, none of a list that is malformed; None without a header."""
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


def header_of(request: Request, name: str) -> str | None:
    """The value of a header that is a list, in however many lines it came; None without one."""
    values = request.headers.getlist(name)
    return ", ".join(values) if values else None


def validated(request: Request, response: Response, *, is_the_callers: bool) -> Response:
    """`response` with what caches need to know; or 304 in its place, where the client has it.

    JSON gets an entity tag, weak for a list, unless it must not be stored; whatever the handler has
    set itself stays. `is_the_callers`: whether the answer depends on who asks.

    Raises PreconditionFailed where the client wants another version (If-Match).
    """
    if not 200 <= response.status_code < 300:
        return response
    headers, is_read = response.headers, request.method == "GET"
    if is_the_callers:
        _vary(headers, "Authorization")
    if is_read:
        is_private = is_the_callers and "authorization" in request.headers
        headers.setdefault("Cache-Control", PRIVATE if is_private else PUBLIC)
    if "no-store" in headers.get("Cache-Control", ""):
        return response
    body = getattr(response, "body", None)  # what is streamed has none
    is_json = headers.get("Content-Type") == "application/json"
    if response.status_code in {200, 201} and is_json and isinstance(body, bytes):
        tag = entity_tag(body)
        headers.setdefault("ETag", f"W/{tag}" if body.startswith(b"[") else tag)
    if not is_read or response.status_code != 200 or "ETag" not in headers:
        return response
    return _evaluated(request, response)


def _evaluated(request: Request, response: Response) -> Response:
    """RFC 9110 §13.2.2, as far as a read goes."""
    tag = response.headers["ETag"]
    expected = _tags(header_of(request, "If-Match"))
    # Strong comparison: a weak tag matches nothing.
    if expected is not None and not expected & {tag, "*"}:
        raise PreconditionFailed(etag=tag)
    known = _tags(header_of(request, "If-None-Match"))
    if known is None or not known & {tag.removeprefix("W/"), "*"}:
        return response
    unchanged = Response(status_code=304, background=response.background)
    unchanged.headers.raw[:] = [
        (name, value)
        for name, value in response.headers.raw
        if name.decode("latin-1").lower() not in _OF_THE_BODY
    ]
    return unchanged


def _vary(headers: MutableHeaders, name: str) -> None:
    """Add `name` to what the answer depends on, once."""
    named = ", ".join(headers.getlist("Vary"))
    if name.lower() not in (each.strip().lower() for each in named.split(",")):
        headers["Vary"] = f"{named}, {name}" if named else name
