"""Routes of pages: form parsing, protection of forms, and redirects."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse

from app.core import metrics
from app.core.config import get_settings
from app.core.errors import (
    NotAuthenticated,
    RequestTimedOut,
    ServiceUnavailable,
    TooManyAtOnce,
    UnsupportedMediaType,
)
from app.http.middleware import largest_form
from app.http.routing import FORM_TYPES, SAFE_METHODS, StrictRequest, StrictRoute
from app.web import csrf
from app.web.forms import Form
from app.web.localization import catalogues, language_or_source, negotiate, set_language
from app.web.messages import set_message
from app.web.sessions import page_session

MAX_FIELDS = 1000
MAX_RECEIVE_SECONDS = 15 * 60
"""The maximum time to receive a form. STREAM_SECONDS may set a shorter one."""
MAX_LARGEST_FORMS = 2
"""How many forms of the maximum size each process receives at the same time."""
LANGUAGE_COOKIE = "__Host-pressroom-language"
_LOCAL_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")
"""A path of this site. `//host` and `/\\host` would lead to another one."""

_received_bytes: Counter[int] = Counter()
"""Bytes of large forms that this process receives or handles, by user."""

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def form_page(path: str) -> Callable[[Endpoint], Endpoint]:
    """Declare which page shows the form of a POST route; by default, that of the same path.

    `path` may contain the path parameters of the route. Paths of readers are below WEB_PREFIX.
    """

    def declare(endpoint: Endpoint) -> Endpoint:
        endpoint.form_page = path  # type: ignore[attr-defined]  # an attribute of the function
        return endpoint

    return declare


def public_page(endpoint: Endpoint) -> Endpoint:
    """Declare that a page is the same for all, so that shared caches may store it."""
    endpoint.is_public = True  # type: ignore[attr-defined]  # an attribute of the function
    return endpoint


def is_public(endpoint: Callable[..., Any] | None) -> bool:
    """Return whether the endpoint is declared as public."""
    return getattr(endpoint, "is_public", False) is True


class PageRoute(StrictRoute):
    """A route of a page.

    Unsafe requests must come from a form of this site (app.web.csrf). Unknown query parameters are
    ignored, because links from other sites may have some.
    """

    ignores_unknown_parameters = True
    prefix = ""
    """The path in front of the declared ones: WEB_PREFIX for pages of readers."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        public = is_public(self.endpoint)

        async def handle_page(request: Request) -> Response:
            prepare(request, public=public)
            request.state.is_public = public
            if request.method in SAFE_METHODS:
                return await handle(request)
            pattern = getattr(self.endpoint, "form_page", None)
            path = request.url.path
            if pattern:
                path = self.prefix + pattern.format(**request.path_params)
            request.state.form_page = path
            # An error while the form is received shows the page of an empty form.
            request.state.form = Form(FormData())
            csrf.require_same_origin(request)
            async with _admit_large_body(request), _received_form(request) as data:
                form = request.state.form = Form(data)
                token = form.text(csrf.FIELD) or request.headers.get(csrf.HEADER, "")
                csrf.require_token(request, token)
                return await handle(request)

        return handle_page


def prepare(request: Request, *, public: bool) -> None:
    """Choose the language: that of the site for public pages, otherwise the visitor's.

    A language that was chosen at /studio/language precedes those of the browser.
    """
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    if public:
        set_language(language_or_source(get_settings().default_language))
    elif chosen in catalogues():
        set_language(chosen)
    else:
        set_language(negotiate(request.headers.get("accept-language", "")))


@asynccontextmanager
async def _admit_large_body(request: Request) -> AsyncIterator[None]:
    """Limit the memory of bodies that only uploads have, until the response is complete.

    Forms are received before the dependencies of a route run, and files of forms take memory. A
    body of unknown length counts as the largest one. The memory is that of this process, so the
    limits are too. app.services.limits counts what users store, for all processes.

    Raises NotAuthenticated, TooManyAtOnce and ServiceUnavailable before the body is received.
    """
    settings, length = get_settings(), request.headers.get("content-length", "")
    is_chunked = "transfer-encoding" in request.headers
    if not is_chunked and not (length.isdecimal() and int(length) > settings.max_body_bytes):
        yield
        return
    session = await page_session(request)
    if session is None:
        raise NotAuthenticated
    user_id, largest = session.identity.id, largest_form(settings)
    size = largest if is_chunked else int(length)
    if _received_bytes[user_id] + size > largest:
        metrics.count("pressroom_limited_requests_total", "forms")
        raise TooManyAtOnce
    if _received_bytes.total() + size > MAX_LARGEST_FORMS * largest:
        raise ServiceUnavailable("Too many uploads at once")
    _received_bytes[user_id] += size
    try:
        yield
    finally:
        _received_bytes[user_id] -= size
        if not _received_bytes[user_id]:
            del _received_bytes[user_id]


@asynccontextmanager
async def _received_form(request: Request) -> AsyncIterator[FormData]:
    """Receive the form of a request. Its files are deleted at the end. Raises RequestTimedOut."""
    try:
        async with asyncio.timeout(min(get_settings().stream_seconds, MAX_RECEIVE_SECONDS)):
            data = await _read_form(request)
    except TimeoutError:
        raise RequestTimedOut from None
    try:
        yield data
    finally:
        await data.close()


async def _read_form(request: Request) -> FormData:
    """Return the form of a request. Raises UnsupportedMediaType unless the body is a form."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type and media_type not in FORM_TYPES:
        raise UnsupportedMediaType("Send the body as a form")
    strict = StrictRequest(request.scope, request.receive)
    return await strict.form(
        max_files=MAX_FIELDS,
        max_fields=MAX_FIELDS,
        max_part_size=get_settings().max_body_bytes,
    )


def create_router() -> APIRouter:
    """Create a router for pages. Those of the reader are below WEB_PREFIX."""
    return APIRouter(route_class=PageRoute, include_in_schema=False)


def is_local(path: str) -> bool:
    """Return whether `path` is a path of this site, perhaps with a query."""
    return _LOCAL_PATH.fullmatch(path) is not None


def local_path(value: str, default: str) -> str:
    """Return `value` if it is a path of this site; otherwise `default` (for `next=`)."""
    return value if is_local(value) else default


def redirect(path: str, *, flash: str | None = None, kind: str = "success") -> Response:
    """Return a redirect to a page of this site with GET, which shows the message `flash`."""
    if not is_local(path):
        raise ValueError(f"not a path of this site: {path!r}")
    response = RedirectResponse(path, 303, headers={"Cache-Control": "no-store"})
    if flash is not None:
        set_message(response, flash, kind)
    return response
