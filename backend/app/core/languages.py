"""Language tags of articles: registered BCP 47 tags in canonical form."""

import re
from collections.abc import Mapping

import pycountry

MAX_LANGUAGE = 10
"""Maximum length of a tag, in characters: `zh-Hant-TW` fills the database column."""

_TAG = re.compile(r"([a-z]{2,3})(?:-([a-z]{4}))?(?:-([a-z]{2}|[0-9]{3}))?", re.IGNORECASE)
LANGUAGE_PATTERN = f"^{_TAG.pattern}$".replace("a-z", "A-Za-z").replace("?:", "")
"""The syntax of a tag; `canonical_language` also checks that it is registered."""

_AREAS = frozenset({"001", "150", "419"})
"""UN M.49 codes: the world, Europe and Latin America. No language tag uses the other areas."""


def _languages() -> Mapping[str, str]:
    """Map each ISO 639 code to the shortest code of its language (RFC 5646 §2.2.1)."""
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
    """Return the BCP 47 tag (RFC 5646) in canonical form: `pt-br` → `pt-BR`, `deu` → `de`.

    A tag has an ISO 639 language, and optionally an ISO 15924 script and an ISO 3166 region.
    Raises ValueError if the tag is not registered or is longer than MAX_LANGUAGE.
    """
    match = _TAG.fullmatch(tag)
    if match is not None:
        language, script, region = (part or "" for part in match.groups())
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
