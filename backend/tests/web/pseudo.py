"""A catalogue with texts in Arabic letters, which shows what is not mirrored or translated."""

from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.pofile import write_po

from tests.web.test_localization import messages

LETTERS = "ابتثجحخدذرزسشصضطظعغفقكلمنهوي"


def write_catalogue(folder: Path, language: str) -> None:
    """Write `locales/<language>/LC_MESSAGES/pseudo.po` in a folder for WEB_THEME_DIR."""
    catalogue = Catalog(locale=language)
    for message in messages():
        names = (message,) if isinstance(message, str) else message
        forms = catalogue.num_plurals if len(names) > 1 else 1
        strings = tuple(_replaced(names[-1]) for _ in range(forms))
        catalogue.add(message, strings if len(names) > 1 else strings[0])
    target = folder / "locales" / language / "LC_MESSAGES"
    target.mkdir(parents=True)
    with (target / "pseudo.po").open("wb") as file:
        write_po(file, catalogue)


def _replaced(text: str) -> str:
    """Replace words; placeholders such as `%(name)s` stay."""
    return " ".join(
        word if "%(" in word else "".join(LETTERS[ord(each) % len(LETTERS)] for each in word)
        for word in text.split(" ")
    )
