"""My account: profile, email and password."""

from fastapi import Request, Response

from app.auth.dependencies import CurrentClient
from app.core.conditional import Precondition
from app.core.config import get_settings
from app.db.dependencies import CurrentDatabase, WriteSession
from app.schemas.accounts.recovery import EmailChange, EmailRequest, PasswordChange
from app.schemas.accounts.user import UserUpdate
from app.services.accounts import recovery, users
from app.web.forms import FormError, SubmittedForm
from app.web.localization import gettext as _
from app.web.rendering import page
from app.web.routing import create_router, form_page, redirect
from app.web.sessions import PageUser, PageWriteSession
from app.web.uploads import store_picture

router = create_router()

PROFILE = "/studio/account"
EMAIL = "/studio/account/email"
PASSWORD = "/studio/account/password"  # noqa: S105 - a path


@router.get(PROFILE)
async def show_profile(request: Request, user: PageUser) -> Response:
    """Show the form of the profile."""
    return page(request, "account/profile.html", max_bytes=get_settings().media_max_bytes)


@router.post(PROFILE)
async def save_profile(form: SubmittedForm, session: PageWriteSession, user: PageUser) -> Response:
    """Save name, username and biography."""
    changes = form.read(UserUpdate, ("username", "name", "bio"))
    await users.update_user(
        session, user_id=user.id, changes=changes, actor=user, precondition=Precondition()
    )
    return redirect(PROFILE, flash=_("Your profile was saved."))


@router.post("/studio/account/picture")
@form_page(PROFILE)
async def save_picture(
    request: Request,
    form: SubmittedForm,
    session: WriteSession,
    database: CurrentDatabase,
    user: PageUser,
) -> Response:
    """Upload a picture of the user."""
    file = form.file("picture")
    if file is None:
        raise FormError(picture=_("Choose a picture."))
    stored = await store_picture(
        request, session, database=database, file=file, owner=user, alt=user.name
    )
    await users.update_user(
        session,
        user_id=user.id,
        changes=UserUpdate(image_url=stored.url),
        actor=user,
        precondition=Precondition(),
    )
    return redirect(PROFILE, flash=_("Your picture was saved."))


@router.post("/studio/account/picture/remove")
@form_page(PROFILE)
async def remove_picture(session: PageWriteSession, user: PageUser) -> Response:
    """Remove the picture from the profile. It stays in the media library."""
    await users.update_user(
        session,
        user_id=user.id,
        changes=UserUpdate(image_url=None),
        actor=user,
        precondition=Precondition(),
    )
    return redirect(PROFILE, flash=_("Your picture was removed."))


@router.get(EMAIL)
async def show_email(request: Request, user: PageUser) -> Response:
    """Show the address, whether it is confirmed, and the form to change it."""
    return page(request, "account/email.html")


@router.post(EMAIL)
async def change_email(
    form: SubmittedForm, session: WriteSession, database: CurrentDatabase, user: PageUser
) -> Response:
    """Send a link to the new address."""
    change = form.read(EmailChange)
    await recovery.change_email(session, database=database, actor=user, change=change)
    text = _("We have sent a mail to the new address. Open its link to confirm the change.")
    return redirect(EMAIL, flash=text, kind="info")


@router.post("/studio/account/email/verify")
@form_page(EMAIL)
async def verify_own_email(
    session: WriteSession, database: CurrentDatabase, client: CurrentClient, user: PageUser
) -> Response:
    """Send the link that confirms the current address again."""
    await recovery.resend_verification(
        session, database=database, client=client, request=EmailRequest(email=user.email)
    )
    text = _("We have sent you a mail. Open its link to confirm your address.")
    return redirect(EMAIL, flash=text, kind="info")


@router.get(PASSWORD)
async def show_password(request: Request, user: PageUser) -> Response:
    """Show the form to change the password."""
    return page(request, "account/password.html", minimum=get_settings().password_min_length)


@router.post(PASSWORD)
async def change_password(
    form: SubmittedForm, session: WriteSession, database: CurrentDatabase, user: PageUser
) -> Response:
    """Change the password; the other sessions end."""
    change = form.read(PasswordChange)
    await recovery.change_password(session, database=database, actor=user, change=change)
    return redirect(PASSWORD, flash=_("Your password was changed. Your other sessions have ended."))
