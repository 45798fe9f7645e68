"""My account: the second factor."""

from datetime import timedelta

import httpx
import pyotp

from app.core import clock
from app.models import User
from app.web.csrf import SESSION_COOKIE
from tests.factories import PASSWORD
from tests.web.pages import Page, visit


def _code(factor: pyotp.TOTP, step: int = 0) -> str:
    return factor.at(clock.now() + timedelta(seconds=30 * step))


async def _set_up(pages: httpx.AsyncClient) -> tuple[pyotp.TOTP, Page]:
    """Enable the second factor; return it and the page with the recovery codes."""
    form = await visit(pages, "/studio/account/second-factor")
    wrong = await form.submit(pages, form="#second-factor-form", password="incorrect")
    assert list(wrong.errors) == ["password"]
    setup = await form.submit(pages, form="#second-factor-form", password=PASSWORD)
    (secret,) = setup.xpath('//*[@id="secret"]/text()')
    assert setup.xpath('//*[@role="img"]//*[local-name()="svg"]')
    assert not setup.xpath("//*[@style]")
    factor = pyotp.TOTP(secret.replace(" ", ""))
    refused = await setup.submit(pages, form="#confirm-factor", code="000000")
    assert (refused.status, list(refused.errors)) == (403, ["code"])
    assert refused.xpath('//*[@id="secret"]/text()') == [secret]
    return factor, await refused.submit(pages, form="#confirm-factor", code=_code(factor, -1))


async def test_second_factor(pages: httpx.AsyncClient, user: User) -> None:
    factor, shown = await _set_up(pages)
    codes = shown.xpath('//*[@id="codes"]//code/text()')
    assert (shown.status, len(codes)) == (200, 10)
    assert "no-store" in shown.response.headers["cache-control"]

    # A recovery code signs in once.
    pages.cookies.clear()
    form = await visit(pages, "/studio/sign-in")
    asked = await form.submit(pages, username=user.username, password=PASSWORD)
    assert SESSION_COOKIE not in pages.cookies
    signed_in = await asked.submit(pages, code=codes[0].upper())
    assert signed_in.path == "/studio"
    again = await asked.submit(pages, code=codes[0])
    assert again.status == 401
    status = await visit(pages, "/studio/account/second-factor")
    assert "Recovery codes left9" in status.text

    renew = await visit(pages, "/studio/account/second-factor/codes")
    refused = await renew.submit(pages, password=PASSWORD, code="000000")
    assert list(refused.errors) == ["code"]
    renewed = await renew.submit(pages, password=PASSWORD, code=_code(factor))
    assert set(renewed.xpath('//*[@id="codes"]//code/text()')).isdisjoint(codes)

    disable = await visit(pages, "/studio/account/second-factor/disable")
    used = await disable.submit(pages, password=PASSWORD, code=_code(factor))
    assert list(used.errors) == ["code"]
    done = await disable.submit(pages, password=PASSWORD, code=_code(factor, 1))
    assert done.flash == ["The second factor is disabled."]


async def test_deletion_asks_for_a_code(pages: httpx.AsyncClient, user: User) -> None:
    factor, _ = await _set_up(pages)
    form = await visit(pages, "/studio/account/delete")
    refused = await form.submit(pages, form="#delete-account", password=PASSWORD, code="")
    assert (refused.status, list(refused.errors)) == (403, ["code"])
    done = await form.submit(pages, form="#delete-account", password=PASSWORD, code=_code(factor))
    assert done.path == "/studio/sign-in"


async def test_setup_without_a_secret_starts_again(pages: httpx.AsyncClient, user: User) -> None:
    shown = await visit(pages, "/studio/account/second-factor/confirm")
    assert shown.path == "/studio/account/second-factor"
