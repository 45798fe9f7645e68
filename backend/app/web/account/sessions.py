"""My account: active sessions."""

from typing import Annotated

from fastapi import Path, Request, Response

from app.core.errors import SessionNotFound
from app.db.dependencies import ReadConnection
from app.http.routing import allowed_in_maintenance
from app.schemas.page import MAX_LIMIT, PageQuery
from app.schemas.types import Id
from app.services.accounts import sessions
from app.web.account.registration import SIGN_IN
from app.web.localization import gettext as _
from app.web.rendering import page
from app.web.routing import create_router, form_page, redirect
from app.web.sessions import PageUser, PageWriteSession, delete_session_cookie

router = create_router()

SESSIONS = "/studio/account/sessions"

BROWSERS = (
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
"""Parts of user agents and the names of their browsers, the most specific first."""
SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iOS"),
    ("iPad", "iPadOS"),
    ("CrOS", "ChromeOS"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)

SessionId = Annotated[Id, Path()]


@router.get(SESSIONS)
async def list_sessions(request: Request, reader: ReadConnection, user: PageUser) -> Response:
    """List the active sessions, the last used first."""
    query = PageQuery(limit=MAX_LIMIT)
    listed = await sessions.list_sessions(reader, page=query, user=user)
    return page(request, "account/sessions.html", sessions=listed, describe=describe_agent)


def describe_agent(user_agent: str) -> str:
    """Return the browser and the system that a user agent names, or its first word."""
    browser = next((name for part, name in BROWSERS if part in user_agent), None)
    system = next((name for part, name in SYSTEMS if part in user_agent), None)
    if browser and system:
        return _("%(browser)s on %(system)s") % {"browser": browser, "system": system}
    return browser or user_agent.partition("/")[0][:60].strip() or _("Unknown program")


@router.post(SESSIONS + "/others/end")
@form_page(SESSIONS)
@allowed_in_maintenance
async def end_other_sessions(session: PageWriteSession, user: PageUser) -> Response:
    """End all sessions except for the current one."""
    await sessions.end_others(session, actor=user)
    return redirect(SESSIONS, flash=_("All other sessions have ended."))


@router.post(SESSIONS + "/all/end")
@form_page(SESSIONS)
@allowed_in_maintenance
async def end_all_sessions(session: PageWriteSession, user: PageUser) -> Response:
    """End all sessions, also the current one."""
    await sessions.log_out_everywhere(session, actor=user)
    response = redirect(SIGN_IN, flash=_("You have signed out everywhere."), kind="info")
    delete_session_cookie(response)
    return response


@router.post(SESSIONS + "/{session_id}/end")
@form_page(SESSIONS)
@allowed_in_maintenance
async def end_session(session: PageWriteSession, user: PageUser, session_id: SessionId) -> Response:
    """End one session. One that has ended meanwhile is no error."""
    try:
        await sessions.end_session(session, session_id=session_id, actor=user)
    except SessionNotFound:
        return redirect(SESSIONS, flash=_("This session has already ended."), kind="info")
    if session_id == user.session_id:
        response = redirect(SIGN_IN, flash=_("You have signed out."), kind="info")
        delete_session_cookie(response)
        return response
    return redirect(SESSIONS, flash=_("The session has ended."))
