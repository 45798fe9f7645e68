"""Registration, and confirmation of addresses with the links of mails.

The token of a link is in the fragment, which browsers do not send. A script moves it into the form.
Without scripts, visitors paste the link into the form.
"""

from fastapi import Request, Response

from app.auth.dependencies import CurrentClient
from app.core.config import Registration, get_settings
from app.core.errors import PasswordRequired
from app.db.dependencies import CurrentDatabase, WriteSession
from app.schemas.accounts.recovery import (
    EmailRequest,
    EmailVerification,
    RegistrationConfirmation,
)
from app.schemas.accounts.user import UserCreate
from app.services.accounts import page_sessions, recovery, registration
from app.web.account.sign_in import HOME
from app.web.forms import Form, FormError, SubmittedForm
from app.web.localization import gettext as _
from app.web.rendering import page
from app.web.routing import create_router, redirect
from app.web.sessions import OptionalPageUser, set_session_cookie

router = create_router()

SIGN_IN = "/studio/sign-in"


def token_of(form: Form) -> str:
    """Return the token of a form, in which the visitor may have pasted the whole link."""
    return form.text("token").rpartition("#token=")[2].strip()


@router.get("/studio/register")
async def show_registration(request: Request, user: OptionalPageUser) -> Response:
    """Show the form of a registration."""
    if user is not None:
        return redirect(HOME)
    return page(request, "account/register.html", minimum=get_settings().password_min_length)


@router.post("/studio/register")
async def register(
    form: SubmittedForm, session: WriteSession, database: CurrentDatabase, client: CurrentClient
) -> Response:
    """Create an account and a session, or send a link that creates the account."""
    new = form.read(UserCreate)
    if get_settings().registration is Registration.BY_EMAIL:
        await registration.request_registration(session, database=database, client=client, new=new)
        text = _("We have sent you a mail. Open its link to complete the registration.")
        return redirect(SIGN_IN, flash=text, kind="info")
    token = await page_sessions.register(session, database=database, new=new, client=client)
    response = redirect(HOME, flash=_("Welcome! Your account is ready."))
    set_session_cookie(response, token)
    return response


@router.get("/studio/confirm-registration")
async def show_registration_confirmation(request: Request) -> Response:
    """Ask for the password of a registration by mail."""
    return page(request, "account/confirm_registration.html")


@router.post("/studio/confirm-registration")
async def confirm_registration(
    form: SubmittedForm, session: WriteSession, database: CurrentDatabase
) -> Response:
    """Create the account of a registration by mail."""
    confirmation = form.read(RegistrationConfirmation, ("password",), token=token_of(form))
    await registration.complete_registration(session, database=database, confirmation=confirmation)
    return redirect(SIGN_IN, flash=_("Your account is ready. Sign in to start."))


@router.get("/studio/verify-email")
async def show_email_verification(request: Request, user: OptionalPageUser) -> Response:
    """Ask for a confirmation of the address, and for the password without a session."""
    return page(request, "account/verify_email.html")


@router.post("/studio/verify-email")
async def verify_email(
    form: SubmittedForm, session: WriteSession, database: CurrentDatabase, user: OptionalPageUser
) -> Response:
    """Verify an address, or change the email to it."""
    verification = form.read(EmailVerification, ("password",), token=token_of(form))
    try:
        await recovery.verify_email(
            session, database=database, verification=verification, actor=user
        )
    except PasswordRequired as error:
        raise FormError(
            password=_("Enter the password of the account that has this address.")
        ) from error
    target = "/studio/account/email" if user else SIGN_IN
    return redirect(target, flash=_("Your email address is confirmed."))


@router.get("/studio/resend-verification")
async def show_resend(request: Request, user: OptionalPageUser) -> Response:
    """Ask for the address that is to be confirmed."""
    return page(request, "account/resend_verification.html")


@router.post("/studio/resend-verification")
async def resend(
    form: SubmittedForm,
    session: WriteSession,
    database: CurrentDatabase,
    client: CurrentClient,
    user: OptionalPageUser,
) -> Response:
    """Send the link again. The response does not reveal whether an account exists."""
    await recovery.resend_verification(
        session, database=database, client=client, request=form.read(EmailRequest)
    )
    target = "/studio/account/email" if user else SIGN_IN
    text = _("If the address belongs to an account, a mail with a link is on its way.")
    return redirect(target, flash=text, kind="info")
