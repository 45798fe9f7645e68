"""Protection of forms against other sites (OWASP: synchroniser token and origin check).

The token is an HMAC of a cookie: of the page session, or of a random cookie for visitors without
one. Other sites can neither read nor set these cookies.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode

from starlette.requests import Request

from app.auth.keys import derived_keys
from app.auth.tokens import new_secret
from app.core.errors import NotAuthorized
from app.web.localization import mark as N_  # noqa: N812 - the usual name of this function

FIELD = "csrf_token"
HEADER = "X-CSRF-Token"
SESSION_COOKIE = "__Host-pressroom"
FORM_COOKIE = "__Host-pressroom-form"


class ForeignRequest(NotAuthorized):
    """Another site sent the request."""

    code = "foreign_request"
    message = N_("Another site sent this request. Nothing was changed.")


class InvalidFormToken(NotAuthorized):
    """The form belongs to another session, or the browser sends no cookies."""

    code = "invalid_form_token"
    message = N_("This form is no longer valid, or your browser refuses cookies.")


def form_token(request: Request) -> str:
    """Return the token for forms of this response.

    `request.state.new_form_cookie` is set if the response must set the cookie.
    """
    cookie = request.cookies.get(SESSION_COOKIE) or request.cookies.get(FORM_COOKIE)
    if not cookie:
        cookie = getattr(request.state, "new_form_cookie", None) or new_secret()
        request.state.new_form_cookie = cookie
    return _tokens(cookie)[0]


def require_same_origin(request: Request) -> None:
    """Raise ForeignRequest if the browser's headers show that another origin sent the request.

    A browser that sends neither header must still send the token.
    """
    fetch_site = request.headers.get("sec-fetch-site")
    if fetch_site is not None:
        if fetch_site != "same-origin":
            raise ForeignRequest
        return
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise ForeignRequest


def require_token(request: Request, token: str) -> None:
    """Raise InvalidFormToken unless `token` belongs to a cookie of the request."""
    for name in (SESSION_COOKIE, FORM_COOKIE):
        cookie = request.cookies.get(name)
        if cookie and any(
            hmac.compare_digest(token.encode(), each.encode()) for each in _tokens(cookie)
        ):
            return
    raise InvalidFormToken


def _tokens(cookie: str) -> list[str]:
    """Return the token of a cookie for each configured key, the current key first."""
    return [
        urlsafe_b64encode(hmac.digest(key, cookie.encode(), hashlib.sha256)).decode().rstrip("=")
        for key in derived_keys("page form token")
    ]
