"""My account: the second factor, and its recovery codes."""

import re

from fastapi import Request, Response

from app.auth import codes
from app.db.dependencies import CurrentDatabase, ReadConnection
from app.schemas.accounts.second_factor import (
    SecondFactorChange,
    SecondFactorConfirm,
    SecondFactorCreate,
)
from app.services.accounts import second_factor
from app.web.forms import SubmittedForm, form_of
from app.web.localization import gettext as _
from app.web.rendering import page
from app.web.routing import create_router, redirect
from app.web.sessions import PageUser

router = create_router()

SECOND_FACTOR = "/studio/account/second-factor"
_SECRET = re.compile(r"[A-Z2-7]{16,64}")


@router.get(SECOND_FACTOR)
async def show_second_factor(request: Request, reader: ReadConnection, user: PageUser) -> Response:
    """Show whether the second factor is enabled, and how many recovery codes are left."""
    factor = await second_factor.read_second_factor(reader, user=user)
    return page(request, "account/second_factor.html", factor=factor)


@router.post(SECOND_FACTOR)
async def create_second_factor(
    request: Request, form: SubmittedForm, database: CurrentDatabase, user: PageUser
) -> Response:
    """Create a secret, and show it once, as a QR code and as text."""
    created = await second_factor.create_second_factor(
        database, new=form.read(SecondFactorCreate), user=user
    )
    return _setup_page(request, secret=created.secret, uri=created.uri)


@router.get(SECOND_FACTOR + "/confirm")
async def show_setup(request: Request, user: PageUser) -> Response:
    """Show the secret again after a wrong code. Without it, start again."""
    secret = form_of(request).text("secret")
    if not _SECRET.fullmatch(secret):
        return redirect(SECOND_FACTOR)
    uri = codes.authenticator_uri(secret, username=user.username)
    return _setup_page(request, secret=secret, uri=uri)


def _setup_page(request: Request, *, secret: str, uri: str) -> Response:
    grouped = " ".join(secret[start : start + 4] for start in range(0, len(secret), 4))
    return page(
        request, "account/second_factor_setup.html", secret=secret, grouped=grouped, uri=uri
    )


@router.post(SECOND_FACTOR + "/confirm")
async def confirm_second_factor(
    request: Request, form: SubmittedForm, database: CurrentDatabase, user: PageUser
) -> Response:
    """Enable the second factor with a first code, and show the recovery codes once."""
    listed = await second_factor.confirm_second_factor(
        database, form=form.read(SecondFactorConfirm), user=user
    )
    return _codes_page(request, listed.recovery_codes, _("The second factor is enabled."))


@router.get(SECOND_FACTOR + "/codes")
async def show_renewal(request: Request, user: PageUser) -> Response:
    """Ask for password and code before the recovery codes are replaced."""
    return page(request, "account/renew_codes.html")


@router.post(SECOND_FACTOR + "/codes")
async def renew_codes(
    request: Request, form: SubmittedForm, database: CurrentDatabase, user: PageUser
) -> Response:
    """Replace the recovery codes, and show the new ones once."""
    listed = await second_factor.renew_recovery_codes(
        database, form=form.read(SecondFactorChange), user=user
    )
    return _codes_page(request, listed.recovery_codes, _("You have new recovery codes."))


def _codes_page(request: Request, recovery_codes: list[str], title: str) -> Response:
    return page(request, "account/recovery_codes.html", codes=recovery_codes, title=title)


@router.get(SECOND_FACTOR + "/disable")
async def show_disabling(request: Request, user: PageUser) -> Response:
    """Ask for password and code before the second factor is disabled."""
    return page(request, "account/disable_second_factor.html")


@router.post(SECOND_FACTOR + "/disable")
async def disable_second_factor(
    form: SubmittedForm, database: CurrentDatabase, user: PageUser
) -> Response:
    """Disable the second factor."""
    await second_factor.disable_second_factor(
        database, form=form.read(SecondFactorChange), user=user
    )
    return redirect(SECOND_FACTOR, flash=_("The second factor is disabled."))
