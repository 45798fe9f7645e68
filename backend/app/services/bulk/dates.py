"""Dates as blogs and exports write them."""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

MAX_LENGTH = 80

_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "jan january", "feb february", "mar march", "apr april", "may", "jun june", "jul july",
            "aug august", "sep sept september", "oct october", "nov november", "dec december",
        ),
        1,
    )
    for name in names.split()
}  # fmt: skip
_WEEKDAYS = {
    *"mon tue wed thu fri sat sun tues wednes thur thurs".split(),  # noqa: SIM905 - words are easier to read in one text
    *(f"{name}day" for name in ("mon", "tues", "wednes", "thurs", "fri", "satur", "sun")),
}
_FILLERS = _WEEKDAYS | {"at", "of", "the", "on"}

# RFC 2822 §4.3, and names that no other zone has.
_ZONES: Mapping[str, float] = {
    "z": 0, "ut": 0, "utc": 0, "gmt": 0, "wet": 0,
    "est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7,
    "akst": -9, "akdt": -8, "hst": -10,
    "cet": 1, "cest": 2, "mez": 1, "mesz": 2, "west": 1, "bst": 1, "eet": 2, "eest": 3, "msk": 3,
    "jst": 9, "kst": 9, "hkt": 8, "sgt": 8, "awst": 8, "acst": 9.5, "acdt": 10.5, "aest": 10,
    "aedt": 11, "nzst": 12, "nzdt": 13, "irst": 3.5, "brt": -3,
}  # fmt: skip
_AMBIGUOUS_ZONES = {"cst", "ist", "bst", "ast"}

_EXACT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{3}Z)?", re.ASCII)
_YEAR_FIRST = re.compile(
    r"(\d{4})\s?[-/.年년]\s?(\d{1,2})\s?[-/.月월]\s?(\d{1,2})\s?[日일.]?(?:[Tt,]\s?|\s+|$)(.*)"
)
_COMPACT = re.compile(r"(\d{4})(\d\d)(\d\d)(?:[Tt ]?(\d\d)(\d\d)(\d\d)?(.*))?")
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})(?:[T,]?\s+(.*)|)")
_TIME = re.compile(
    r"(\d{1,2})(?::(\d{1,2}))(?::(\d{1,2})(?:[.,](\d+))?)?(?:\s?([ap])\.?m\.?(?![a-z]))?",
    re.IGNORECASE,
)
_HOUR = re.compile(r"(\d{1,2})\s?([ap])\.?m\.?(?![a-z])", re.IGNORECASE)
_OFFSET = re.compile(r"(?:utc|gmt)?([+-])(\d{1,2})(?::?(\d\d))?", re.IGNORECASE)
_NAME_AFTER_OFFSET = re.compile(r"([+-]\d\d:?\d\d)\s+[A-Za-z]{2,5}")
"""As Go prints it: -0700 PDT."""
_ZONE_NAME = r"\[?([A-Za-z_]+(?:/[A-Za-z_+-]+[0-9]*)+)\]?"
_DAY_AND_YEAR = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?", re.IGNORECASE)


class DateError(ValueError):
    """The text is not a date. The message contains the reason."""


class FoundDate(NamedTuple):
    """A date in UTC, and what had to be assumed to read it."""

    at: datetime
    note: str = ""


def read_date(value: Any, zone: tzinfo) -> FoundDate | None:
    """Read a date of any format; None if there is none. Raises DateError.

    `zone` is the zone of dates without one. A number is a Unix time in seconds or milliseconds.
    """
    if value is None or isinstance(value, bool) or value == "":
        return None
    try:
        if isinstance(value, datetime):
            return FoundDate(_to_utc(value, zone))
        if isinstance(value, date):
            return FoundDate(_to_utc(datetime.combine(value, time()), zone))
        if isinstance(value, int | float):
            return FoundDate(_from_number(float(value)))
        if isinstance(value, str):
            if len(value) == 19 and value[4] == "-" and value.isascii():
                with suppress(ValueError):  # the format of exports, read fast
                    return FoundDate(_to_utc(datetime.fromisoformat(value), zone))
            return _read_text(value.strip(), zone) if value.strip() else None
    except (OverflowError, OSError) as error:
        raise DateError(f"{str(value)[:MAX_LENGTH]!r} is out of range") from error
    except DateError:
        raise
    except ValueError as error:
        raise DateError(f"{str(value)[:MAX_LENGTH]!r} is not a date ({error})") from error
    raise DateError(f"{str(value)[:MAX_LENGTH]!r} is not a date")


def find_zone(name: str) -> tzinfo:
    """Return a time zone by its name (Europe/Berlin) or offset (+02:00). Raises DateError."""
    text = name.strip()
    if text.lower() in {"utc", "z", "gmt", "etc/utc"}:
        return UTC
    if offset := _OFFSET.fullmatch(text):
        return _offset_zone(offset)
    try:
        return ZoneInfo(text)
    except (ValueError, OSError, KeyError) as error:
        raise DateError(f"Unknown time zone {text[:MAX_LENGTH]!r}") from error


def _from_number(value: float) -> datetime:
    return datetime.fromtimestamp(value / 1000 if abs(value) > 10**11 else value, UTC)


def _to_utc(at: datetime, zone: tzinfo) -> datetime:
    return (at if at.tzinfo else at.replace(tzinfo=zone)).astimezone(UTC)


def _read_text(text: str, zone: tzinfo) -> FoundDate:
    if len(text) > MAX_LENGTH:
        raise DateError(f"{text[:MAX_LENGTH]!r}… is too long for a date")
    if found := _read_exact(text, zone):
        return found
    if match := _YEAR_FIRST.fullmatch(text):
        return _complete(int(match[1]), int(match[2]), int(match[3]), match[4], zone)
    if match := _COMPACT.fullmatch(text):
        rest = f"{match[4]}:{match[5]}:{match[6] or '00'}{match[7]}" if match[4] else ""
        return _complete(int(match[1]), int(match[2]), int(match[3]), rest, zone)
    if match := _YEAR_LAST.fullmatch(text):
        first, second = int(match[1]), int(match[3])
        if match[2] == "." or first > 12 or first == second:
            day, month = first, second
        elif second > 12:
            day, month = second, first
        else:
            raise DateError(
                f"{text!r} can be read as {match[4]}-{second:02}-{first:02}"
                f" and as {match[4]}-{first:02}-{second:02}"
            )
        return _complete(int(match[4]), month, day, match[5] or "", zone)
    if match := re.fullmatch(r"(\d{4})(?:-(\d\d))?", text, re.ASCII):
        found = _complete(int(match[1]), int(match[2] or 1), 1, "", zone)
        return found._replace(note=f"{text} is read as {found.at:%Y-%m-%d}")
    return _read_words(text, zone)


def _read_exact(text: str, zone: tzinfo) -> FoundDate | None:
    """Read what WordPress and Ghost write, or a Unix time. Return None for other formats."""
    if _EXACT.fullmatch(text):
        with suppress(ValueError):  # for example a second 60
            return FoundDate(_to_utc(datetime.fromisoformat(text), zone))
    if re.fullmatch(r"\d{9,13}(\.\d+)?", text, re.ASCII):
        return FoundDate(_from_number(float(text)))
    return None


def _read_words(text: str, zone: tzinfo) -> FoundDate:
    """Read a date with the name of its month, such as `July 8, 2022` or RFC 2822's."""
    rest = re.sub(r"\([^()]*\)", " ", text)
    clock = _TIME.search(rest) or _HOUR.search(rest)
    before, after = (rest[: clock.start()], rest[clock.start() :]) if clock else (rest, "")
    words = re.split(r"[\s,]+", re.sub(r"(?<=[A-Za-z])-|-(?=[A-Za-z])", " ", before))
    if clock and (late := re.search(r"\s(\d{4})$", after.strip())):  # as date(1) and ctime print it
        words.append(late[1])
        after = after.strip()[: late.start()]
    year = month = day = 0
    for word in words:
        lower = word.lower().rstrip(".")
        if not lower or lower in _FILLERS:
            continue
        if not month and lower in _MONTHS:
            month = _MONTHS[lower]
        elif not year and re.fullmatch(r"\d{4}", lower, re.ASCII):
            year = int(lower)
        elif not day and (match := _DAY_AND_YEAR.fullmatch(lower)):
            day = int(match[1])
        elif day and not year and re.fullmatch(r"\d\d", lower, re.ASCII):
            year = int(lower) + (2000 if int(lower) < 70 else 1900)
        else:
            raise DateError(f"{text!r} is not a date")
    if not (year and month and day):
        raise DateError(f"{text!r} is not a date")
    return _complete(year, month, day, after, zone)


def _complete(year: int, month: int, day: int, rest: str, zone: tzinfo) -> FoundDate:
    """Return the date with the time and zone in `rest`. Raises ValueError."""
    rest = rest.strip()
    hour = minute = second = microsecond = 0
    half = ""
    if clock := _TIME.match(rest):
        hour, minute, second = int(clock[1]), int(clock[2]), int(clock[3] or 0)
        microsecond = int((clock[4] or "0")[:6].ljust(6, "0"))
        half, rest = (clock[5] or "").lower(), rest[clock.end() :]
    elif (clock := _HOUR.match(rest)) or (clock := re.match(r"(\d\d)(?=[Zz+-]|$)", rest)):
        hour, rest = int(clock[1]), rest[clock.end() :]
        half = (clock[2] or "").lower() if clock.re is _HOUR else ""
    if half:
        if not 1 <= hour <= 12:
            raise ValueError(f"there is no hour {hour} {half}.m.")
        hour = hour % 12 + (12 if half == "p" else 0)
    next_day = hour == 24 and minute == second == 0
    at = datetime(
        year, month, day, 0 if next_day else hour, minute, min(second, 59), microsecond, tzinfo=UTC
    ) + timedelta(days=next_day)  # until its zone is known
    found, note = _read_zone(rest.strip(), at, zone)
    return FoundDate(_to_utc(at.replace(tzinfo=found), UTC), note)


def _read_zone(text: str, at: datetime, default: tzinfo) -> tuple[tzinfo, str]:
    """Return the zone and a note if it had to be assumed."""
    text = re.sub(r"\([^()]*\)", "", text).strip()
    if not text:
        return default, ""
    if offset := _OFFSET.fullmatch(_NAME_AFTER_OFFSET.sub(r"\1", text)):
        return _offset_zone(offset), ""
    if named := re.fullmatch(rf"(?:{_OFFSET.pattern}\s*)?{_ZONE_NAME}", text, re.IGNORECASE):
        return find_zone(named[4]), ""
    name = text.lower()
    if (at.replace(tzinfo=default).tzname() or "").lower() == name:  # CST, if the blog is in China
        return default, ""
    if name in _ZONES:
        hours = timedelta(hours=_ZONES[name])
        note = f"the time zone {text} is read as UTC{_ZONES[name]:+g}"
        return timezone(hours), note if name in _AMBIGUOUS_ZONES else ""
    if re.fullmatch(r"[a-z]{2,5}", name):
        return default, f"the time zone {text} is not known, {default} is used"
    raise ValueError(f"{text[:30]!r} is not a time")


def _offset_zone(offset: re.Match[str]) -> tzinfo:
    distance = timedelta(hours=int(offset[2]), minutes=int(offset[3] or 0))
    if distance > timedelta(hours=15):
        raise DateError(f"Unknown time zone {offset[0]!r}")
    return timezone(-distance if offset[1] == "-" else distance)
