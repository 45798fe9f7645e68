"""Headers for caches, and 304 for what the client has already (RFC 9110 §13)."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response

from app.core import clock
from app.core.conditional import entity_tag, parse_tags
from app.core.config import get_settings
from app.core.errors import PreconditionFailed

STALE_SECONDS = 2
"""`stale-while-revalidate`: how long a cache may serve a stale response while it revalidates."""
OUTAGE_SECONDS = 3600
"""`stale-if-error`: how long a cache may serve a stale response if the server fails."""
PRIVATE = "private, no-cache"
"""The Cache-Control of responses to authenticated requests."""
TAGGED_STATUSES = frozenset({200, 201})
_CONDITIONAL_HEADERS = frozenset({b"if-match", b"if-none-match"})
_BODY_HEADERS = ("content-length", "content-type", "last-modified")


def public(seconds: int = 0) -> str:
    """Return the Cache-Control of public responses.

    A browser may reuse the response for `seconds`. A shared cache, such as nginx, may reuse it for
    PUBLIC_CACHE_SECONDS, and for an hour if the server fails (RFC 9111 §5.2.2, RFC 5861).
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


def last_modified(times: Iterable[datetime]) -> Mapping[str, str]:
    """Return the Last-Modified header with the latest of `times`, or no header without times.

    The server ignores `If-Modified-Since`: a deleted list item or a renamed author does not change
    this time. The entity tag changes in these cases.
    """
    latest = max(times, default=None)
    if latest is None:
        return {}
    # RFC 9110 §8.8.2.1: never later than the response, even if another replica's clock is ahead.
    time = min(latest, clock.now()).astimezone(UTC)
    return {"Last-Modified": format_datetime(time, usegmt=True)}


def list_header(request: Request, name: str) -> str | None:
    """Return the combined value of all lines of a list header, or None without one."""
    values = request.headers.getlist(name)
    return ", ".join(values) if values else None


def make_conditional(
    request: Request, response: Response, *, varies_by_caller: bool, vary: bytes = b"Authorization"
) -> Response:
    """Add ETag, Cache-Control and Vary to `response`, or replace it with 304.

    JSON gets an entity tag, which is weak for a list, unless the response is `no-store`. Headers
    that the handler has set stay. `varies_by_caller`: whether the response depends on the caller.
    `vary`: the request headers on which such a response depends.

    Raises PreconditionFailed if If-Match does not match.
    """
    if not 200 <= response.status_code < 300:
        return response
    raw, is_read = response.raw_headers, request.method == "GET"
    request_headers = {name for name, _ in request.scope["headers"]}
    headers = dict(raw)
    if varies_by_caller:
        if b"vary" in headers:
            _vary(response.headers, vary.decode())
        else:
            raw.append((b"vary", vary))
    if is_read and b"cache-control" not in headers:
        is_private = varies_by_caller and b"authorization" in request_headers
        raw.append((b"cache-control", (PRIVATE if is_private else public()).encode()))
    if b"no-store" in headers.get(b"cache-control", b""):
        return response
    body = getattr(response, "body", None)  # streaming responses have none
    is_json = headers.get(b"content-type") == b"application/json"
    has_tag = b"etag" in headers
    is_tagged = response.status_code in TAGGED_STATUSES
    if not has_tag and is_tagged and is_json and isinstance(body, bytes):
        tag = entity_tag(body)
        raw.append((b"etag", (f"W/{tag}" if body.startswith(b"[") else tag).encode()))
        has_tag = True
    is_conditional = not _CONDITIONAL_HEADERS.isdisjoint(request_headers)
    if has_tag and is_read and response.status_code == 200 and is_conditional:
        return _evaluate(request, response)
    return response


def _evaluate(request: Request, response: Response) -> Response:
    """Evaluate the preconditions of a GET request (RFC 9110 §13.2.2)."""
    tag = response.headers["ETag"]
    expected = parse_tags(list_header(request, "If-Match"))
    # Strong comparison: a weak tag matches nothing.
    if expected is not None and not expected & {tag, "*"}:
        raise PreconditionFailed(etag=tag)
    known = parse_tags(list_header(request, "If-None-Match"))
    if known is None or not known & {tag.removeprefix("W/"), "*"}:
        return response
    unchanged = Response(status_code=304, background=response.background)
    unchanged.headers.raw[:] = [
        (name, value)
        for name, value in response.headers.raw
        if name.decode("latin-1").lower() not in _BODY_HEADERS
    ]
    return unchanged


def _vary(headers: MutableHeaders, name: str) -> None:
    """Add `name` to the Vary header, unless it is there."""
    names = ", ".join(headers.getlist("Vary"))
    if name.lower() not in (each.strip().lower() for each in names.split(",")):
        headers["Vary"] = f"{names}, {name}" if names else name
