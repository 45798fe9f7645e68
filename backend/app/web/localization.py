"""Languages of the pages: catalogues, negotiation, and formats of dates and numbers.

The catalogues are `.po` files in `locales/<language>/LC_MESSAGES/`, one for each area. They are
read once, at the start. Those of WEB_THEME_DIR add languages, or replace single texts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Literal

from babel import Locale, UnknownLocaleError
from babel.core import negotiate_locale
from babel.dates import format_date, format_datetime, format_time, format_timedelta
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal
from babel.support import NullTranslations, Translations

from app.core import clock
from app.core.config import get_settings

LOCALES = Path(__file__).parent / "locales"
SOURCE = "en"
"""The language of the texts in templates and code."""
MAX_ACCEPTED = 20
"""Maximum languages of Accept-Language that are compared."""
RIGHT_TO_LEFT = frozenset({"ar", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"})
"""Languages that are written from right to left."""

Style = Literal["short", "medium", "long", "full"]

_language: ContextVar[str] = ContextVar("language", default=SOURCE)


@lru_cache(maxsize=1)
def catalogues() -> dict[str, NullTranslations]:
    """Return the catalogue of each language."""
    found: dict[str, NullTranslations] = {SOURCE: NullTranslations()}
    theme = get_settings().web_theme_dir
    for locales in [LOCALES, *([theme / "locales"] if theme else [])]:
        for folder in sorted(locales.glob("*/LC_MESSAGES")):
            language = folder.parent.name
            for file in sorted(folder.glob("*.po")):
                compiled = _compiled(file, language)
                merged = found.get(language)
                if isinstance(merged, Translations):
                    merged.merge(compiled)
                else:
                    found[language] = compiled  # merging would not keep its plural forms
    return found


def _compiled(file: Path, language: str) -> Translations:
    compiled = BytesIO()
    with file.open("rb") as source:
        write_mo(compiled, read_po(source, locale=language))
    compiled.seek(0)
    return Translations(compiled)


def negotiate(accept_language: str) -> str:
    """Return the language with a catalogue that Accept-Language prefers (RFC 9110 §12.5.4)."""
    weighted: list[tuple[float, str]] = []
    for item in accept_language.split(",")[:MAX_ACCEPTED]:
        name, _, weight = item.partition(";")
        try:
            weighted.append((float(weight.strip().removeprefix("q=") or 1), name.strip()))
        except ValueError:
            continue
    preferred = [name for weight, name in sorted(weighted, key=lambda each: -each[0]) if weight > 0]
    return negotiate_locale(preferred, list(catalogues()), sep="-") or SOURCE


def language_or_source(language: str) -> str:
    """Return the catalogue's language for a language tag such as `de-AT`."""
    return negotiate_locale([language], list(catalogues()), sep="-") or SOURCE


@contextmanager
def use_language(language: str) -> Iterator[None]:
    """Translate into `language` within the block."""
    token = _language.set(language)
    try:
        yield
    finally:
        _language.reset(token)


def set_language(language: str) -> None:
    """Translate into `language` for the rest of the request."""
    _language.set(language)


def current_language() -> str:
    """Return the language of the current request, such as `de`."""
    return _language.get()


def language_name(language: str) -> str:
    """Return the name of a language in itself; its tag if Babel has no data of it."""
    try:
        return Locale.parse(language, sep="-").display_name or language
    except UnknownLocaleError:
        return language


def current_locale() -> Locale:
    """Return the locale of the current request, which formats dates and numbers."""
    return _locale(_language.get())


@cache
def _locale(language: str) -> Locale:
    """Return the locale of a language; English if Babel has no data of it, as in the image."""
    try:
        return Locale.parse(language, sep="-")
    except UnknownLocaleError:
        return Locale.parse(SOURCE)


def direction() -> str:
    """Return the writing direction of the current language: `ltr` or `rtl`."""
    return "rtl" if _language.get().partition("-")[0] in RIGHT_TO_LEFT else "ltr"


def gettext(text: str) -> str:
    """Return `text` in the language of the current request."""
    return str(catalogues()[_language.get()].gettext(text))


def ngettext(singular: str, plural: str, number: int) -> str:
    """Return the form of a text for `number`, in the language of the current request."""
    return str(catalogues()[_language.get()].ngettext(singular, plural, number))


def mark(text: str) -> str:
    """Return `text` unchanged. Imported as `N_`, it marks a text that is translated when shown."""
    return text


def format_day(value: date | datetime, style: Style = "medium") -> str:
    """Return a date. `style`: short, medium, long or full."""
    return format_date(value, style, locale=current_locale())


def format_moment(value: datetime, style: Style = "medium", zone: tzinfo = UTC) -> str:
    """Return a date with the time in a time zone. `style`: short, medium, long or full."""
    return format_datetime(value, style, tzinfo=zone, locale=current_locale())


def format_clock(value: datetime, zone: tzinfo = UTC) -> str:
    """Return the time of day in a time zone."""
    return format_time(value, "short", tzinfo=zone, locale=current_locale())


def format_month(value: date | datetime) -> str:
    """Return month and year."""
    return format_date(value, "MMMM y", locale=current_locale())


def format_relative(value: datetime) -> str:
    """Return the distance from now, such as `3 hours ago`."""
    distance: timedelta = value - clock.now()
    return format_timedelta(distance, add_direction=True, locale=current_locale())


def format_number(value: float) -> str:
    """Return a number with the separators of the language."""
    return format_decimal(value, locale=current_locale())


def format_size(value: int) -> str:
    """Return a number of bytes in B, kB, MB or GB."""
    size, unit = float(value), "B"
    for larger in ("kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    shown = format_decimal(round(size, 1 if size < 10 else 0), locale=current_locale())
    return f"{shown}\N{NO-BREAK SPACE}{unit}"
