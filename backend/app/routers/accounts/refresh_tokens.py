"""Transport of refresh tokens: in the body, or in an HttpOnly cookie.

The cookie has the path /auth and SameSite=Strict. The Origin and Sec-Fetch-Site headers are checked
too, because other origins may belong to the same site.
"""

from typing import Annotated, NamedTuple

from fastapi import Depends, Query, Request, Response

from app.core.config import Environment, get_settings
from app.core.errors import CrossSiteRequest, InvalidRefreshToken
from app.core.origins import ANY, is_listed
from app.http.routing import raises
from app.schemas.accounts.login import RefreshRequest, Tokens

COOKIE = "refresh_token"
COOKIE_PATH = "/auth"


class PresentedRefreshToken(NamedTuple):
    """A refresh token, and whether it was sent as a cookie."""

    token: str
    by_cookie: bool


async def require_same_site(request: Request, *, by_cookie: bool = True) -> None:
    """Raise CrossSiteRequest if the browser headers show that another site sent the request.

    `CORS_ORIGINS=*`, for development, allows all origins without the cookie.
    """
    allowed = get_settings().cors_origins
    if not by_cookie and ANY in allowed:
        return
    origin = request.headers.get("origin")
    if origin is not None:
        same_host = origin.partition("://")[2] == request.headers.get("host")
        if not same_host and not is_listed(origin, allowed):
            raise CrossSiteRequest
    elif request.headers.get("sec-fetch-site") == "cross-site":
        raise CrossSiteRequest


async def known_cookie(request: Request) -> str | None:
    """Return the refresh token cookie, which may identify a client that the user knows."""
    return request.cookies.get(COOKIE)


@raises(CrossSiteRequest)
async def presented_or_none(
    request: Request, form: RefreshRequest | None = None
) -> PresentedRefreshToken | None:
    """Return the refresh token of the body or the cookie; None without one.

    Raises CrossSiteRequest for a cookie that another site sends.
    """
    if form is not None and form.refresh_token is not None:
        return PresentedRefreshToken(form.refresh_token, by_cookie=False)
    cookie = request.cookies.get(COOKIE)
    if cookie is None:
        return None
    await require_same_site(request)
    return PresentedRefreshToken(cookie, by_cookie=True)


@raises(InvalidRefreshToken)
async def presented(
    found: Annotated[PresentedRefreshToken | None, Depends(presented_or_none)],
) -> PresentedRefreshToken:
    """Return the refresh token of the body or the cookie.

    Raises InvalidRefreshToken without a token.
    """
    if found is None:
        raise InvalidRefreshToken("Send the refresh token in the body or as a cookie")
    return found


@raises(CrossSiteRequest)
async def wants_cookie(
    request: Request,
    cookie: Annotated[
        bool, Query(description="Whether to set the refresh token as a cookie")
    ] = False,
) -> bool:
    """Return whether the response sets the refresh token as a cookie.

    Other sites may not log in with or without a cookie. Otherwise they could guess passwords from
    the addresses of their visitors.
    """
    await require_same_site(request, by_cookie=cookie)
    return cookie


PresentedToken = Annotated[PresentedRefreshToken, Depends(presented)]
OptionalPresentedToken = Annotated[PresentedRefreshToken | None, Depends(presented_or_none)]
KnownCookie = Annotated[str | None, Depends(known_cookie)]
WantsCookie = Annotated[bool, Depends(wants_cookie)]


def with_cookie(tokens: Tokens, response: Response, *, as_cookie: bool) -> Tokens:
    """Move the refresh token from the body to a cookie if `as_cookie` is set."""
    if not as_cookie or tokens.refresh_token is None:
        return tokens
    settings = get_settings()
    response.set_cookie(
        COOKIE,
        tokens.refresh_token,
        max_age=settings.session_expire_days * 24 * 60 * 60,
        path=COOKIE_PATH,
        secure=settings.environment is not Environment.DEVELOPMENT,
        httponly=True,
        samesite="strict",
    )
    return tokens.model_copy(update={"refresh_token": None})


def delete_cookie(response: Response) -> None:
    """Make the browser delete the cookie."""
    response.delete_cookie(
        COOKIE,
        path=COOKIE_PATH,
        secure=get_settings().environment is not Environment.DEVELOPMENT,
        httponly=True,
        samesite="strict",
    )
