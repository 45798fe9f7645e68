"""The time zone of the visitor: that of the browser, which scripts store in a cookie, or UTC."""

import re
from datetime import UTC, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from babel.core import get_global
from fastapi import Request

from app.web.forms import form_of

COOKIE = "pressroom-zone"
"""Set by static/js/enhance.js. Not every browser lets scripts set `__Host-` without https."""
FIELD = "zone"
"""The field of a form with the zone that its page has shown."""
_NAME = re.compile(r"[A-Za-z0-9_+-]{1,32}(?:/[A-Za-z0-9_+-]{1,32}){0,2}")


def time_zone(request: Request) -> tzinfo:
    """Return the zone of the submitted form, or of the browser. `str()` gives its name."""
    return find_zone(form_of(request).text(FIELD) or request.cookies.get(COOKIE, ""))


@lru_cache(maxsize=256)
def find_zone(name: str) -> tzinfo:
    """Return the zone with a name such as `Europe/Berlin`; UTC if it is unknown.

    Browsers use some former names, such as Asia/Calcutta. Systems may have the current ones only.
    """
    if not _NAME.fullmatch(name):
        return UTC
    for each in (name, get_global("zone_aliases").get(name, name)):
        try:
            return ZoneInfo(each)
        except (ValueError, OSError, LookupError):
            continue
    return UTC
