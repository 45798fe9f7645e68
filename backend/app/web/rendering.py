"""Rendering of pages: templates, their globals and filters, and the headers of the response."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlencode

import segno
from fastapi import Request, Response
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from app.auth.identity import Identity, PageIdentity
from app.auth.permissions import Action, may_on_any
from app.core.conditional import entity_tag
from app.core.config import BACKEND_DIR, Settings
from app.http.caching import public as public_cache
from app.web import csrf, localization, messages
from app.web.assets import Assets
from app.web.forms import form_of
from app.web.navigation import studio_entries
from app.web.security import page_headers
from app.web.zones import time_zone

TEMPLATES = BACKEND_DIR / "app" / "web" / "templates"
PRIVATE = "private, no-store"
_CHECKBOX = '<input type="checkbox" class="task-list-item-checkbox" '
"""Only the renderer writes it: authors' `input` elements are removed, and texts are escaped."""
_JSON_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


class Renderer(NamedTuple):
    """What all pages of an application share."""

    environment: Environment
    assets: Assets
    settings: Settings
    headers: Mapping[str, str]
    article_headers: Mapping[str, str]
    """Headers of pages that show articles, with images of other hosts."""


def create_renderer(settings: Settings) -> Renderer:
    """Create the renderer. Templates and static files of WEB_THEME_DIR replace ours.

    Templates of a theme extend ours by the names that start with `default/`.
    """
    theme = settings.web_theme_dir
    assets = Assets(theme)
    folders = [*([theme / "templates"] if theme else []), TEMPLATES]
    environment = Environment(
        loader=ChoiceLoader(
            [
                *(FileSystemLoader(folder) for folder in folders),
                PrefixLoader({"default": FileSystemLoader(TEMPLATES)}),
            ]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.install_gettext_callables(  # type: ignore[attr-defined]  # added by the extension
        localization.gettext, localization.ngettext, newstyle=True
    )
    environment.policies["ext.i18n.trimmed"] = True
    environment.filters |= {
        "date": localization.format_day,
        "datetime": localization.format_moment,
        "time": localization.format_clock,
        "month": localization.format_month,
        "relative": localization.format_relative,
        "number": localization.format_number,
        "filesize": localization.format_size,
        "rendered": rendered_html,
        "json_ld": json_data,
        "qr": qr_code,
    }
    environment.globals |= {
        "asset": assets.url,
        "time_zone": time_zone,
        "reader_url": lambda path="": f"{settings.web_prefix}{path}",
        "site": {
            "title": settings.site_title,
            "description": settings.site_description,
            "language": settings.default_language,
            "url": settings.api_url,
            "reader": settings.web_reader,
            "studio": settings.web_studio,
        },
    }
    return Renderer(
        environment,
        assets,
        settings,
        headers=page_headers(settings),
        article_headers=page_headers(settings, remote_images=True),
    )


def rendered_html(html: str) -> Markup:
    """Return the output of our Markdown renderer as HTML. Its checkboxes get a name."""
    name = f' aria-label="{localization.gettext("Task")}"'
    named = html.replace(_CHECKBOX, f"{_CHECKBOX[:-1]}{name} ")
    return Markup(named)  # noqa: S704 - the renderer has sanitized it


def json_data(value: Any) -> Markup:
    """Return JSON for a `<script type="application/ld+json">`, without `<`, `>` and `&`."""
    text = json.dumps(value, ensure_ascii=False)
    return Markup(text.translate(_JSON_ESCAPES))  # noqa: S704 - the characters are escaped


def qr_code(text: str) -> Markup:
    """Return a QR code as an SVG element; the page describes it."""
    code = segno.make(text, error="m", micro=False)
    svg = code.svg_inline(scale=5, border=3, dark="#000", light="#fff", omitsize=False)
    return Markup(svg)  # noqa: S704 - the text is encoded in the path of the code


def renderer_of(request: Request) -> Renderer:
    """Return the renderer of the application."""
    renderer: Renderer = request.app.state.renderer
    return renderer


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    public: bool = False,
    remote_images: bool = False,
    headers: Mapping[str, str] | None = None,
    **context: Any,
) -> Response:
    """Render `template`, and return the response.

    `remote_images`: whether the page shows articles, whose images may be on other hosts.

    A page is private unless `public` is set, for which the route needs `public_page`. Public pages
    have no user, no form token and no messages. If the page shows a refused form, the status is
    that of its error.
    """
    renderer = renderer_of(request)
    if public and not getattr(request.state, "is_public", False):
        raise ValueError("a public page needs the decorator public_page")
    values = _public_context(request) if public else _private_context(request)
    text = renderer.environment.get_template(template).render({**values, **context})
    status = getattr(request.state, "status", status)
    own = renderer.article_headers if remote_images else renderer.headers
    response = HTMLResponse(text, status, {**own, **(headers or {})})
    response.headers["Content-Language"] = localization.current_language()
    if public and status == 200:
        response.headers.setdefault("Cache-Control", public_cache())
        response.headers["ETag"] = f"W/{entity_tag(bytes(response.body))}"
    else:
        response.headers["Cache-Control"] = PRIVATE
        messages.delete_shown(request, response)
        if cookie := getattr(request.state, "new_form_cookie", None):
            response.set_cookie(
                csrf.FORM_COOKIE, cookie, secure=True, httponly=True, samesite="lax"
            )
    return response


def _context(request: Request) -> dict[str, Any]:
    return {
        "request": request,
        "path": request.url.path,
        "form": form_of(request),
        "locale": localization.current_language(),
        "direction": localization.direction(),
        "language_name": localization.language_name(localization.current_language()),
        "with_query": partial(_with_query, request),
    }


def _public_context(request: Request) -> dict[str, Any]:
    return {**_context(request), "is_public": True}


def _private_context(request: Request) -> dict[str, Any]:
    session: PageIdentity | None = getattr(request.state, "page_session", None)
    user = session.identity if session else None
    token = partial(csrf.form_token, request)
    return {
        **_context(request),
        "is_public": False,
        "user": user,
        "may": partial(_may, user),
        "navigation": partial(studio_entries, user),
        "messages": partial(messages.take_messages, request),
        "csrf_token": token,
        "csrf_field": lambda: Markup('<input type="hidden" name="{}" value="{}">').format(
            csrf.FIELD, token()
        ),
    }


def _may(user: Identity | None, action: str) -> bool:
    """Return whether the user may perform the action with this name on any user's objects."""
    return may_on_any(user, Action[action])


def _with_query(request: Request, **changes: Any) -> str:
    """Return the current path and query with other values; None removes a parameter."""
    query = {**request.query_params, **changes}
    encoded = urlencode({name: value for name, value in query.items() if value is not None})
    return request.url.path + (f"?{encoded}" if encoded else "")
