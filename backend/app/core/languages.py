"""Language tags of articles: registered BCP 47 tags in canonical form."""

import json
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

MAX_LANGUAGE = 10
"""Maximum length of a tag, in characters: `zh-Hant-TW` fills the database column."""

_TAG = re.compile(r"([a-z]{2,3})(?:-([a-z]{4}))?(?:-([a-z]{2}|[0-9]{3}))?", re.IGNORECASE)
LANGUAGE_PATTERN = f"^{_TAG.pattern}$".replace("a-z", "A-Za-z").replace("?:", "")
"""The syntax of a tag; `canonical_language` also checks that it is registered."""

_AREAS = frozenset({"001", "150", "419"})
"""UN M.49 codes: the world, Europe and Latin America. No language tag uses the other areas."""


def _records(file: str, standard: str) -> list[dict[str, str]]:
    """Return the records of a file of pycountry, whose own objects take 4 MB and 0.1 s."""
    package = find_spec("pycountry")
    origin = package.origin if package else None
    assert origin is not None  # noqa: S101 - for mypy
    path = Path(origin).parent / "databases" / f"{file}.json"
    records: list[dict[str, str]] = json.loads(path.read_bytes())[standard]
    return records


def _languages() -> Mapping[str, str]:
    """Map each ISO 639 code to the shortest code of its language (RFC 5646 §2.2.1)."""
    shortest = {}
    for language in _records("iso639-3", "639-3"):
        code = language.get("alpha_2", language["alpha_3"])
        shortest[code] = shortest[language["alpha_3"]] = code
        shortest[language.get("bibliographic", code)] = code
    return shortest


_LANGUAGES = _languages()
_SCRIPTS = frozenset(script["alpha_4"] for script in _records("iso15924", "15924"))
COUNTRIES = frozenset(country["alpha_2"] for country in _records("iso3166-1", "3166-1"))
"""The countries of ISO 3166-1, by their codes of two letters."""
_REGIONS = _AREAS | COUNTRIES


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
