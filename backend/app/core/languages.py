"""Language tags: the registered ones that articles can have, in their canonical form."""

import re
from collections.abc import Mapping

import pycountry

MAX_LANGUAGE = 10
"""The longest tag that fits into the database column, in characters: `zh-Hant-TW`."""

_TAG = re.compile(r"([a-z]{2,3})(?:-([a-z]{4}))?(?:-([a-z]{2}|[0-9]{3}))?", re.IGNORECASE)
LANGUAGE_PATTERN = f"^{_TAG.pattern}$".replace("a-z", "A-Za-z").replace("?:", "")
"""What a tag looks like; `canonical_language` says whether it is registered."""

_AREAS = frozenset({"001", "150", "419"})
"""UN M.49: the world, Europe and Latin America. No language is named after the other areas."""


def _languages() -> Mapping[str, str]:
    """ISO 639 codes, each with the shortest code of its language (RFC 5646 §2.2.1)."""
    shortest = {}
    for language in pycountry.languages:
        code = getattr(language, "alpha_2", language.alpha_3)
        shortest[code] = shortest[language.alpha_3] = code
        shortest[getattr(language, "bibliographic", code)] = code
    return shortest


_LANGUAGES = _languages()
_SCRIPTS = frozenset(script.alpha_4 for script in pycountry.scripts)
_REGIONS = _AREAS.union(country.alpha_2 for country in pycountry.countries)


def canonical_language(tag: str) -> str:
    """The BCP 47 tag (RFC 5646) in its canonical form: `pt-br` is `pt-BR`, `deu` is `de`.

    A language of ISO 639, a script of ISO 15924 and a region of ISO 3166, the last two optional.
    Raises ValueError if it is not registered, or longer than MAX_LANGUAGE.
    """
    found = _TAG.fullmatch(tag)
    if found is not None:
        language, script, region = (part or "" for part in found.groups())
        code = _LANGUAGES.get(language.lower())
        script, region = script.title(), region.upper()
        if code and script in _SCRIPTS | {""} and region in _REGIONS | {""}:
            canonical = "-".join(filter(None, (code, script, region)))
            if len(canonical) <= MAX_LANGUAGE:
                return canonical
    raise ValueError(
        "must be a registered language, such as en, pt-BR or zh-Hans, "
        f"of at most {MAX_LANGUAGE} characters"
    )
