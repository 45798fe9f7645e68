"""The user of a page: the page session's cookie, and dependencies that read it."""

from typing import Annotated, Any

from fastapi import Depends, Request, Response

from app.auth.identity import Identity, PageIdentity, share_account
from app.auth.permissions import Action, may_on_any
from app.auth.tokens import PageToken
from app.core.config import get_settings
from app.core.errors import NotAuthenticated, NotAuthorized, RecentLoginRequired
from app.db.dependencies import UnitOfWork, WriteSession
from app.services.accounts import page_sessions
from app.web.csrf import SESSION_COOKIE


def set_session_cookie(response: Response, token: PageToken) -> None:
    """Set the cookie of a page session. It replaces that of a previous session."""
    response.set_cookie(
        SESSION_COOKIE,
        str(token),
        max_age=get_settings().session_expire_days * 24 * 60 * 60,
        secure=True,
        httponly=True,
        samesite="lax",
    )


def delete_session_cookie(response: Response) -> None:
    """Make the browser delete the cookie, and what it has stored of personal pages."""
    response.delete_cookie(SESSION_COOKIE, secure=True, httponly=True, samesite="lax")
    response.headers["Clear-Site-Data"] = '"cache"'


async def page_session(request: Request) -> PageIdentity | None:
    """Return the page session of the request's cookie; None without a valid one.

    The session is read once for each request.
    """
    if not hasattr(request.state, "page_session"):
        cookie = request.cookies.get(SESSION_COOKIE)
        database = request.app.state.database
        reads = request.method in {"GET", "HEAD"}
        request.state.page_session = (
            await page_sessions.find(database, cookie=cookie, reads=reads) if cookie else None
        )
    session: PageIdentity | None = request.state.page_session
    return session


_PageSession = Annotated[PageIdentity | None, Depends(page_session)]


async def optional_page_user(session: _PageSession) -> Identity | None:
    """Return the user of the page session; None without one."""
    return session.identity if session else None


async def page_user(session: _PageSession) -> Identity:
    """Return the user of the page session. Raises NotAuthenticated."""
    if session is None:
        raise NotAuthenticated
    return session.identity


async def confirmed_page_user(session: _PageSession) -> Identity:
    """Return the user of a confirmed page session.

    Raises NotAuthenticated, and RecentLoginRequired if the password was sent too long ago.
    """
    if session is None:
        raise NotAuthenticated
    if not page_sessions.is_confirmed(session):
        raise RecentLoginRequired
    return session.identity


OptionalPageUser = Annotated[Identity | None, Depends(optional_page_user)]
"""The user of the page; None without a session."""
PageUser = Annotated[Identity, Depends(page_user)]
"""The user of the page. Without a session, the sign-in page follows."""
ConfirmedPageUser = Annotated[Identity, Depends(confirmed_page_user)]
"""The user of the page, who has sent the password in the last 15 minutes."""


async def page_write_session(session: WriteSession, found: _PageSession) -> UnitOfWork:
    """Return the unit of work, which shares the lock of the user's account.

    It comes before a deletion of the account, or raises ServiceUnavailable. Routes that hash
    passwords, store files or delete accounts use `WriteSession` in its place.
    """
    if found is not None:
        await share_account(session, user_id=found.identity.id)
    return session


PageWriteSession = Annotated[UnitOfWork, Depends(page_write_session, scope="function")]
"""The unit of work of a page's form."""


def page_user_with(action: Action) -> Any:
    """Return a dependency on a user who may perform `action` on any user's objects.

    Others get 403. The services check the permission as well. Use it in
    `Moderator = Annotated[Identity, page_user_with(Action.HANDLE_REPORTS)]`.
    """

    async def permitted(user: PageUser) -> Identity:
        if not may_on_any(user, action):
            raise NotAuthorized
        return user

    return Depends(permitted)
