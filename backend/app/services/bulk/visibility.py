"""Who could read a file's text in the old system, by its front matter.

An import must not show a text to more readers than before. So a field that cannot be understood
hides the text.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, tzinfo
from enum import StrEnum
from typing import Any, NamedTuple

from app.services.bulk.dates import DateError, read_date

MAX_SHOWN = 60

_TRUE = {"true", "yes", "y", "1", "on", "t", "1.0"}
_FALSE = {"false", "no", "n", "0", "off", "f", "0.0", "none", "null", "never"}

_HIDING = {
    "draft", "drafts", "isdraft", "wip", "unfinished", "incomplete", "unpublished", "unpublish",
    "private", "isprivate", "hidden", "ishidden", "hide", "unlisted", "invisible", "secret",
    "confidential", "membersonly", "memberonly", "members", "subscribersonly", "subscriberonly",
    "subscribers", "paid", "paidonly", "premium", "paywall", "paywalled", "locked", "protected",
    "restricted", "encrypt", "encrypted", "headless", "eleventyexcludefromcollections", "expired",
    "ignore", "ignored", "disabled", "deleted", "trashed", "loginrequired", "requireslogin",
    "requirelogin",
}  # fmt: skip
"""Fields, without separators and in lower case, that hide a text unless they are false."""
_SHOWING = {
    "published", "publish", "ispublished", "public", "ispublic", "visible", "isvisible", "live",
    "islive", "listed", "online", "ready", "dgpublish", "publishpost", "permalink", "render",
}  # fmt: skip
"""Fields that hide a text if they are false."""
_UNFINISHED = {"draft", "drafts", "isdraft", "wip", "unfinished", "incomplete"}
_FINISHED = {"published", "publish", "ispublished", "ready", "publishpost"}
_STATES = {
    "status", "state", "poststatus", "publishstatus", "publishstate", "publicationstatus",
    "visibility", "access", "accesslevel", "contentvisibility",
}  # fmt: skip
"""Fields that name a state."""
_PUBLIC_STATES = {
    "published", "publish", "public", "live", "visible", "everyone", "everybody", "anyone", "all",
    "open", "online", "active", "released", "release", "final", "finished", "complete", "completed",
    "done", "free", "listed", "scheduled", "future", *_TRUE,
}  # fmt: skip
_UNFINISHED_STATES = {
    "draft", "drafts", "drafting", "wip", "pending", "pendingreview", "review", "inreview", "idea",
    "todo", "inprogress", "outline", "unpublished", "notpublished", "new", "trash", "trashed",
    "deleted", *_FALSE,
}  # fmt: skip
_HIDDEN_STATES = _UNFINISHED_STATES | _HIDING
_VAGUE_STATES = {"state"}
"""Fields that often mean something else. Only a value of _HIDDEN_STATES hides the text."""
_SECRETS = {"password", "passwd", "passphrase", "passwordhash", "pwd", "pass", "encpwd"}
_GROUPS = {"tiers", "tier", "roles", "allowedroles", "membership", "memberships", "accessroles"}
_PUBLIC_GROUPS = {"", "public", "free", "all", "everyone", "anyone", "none", "[]"}
_EXPIRY = {
    "expirydate", "expiry", "expires", "expiresat", "expireson", "expire", "expireat", "expiredate",
    "expiration", "expirationdate", "unpublishdate", "unpublishedat", "unpublishat", "unpublishon",
    "publisheduntil", "publishuntil", "validuntil", "enddisplay",
}  # fmt: skip
_GATE = re.compile(
    r"(?<!re)(?<!team)(?<!team[_-])member|subscribers?[_-]?only|premium(?!/)|paywall|paid|private"
    r"|secret|encrypt|passw|protect|restrict|logged[_-]?in"
)
"""Words in the names of shortcodes, blocks and components that show their content to some."""


class Reason(StrEnum):
    """Why a text is not imported as a public article."""

    UNFINISHED = "unfinished"
    """It was never published."""
    RESTRICTED = "restricted"
    """It was published for some readers only, or no longer."""
    PAGE = "page"
    """It is a page of the site, which articles in lists and feeds do not have."""


class Restriction(NamedTuple):
    """A reason, with the explanation for the author."""

    reason: Reason
    text: str


def is_gate(name: str) -> bool:
    """Whether the name of a tag says that not all readers see its content."""
    name = name.lower()
    return _GATE.search(name) is not None and "mail" not in name


def plain_name(name: str) -> str:
    """Return the name of a field in lower case and without separators."""
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def truth(value: Any) -> bool | None:
    """Return the meaning of a flag in any spelling; None if it has another value or none."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower() if isinstance(value, str | int | float) else ""
    return True if text in _TRUE else False if text in _FALSE else None


def restrictions(
    values: Mapping[str, Any], *, now: datetime, zone: tzinfo
) -> Iterator[Restriction]:
    """Yield the restrictions in a front matter."""
    for name, value in values.items():
        if value is None or value == "":
            continue
        found = _restriction(name, plain_name(name), value, now=now, zone=zone)
        if found is not None:
            yield found


def expiry(values: Mapping[str, Any], *, now: datetime, zone: tzinfo) -> datetime | None:
    """Return the future date at which the old system would hide the text."""
    for name, value in values.items():
        if plain_name(name) in _EXPIRY:
            try:
                found = read_date(value, zone)
            except DateError:
                continue
            if found is not None and found.at > now:
                return found.at
    return None


def _restriction(
    name: str, plain: str, value: Any, *, now: datetime, zone: tzinfo
) -> Restriction | None:
    shown = f"{name}: {str(value)[:MAX_SHOWN]}"
    if plain in _EXPIRY and truth(value) is not False:
        return _expired(name, value, now=now, zone=zone)
    for check in (_flag, _state, _group, _build):
        if reason := check(plain, value):
            return Restriction(reason, shown)
    if plain in _SECRETS and truth(value) is not False:
        return Restriction(Reason.RESTRICTED, "the text has a password")
    return None


def _flag(plain: str, value: Any) -> Reason | None:
    if plain in _HIDING and truth(value) is not False and value != []:
        return Reason.UNFINISHED if plain in _UNFINISHED else Reason.RESTRICTED
    if plain in _SHOWING and (truth(value) is False or plain_name(str(value)) in _HIDDEN_STATES):
        return Reason.UNFINISHED if plain in _FINISHED else Reason.RESTRICTED
    return None


def _state(plain: str, value: Any) -> Reason | None:
    if plain not in _STATES:
        return None
    states = {plain_name(str(each)) for each in (value if isinstance(value, list) else [value])}
    if states & _UNFINISHED_STATES:
        return Reason.UNFINISHED
    is_public = not states & _HIDING if plain in _VAGUE_STATES else states <= _PUBLIC_STATES
    return None if is_public else Reason.RESTRICTED


def _group(plain: str, value: Any) -> Reason | None:
    groups = {str(each).lower() for each in (value if isinstance(value, list) else [value])}
    is_public = plain not in _GROUPS or groups <= _PUBLIC_GROUPS
    return None if is_public else Reason.RESTRICTED


def _build(plain: str, value: Any) -> Reason | None:
    """Return whether Hugo renders the text, and shows it in lists."""
    if plain != "build" or not isinstance(value, dict):
        return None
    options = {plain_name(str(value.get(part, "always"))) for part in ("render", "list")}
    return None if options <= {"always", "true", "local"} else Reason.RESTRICTED


def _expired(name: str, value: Any, *, now: datetime, zone: tzinfo) -> Restriction | None:
    try:
        found = read_date(value, zone)
    except DateError as error:
        return Restriction(Reason.RESTRICTED, f"{name}: {error}")
    if found is None or found.at > now:
        return None
    return Restriction(Reason.RESTRICTED, f"the text expired on {found.at:%Y-%m-%d}")


def is_visibility(name: str) -> bool:
    """Whether a field says who may read a text."""
    return plain_name(name) in {
        *_HIDING, *_SHOWING, *_STATES, *_SECRETS, *_GROUPS, *_EXPIRY, "build",
    } - {"permalink"}  # fmt: skip
