"""The only source of the current time, so that tests can replace it."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the current time as an aware datetime in UTC.

    Call it as `clock.now()`: tests replace the attribute of this module.
    """
    return datetime.now(UTC)
