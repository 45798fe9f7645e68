"""The language of the pages. A cookie stores it, so that it applies before the sign-in, too."""

from fastapi import Request, Response

from app.http.routing import allowed_in_maintenance
from app.web.account.sign_in import next_page
from app.web.forms import FormError, SubmittedForm
from app.web.localization import catalogues, language_name, set_language
from app.web.localization import gettext as _
from app.web.rendering import page
from app.web.routing import LANGUAGE_COOKIE, create_router, redirect
from app.web.sessions import OptionalPageUser

router = create_router()

ONE_YEAR = 365 * 24 * 60 * 60
AUTOMATIC = ""


def _options() -> list[tuple[str, str]]:
    """Return the languages with their own names."""
    own = [(code, language_name(code).capitalize()) for code in catalogues()]
    return [(AUTOMATIC, _("The language of the browser")), *sorted(own, key=lambda each: each[1])]


@router.get("/studio/language")
async def show_languages(request: Request, user: OptionalPageUser) -> Response:
    """Show the languages that have a catalogue."""
    return page(
        request,
        "account/language.html",
        languages=_options(),
        chosen=request.cookies.get(LANGUAGE_COOKIE, AUTOMATIC),
        next=next_page(request),
    )


@router.post("/studio/language")
@allowed_in_maintenance
async def choose_language(request: Request, form: SubmittedForm) -> Response:
    """Store the language in a cookie; delete the cookie for that of the browser."""
    language = form.text("language")
    if language != AUTOMATIC and language not in catalogues():
        raise FormError(language=_("Choose one of the languages."))
    if language:
        set_language(language)
    response = redirect(next_page(request), flash=_("The language was changed."))
    if language == AUTOMATIC:
        response.delete_cookie(LANGUAGE_COOKIE, secure=True, httponly=True, samesite="lax")
    else:
        response.set_cookie(
            LANGUAGE_COOKIE, language, max_age=ONE_YEAR, secure=True, httponly=True, samesite="lax"
        )
    return response
