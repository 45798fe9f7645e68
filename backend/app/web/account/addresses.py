"""My account: postal addresses."""

from fastapi import Request, Response

from app.core.conditional import Precondition
from app.core.errors import AddressNotFound
from app.core.languages import COUNTRIES
from app.db.dependencies import ReadConnection
from app.schemas.accounts.address import AddressInput
from app.schemas.page import MAX_LIMIT, PageQuery
from app.schemas.types import Id
from app.services.accounts import addresses
from app.web.forms import SubmittedForm
from app.web.localization import current_locale
from app.web.localization import gettext as _
from app.web.rendering import page
from app.web.routing import create_router, form_page, redirect
from app.web.sessions import PageUser, PageWriteSession

router = create_router()

ADDRESSES = "/studio/account/addresses"


def _countries() -> list[tuple[str, str]]:
    """Return codes and names of all countries, in the order of their names."""
    names = current_locale().territories
    countries = [(code, str(names.get(code, code))) for code in COUNTRIES]
    return [("", _("Choose a country")), *sorted(countries, key=lambda each: each[1])]


@router.get(ADDRESSES)
async def list_addresses(request: Request, reader: ReadConnection, user: PageUser) -> Response:
    """List the addresses."""
    query = PageQuery(limit=MAX_LIMIT)
    listed = await addresses.list_addresses(reader, user_id=user.id, page=query, actor=user)
    names = current_locale().territories
    return page(request, "account/addresses.html", addresses=listed, countries=names)


@router.get(ADDRESSES + "/new")
async def show_new_address(request: Request, user: PageUser) -> Response:
    """Show the form of a new address."""
    return page(request, "account/address.html", address=None, countries=_countries())


@router.post(ADDRESSES + "/new")
async def create_address(
    form: SubmittedForm, session: PageWriteSession, user: PageUser
) -> Response:
    """Create an address."""
    new = form.read(AddressInput)
    await addresses.create_address(session, user_id=user.id, new=new, actor=user)
    return redirect(ADDRESSES, flash=_("The address was added."))


@router.get(ADDRESSES + "/{address_id}")
async def show_address(
    request: Request, reader: ReadConnection, user: PageUser, address_id: Id
) -> Response:
    """Show the form of an address."""
    address = await addresses.get_address(
        reader, user_id=user.id, address_id=address_id, actor=user
    )
    return page(request, "account/address.html", address=address, countries=_countries())


@router.post(ADDRESSES + "/{address_id}")
async def save_address(
    form: SubmittedForm, session: PageWriteSession, user: PageUser, address_id: Id
) -> Response:
    """Replace an address."""
    await addresses.replace_address(
        session,
        user_id=user.id,
        address_id=address_id,
        new=form.read(AddressInput),
        actor=user,
        precondition=Precondition(),
    )
    return redirect(ADDRESSES, flash=_("The address was saved."))


@router.post(ADDRESSES + "/{address_id}/delete")
@form_page(ADDRESSES)
async def delete_address(session: PageWriteSession, user: PageUser, address_id: Id) -> Response:
    """Delete an address."""
    try:
        await addresses.delete_address(
            session,
            user_id=user.id,
            address_id=address_id,
            actor=user,
            precondition=Precondition(),
        )
    except AddressNotFound:
        return redirect(ADDRESSES, flash=_("This address was already deleted."), kind="info")
    return redirect(ADDRESSES, flash=_("The address was deleted."))
