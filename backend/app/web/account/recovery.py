"""Forgotten passwords: a request for a link, and the form that the link leads to."""

from fastapi import Request, Response

from app.auth.dependencies import CurrentClient
from app.core.config import get_settings
from app.db.dependencies import CurrentDatabase, WriteSession
from app.schemas.accounts.recovery import EmailRequest, PasswordReset
from app.services.accounts import recovery
from app.web.account.registration import SIGN_IN, token_of
from app.web.forms import SubmittedForm
from app.web.localization import gettext as _
from app.web.rendering import page
from app.web.routing import create_router, redirect
from app.web.sessions import delete_session_cookie

router = create_router()


@router.get("/studio/forgot-password")
async def show_forgotten_password(request: Request) -> Response:
    """Ask for the address of the account."""
    return page(request, "account/forgot_password.html")


@router.post("/studio/forgot-password")
async def forget_password(
    form: SubmittedForm, session: WriteSession, database: CurrentDatabase, client: CurrentClient
) -> Response:
    """Send a link. The response does not reveal whether an account exists."""
    await recovery.request_password_reset(
        session, database=database, client=client, request=form.read(EmailRequest)
    )
    text = _("If the address belongs to an account, a mail with a link is on its way.")
    return redirect(SIGN_IN, flash=text, kind="info")


@router.get("/studio/reset-password")
async def show_password_reset(request: Request) -> Response:
    """Ask for the new password."""
    return page(request, "account/reset_password.html", minimum=get_settings().password_min_length)


@router.post("/studio/reset-password")
async def reset_password(
    form: SubmittedForm, session: WriteSession, database: CurrentDatabase, client: CurrentClient
) -> Response:
    """Set the new password. All sessions end."""
    reset = form.read(PasswordReset, ("password",), token=token_of(form))
    await recovery.reset_password(session, database=database, client=client, reset=reset)
    response = redirect(SIGN_IN, flash=_("Your new password is set. Sign in with it."))
    delete_session_cookie(response)
    return response
