"""Messages of validation errors for people, in the language of the page."""

from collections.abc import Mapping
from typing import Any

from app.core.validation import validation_message
from app.schemas.types import USERNAME_PATTERN
from app.web.localization import gettext as _
from app.web.localization import mark as N_  # noqa: N812 - the usual name of this function
from app.web.localization import ngettext

EMPTY = N_("Fill in this field.")
BY_KIND: Mapping[str, str] = {
    "missing": EMPTY,
    "enum": N_("Choose one of the options."),
    "literal_error": N_("Choose one of the options."),
    "int_parsing": N_("Enter a whole number."),
    "int_type": N_("Enter a whole number."),
}
"""Messages by the type of Pydantic's error."""
BY_TEXT: Mapping[str, str] = {
    "is one of the most common passwords; choose another": N_(
        "This is one of the most common passwords. Choose another one."
    ),
    "must be an ISO 3166-1 alpha-2 code in upper case, such as DE or US": N_("Choose a country."),
    "must be in the future, and within ten years": N_(
        "Choose a day in the future, within ten years."
    ),
    "must look like 2030-01-31T12:00:00Z, with an offset from UTC": N_("Enter a date."),
    "must consist of letters and digits; spaces and dashes are ignored": N_(
        "A code consists of letters and digits."
    ),
    "`to` is required with `articles=reassign`, and only allowed with it": N_(
        "Enter the username of the new author."
    ),
}
"""Messages for the texts of our own validators."""


def message_of(error: Mapping[str, Any]) -> str:
    """Return the message of a Pydantic error. Rare ones are English, if there is no translation."""
    kind, context = error["type"], error.get("ctx", {})
    text = validation_message(error)
    if kind in {"string_too_short", "too_short"} and "List" not in text:
        return _at_least(context["min_length"])
    if kind in {"string_too_long", "too_long"} and "List" not in text:
        number = context["max_length"]
        return ngettext(
            "Use at most %(num)s character.", "Use at most %(num)s characters.", number
        ) % {"num": number}
    if kind == "string_pattern_mismatch" and context["pattern"] == USERNAME_PATTERN:
        return _("Use only letters, digits, dots, dashes and underscores.")
    if kind == "string_pattern_mismatch" and error["input"] == "":
        return _(EMPTY)
    if "valid email address" in text:
        return _("Enter a valid email address.")
    return _(BY_KIND.get(kind) or BY_TEXT.get(text) or text)


def _at_least(number: int) -> str:
    if number == 1:
        return _(EMPTY)
    return ngettext(
        "Use at least %(num)s character.", "Use at least %(num)s characters.", number
    ) % {"num": number}
