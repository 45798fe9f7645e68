"""Addresses that site generators make from patterns such as `/:year/:month/:title/`."""

import re
from collections.abc import Mapping
from datetime import datetime

STYLES = {
    "date": "/:categories/:year/:month/:day/:title:output_ext",
    "pretty": "/:categories/:year/:month/:day/:title/",
    "ordinal": "/:categories/:year/:y_day/:title:output_ext",
    "none": "/:categories/:title:output_ext",
}
"""Jekyll's names of patterns."""

_PLACEHOLDER = re.compile(r":([a-z_]+)")
_TEMPLATE = re.compile(
    r"\{\{-?\s*(?:page\.)?(fileSlug|filePathStem|slug|title)"
    r"(?:\s*\|\s*(?:slug|slugify|url_encode))?\s*-?\}\}"
)
_UNKNOWN = re.compile(r":[A-Za-z]|\{[{%]")


def expand(pattern: str, *, at: datetime | None, values: Mapping[str, str]) -> str:
    """Return the address for a pattern, or an empty string if something of it is not known.

    `values` has the parts of the address by their names in patterns, for example `title`.
    """
    pattern = STYLES.get(pattern.strip(), pattern.strip())
    known = {**values, "output_ext": ".html"}
    if at is not None:
        known |= {
            "year": f"{at:%Y}",
            "short_year": f"{at:%y}",
            "month": f"{at:%m}",
            "i_month": str(at.month),
            "day": f"{at:%d}",
            "i_day": str(at.day),
            "y_day": f"{at:%j}",
            "hour": f"{at:%H}",
            "minute": f"{at:%M}",
            "second": f"{at:%S}",
        }

    def value_of(name: re.Match[str]) -> str:
        return known.get(name[1], name[0])

    address = _TEMPLATE.sub(value_of, _PLACEHOLDER.sub(value_of, pattern))
    if _UNKNOWN.search(address):
        return ""
    address = re.sub(r"/{2,}", "/", f"/{address}")
    return address.removesuffix("index.html")
