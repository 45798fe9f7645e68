"""Routes of pages: form parsing, protection of forms, and redirects."""

import re
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from app.core.config import get_settings
from app.core.errors import UnsupportedMediaType
from app.http.routing import FORM_TYPES, StrictRequest, StrictRoute
from app.web import csrf
from app.web.forms import Form
from app.web.localization import catalogues, language_or_source, negotiate, set_language
from app.web.messages import set_message

SAFE_METHODS = frozenset({"GET", "HEAD"})
MAX_FIELDS = 1000
LANGUAGE_COOKIE = "__Host-pressroom-language"
_LOCAL_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")
"""A path of this site. `//host` and `/\\host` would lead to another one."""

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
            csrf.require_same_origin(request)
            data = await _read_form(request)
            try:
                form = request.state.form = Form(data)
                pattern = getattr(self.endpoint, "form_page", None)
                path = request.url.path
                if pattern:
                    path = self.prefix + pattern.format(**request.path_params)
                request.state.form_page = path
                token = form.text(csrf.FIELD) or request.headers.get(csrf.HEADER, "")
                csrf.require_token(request, token)
                return await handle(request)
            finally:
                await data.close()

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


async def _read_form(request: Request) -> Any:
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
