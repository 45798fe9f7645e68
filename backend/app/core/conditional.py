"""Conditional requests (RFC 9110 §13): which version a client has, and which it means to change.

An entity tag is a digest of the answer's body: it changes whenever anything in the answer does, an
author's name or the moment of publication included, and needs no bookkeeping.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple, Self

from pydantic import BaseModel
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response

from app.core import clock
from app.core.config import get_settings
from app.core.errors import PreconditionFailed

STALE_SECONDS = 2
"""For how long a shared cache may go on with what it has while it asks for what there is."""
OUTAGE_SECONDS = 3600
"""For how long it may do so because nobody answers it."""
PRIVATE = "private, no-cache"
"""What somebody in particular has asked for is for their own cache."""

# Possessive: a header of nothing but tabs is read once, not once for each of them.
_ITEM = re.compile(r'[ \t]*+(?:(?:W/)?("[\x21\x23-\x7e\x80-\xff]*+"))?+[ \t]*+(?:,|\Z)')
_ANY = frozenset({"*"})
_TAGGED = frozenset({200, 201})
_CONDITIONS = frozenset({b"if-match", b"if-none-match"})
_OF_THE_BODY = ("content-length", "content-type", "last-modified")


def public(seconds: int = 0) -> str:
    """The Cache-Control of what anybody may read, and may keep.

    A browser may show it for `seconds` without asking. A shared cache, such as the edge, may for
    PUBLIC_CACHE_SECONDS, and where nobody answers for an hour (RFC 9111 §5.2.2, RFC 5861).
    """
    return _public(seconds, get_settings().public_cache_seconds)


@lru_cache
def _public(seconds: int, shared: int) -> str:
    if shared:
        return (
            f"public, max-age={seconds}, s-maxage={shared}, "
            f"stale-while-revalidate={STALE_SECONDS}, stale-if-error={OUTAGE_SECONDS}"
        )
    return f"public, max-age={seconds}" + ("" if seconds else ", must-revalidate")


def entity_tag(body: bytes) -> str:
    """The strong entity tag of a body."""
    digest = sha256(body).digest()[:15]
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
    raw, is_read = response.raw_headers, request.method == "GET"
    asked = {name for name, _ in request.scope["headers"]}
    said = dict(raw)
    if is_the_callers:
        if b"vary" in said:
            _vary(response.headers, "Authorization")
        else:
            raw.append((b"vary", b"Authorization"))
    if is_read and b"cache-control" not in said:
        is_private = is_the_callers and b"authorization" in asked
        raw.append((b"cache-control", (PRIVATE if is_private else public()).encode()))
    if b"no-store" in said.get(b"cache-control", b""):
        return response
    body = getattr(response, "body", None)  # what is streamed has none
    is_json = said.get(b"content-type") == b"application/json"
    has_tag = b"etag" in said
    if not has_tag and response.status_code in _TAGGED and is_json and isinstance(body, bytes):
        tag = entity_tag(body)
        raw.append((b"etag", (f"W/{tag}" if body.startswith(b"[") else tag).encode()))
        has_tag = True
    if has_tag and is_read and response.status_code == 200 and asked & _CONDITIONS:
        return _evaluated(request, response)
    return response


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
