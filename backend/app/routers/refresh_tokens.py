"""How a client holds its refresh token: in the body, or as a cookie that only the browser sees.

The cookie goes to /auth alone, and never with a request from another site (SameSite=Strict). What a
browser says of a request's origin is checked all the same, for the sites of others may share ours.
"""

from typing import Annotated, NamedTuple

from fastapi import Depends, Query, Request, Response

from app.core.config import Environment, get_settings
from app.core.errors import CrossSiteRequest, InvalidRefreshToken
from app.schemas.auth import RefreshRequest, Tokens

COOKIE = "refresh_token"
COOKIE_PATH = "/auth"


class Presented(NamedTuple):
    """A refresh token, and whether it came as a cookie."""

    token: str
    by_cookie: bool


async def from_same_site(request: Request, *, by_cookie: bool = True) -> None:
    """Raise CrossSiteRequest where a browser says that another site's page is asking.

    `CORS_ORIGINS=*`, in development, lets in any page that does without the cookie.
    """
    allowed = get_settings().cors_origins
    if not by_cookie and "*" in allowed:
        return
    origin = request.headers.get("origin")
    if origin is not None:
        own = origin.partition("://")[2] == request.headers.get("host")
        if not own and origin not in allowed:
            raise CrossSiteRequest
    elif request.headers.get("sec-fetch-site") == "cross-site":
        raise CrossSiteRequest


async def known_cookie(request: Request) -> str | None:
    """The cookie of a login that this browser has or had: a user may know it by that."""
    return request.cookies.get(COOKIE)


async def presented_or_none(
    request: Request, form: RefreshRequest | None = None
) -> Presented | None:
    """The refresh token of the body, else of the cookie. Raises CrossSiteRequest for the latter."""
    if form is not None and form.refresh_token is not None:
        return Presented(form.refresh_token, by_cookie=False)
    cookie = request.cookies.get(COOKIE)
    if cookie is None:
        return None
    await from_same_site(request)
    return Presented(cookie, by_cookie=True)


async def presented(found: Annotated[Presented | None, Depends(presented_or_none)]) -> Presented:
    """The refresh token of the body or the cookie. Raises InvalidRefreshToken without one."""
    if found is None:
        raise InvalidRefreshToken("Send the refresh token, in the body or as the cookie")
    return found


async def wants_cookie(
    request: Request,
    cookie: Annotated[
        bool, Query(description="Whether to get the refresh token as a cookie")
    ] = False,
) -> bool:
    """Whether the answer's refresh token is to be a cookie.

    Another site's page may not log in either way: it would guess from its readers' addresses.
    """
    await from_same_site(request, by_cookie=cookie)
    return cookie


PresentedToken = Annotated[Presented, Depends(presented)]
MaybePresentedToken = Annotated[Presented | None, Depends(presented_or_none)]
KnownCookie = Annotated[str | None, Depends(known_cookie)]
WantsCookie = Annotated[bool, Depends(wants_cookie)]


def deliver(tokens: Tokens, response: Response, *, as_cookie: bool) -> Tokens:
    """Put the refresh token where the client wants it: in the body, or in a cookie alone."""
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


def forget(response: Response) -> None:
    """Have the browser delete its cookie."""
    response.delete_cookie(
        COOKIE,
        path=COOKIE_PATH,
        secure=get_settings().environment is not Environment.DEVELOPMENT,
        httponly=True,
        samesite="strict",
    )
