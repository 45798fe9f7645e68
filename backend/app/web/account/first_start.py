"""First start: the page that makes the first administrator, with the code from the log."""

from fastapi import Request, Response
from pydantic import BaseModel

from app.auth.dependencies import CurrentClient
from app.core.config import get_settings
from app.db.dependencies import CurrentDatabase, WriteSession
from app.schemas.accounts.second_factor import Code
from app.schemas.accounts.user import UserCreate
from app.services.accounts import first_start
from app.web.account.registration import SIGN_IN
from app.web.account.sign_in import HOME
from app.web.forms import SubmittedForm, form_of
from app.web.localization import gettext as _
from app.web.rendering import page
from app.web.routing import create_router, redirect
from app.web.sessions import set_session_cookie

router = create_router()


class _LogCode(BaseModel):
    code: Code


@router.get("/studio/first-start")
async def show_first_start(request: Request, database: CurrentDatabase) -> Response:
    """Ask for the code and the account. With an administrator, the sign-in page follows."""
    if not form_of(request).is_submitted and not await first_start.is_open(database):
        return redirect(SIGN_IN)
    return page(request, "account/first_start.html", minimum=get_settings().password_min_length)


@router.post("/studio/first-start")
async def create_administrator(
    form: SubmittedForm, session: WriteSession, database: CurrentDatabase, client: CurrentClient
) -> Response:
    """Create the first administrator, and sign in."""
    token = await first_start.create_administrator(
        session,
        database=database,
        new=form.read(UserCreate),
        code=form.read(_LogCode).code,
        client=client,
    )
    response = redirect(HOME, flash=_("Welcome! You are the administrator of this site."))
    set_session_cookie(response, token)
    return response
