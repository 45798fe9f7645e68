"""Sign-in with a second factor, sign-out, and confirmation of a session with the password."""

from fastapi import Request, Response

from app.auth.dependencies import CurrentClient
from app.core.errors import SecondFactorRequired
from app.db.dependencies import CurrentDatabase, ReadConnection, WriteSession
from app.db.session import Database
from app.http.routing import allowed_in_maintenance
from app.schemas.accounts.login import LoginForm
from app.schemas.accounts.second_factor import SecondFactorChange, SecondFactorLogin
from app.services.accounts import first_start, page_sessions, second_factor, sessions
from app.web.csrf import SESSION_COOKIE
from app.web.forms import SubmittedForm, form_of
from app.web.localization import gettext as _
from app.web.rendering import page
from app.web.routing import create_router, form_page, local_path, redirect
from app.web.sessions import (
    OptionalPageUser,
    PageUser,
    delete_session_cookie,
    set_session_cookie,
)

router = create_router()

HOME = "/studio"


def next_page(request: Request) -> str:
    """Return where a form leads: a local path of the form or the query, or the studio."""
    form = form_of(request)
    return local_path(form.text("next") or request.query_params.get("next", ""), HOME)


@router.get("/studio/sign-in")
async def show_sign_in(
    request: Request, user: OptionalPageUser, database: CurrentDatabase
) -> Response:
    """Show the form, or lead on if there is a session. Offer the first start if it is open."""
    if user is not None and not form_of(request).is_submitted:
        return redirect(next_page(request))
    return page(
        request,
        "account/sign_in.html",
        next=next_page(request),
        is_first_start=await _is_first_start(request, database),
    )


async def _is_first_start(request: Request, database: Database) -> bool:
    """Return whether there is no administrator. The query runs until there is one."""
    state = request.app.state
    if not getattr(state, "has_administrator", False):
        state.has_administrator = not await first_start.is_open(database)
    return not state.has_administrator


@router.post("/studio/sign-in")
@allowed_in_maintenance
async def sign_in(
    *,
    request: Request,
    form: SubmittedForm,
    session: WriteSession,
    database: CurrentDatabase,
    client: CurrentClient,
    user: OptionalPageUser,
) -> Response:
    """Check name and password. With a second factor, ask for a code.

    If the browser still has a page session, for example in another tab, the new one replaces it.
    """
    try:
        token = await page_sessions.sign_in(
            session,
            database=database,
            form=form.read(LoginForm, ("username", "password")),
            client=client,
            former=user,
            cookie=request.cookies.get(SESSION_COOKIE),
        )
    except SecondFactorRequired as error:
        return page(
            request,
            "account/sign_in_code.html",
            challenge=error.extra["challenge"],
            next=next_page(request),
        )
    response = redirect(next_page(request))
    set_session_cookie(response, token)
    return response


@router.get("/studio/sign-in/code")
async def show_sign_in_code(request: Request) -> Response:
    """Show the form again after a wrong code. Without a challenge, start again."""
    challenge = form_of(request).text("challenge")
    if not challenge:
        return redirect("/studio/sign-in")
    return page(request, "account/sign_in_code.html", challenge=challenge, next=next_page(request))


@router.post("/studio/sign-in/code")
@allowed_in_maintenance
async def sign_in_with_code(
    request: Request,
    form: SubmittedForm,
    database: CurrentDatabase,
    client: CurrentClient,
    user: OptionalPageUser,
) -> Response:
    """Check the code of the second factor."""
    token = await page_sessions.complete_sign_in(
        database,
        form=form.read(SecondFactorLogin),
        client=client,
        former=user,
        cookie=request.cookies.get(SESSION_COOKIE),
    )
    response = redirect(next_page(request))
    set_session_cookie(response, token)
    return response


@router.post("/studio/sign-out")
@form_page("/studio/sign-in")
@allowed_in_maintenance
async def sign_out(session: WriteSession, user: OptionalPageUser) -> Response:
    """End the session."""
    if user is not None:
        await sessions.log_out(session, identity=user, refresh_token=None)
    response = redirect("/studio/sign-in", flash=_("You have signed out."), kind="info")
    delete_session_cookie(response)
    return response


@router.get("/studio/confirm")
async def show_confirmation(request: Request, reader: ReadConnection, user: PageUser) -> Response:
    """Ask for the password, and for a code if there is a second factor."""
    factor = await second_factor.read_second_factor(reader, user=user)
    return page(request, "account/confirm.html", next=next_page(request), needs_code=factor.enabled)


@router.post("/studio/confirm")
@allowed_in_maintenance
async def confirm(
    request: Request, form: SubmittedForm, database: CurrentDatabase, user: PageUser
) -> Response:
    """Confirm the session for 15 minutes."""
    if form.text("code"):
        confirmed = form.read(SecondFactorChange, ("password", "code"))
        password, code = confirmed.password, confirmed.code
    else:
        password, code = form.read(LoginForm, ("password",), username=user.username).password, None
    await page_sessions.confirm(database, user=user, password=password, code=code)
    return redirect(next_page(request))
