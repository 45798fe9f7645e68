"""The only source of the current time, so that tests can replace it.

The time is that of the primary database, as far as this process can know it: `follow` corrects the
clock of the machine. All processes and the triggers of the database then agree on what is public,
due or expired, even if the clocks of their machines differ (decision 0014).
"""

from datetime import UTC, datetime, timedelta

_correction = timedelta()


def now() -> datetime:
    """Return the current time as an aware datetime in UTC.

    Call it as `clock.now()`: tests replace the attribute of this module.
    """
    return system_now() + _correction


def system_now() -> datetime:
    """Return the time of this machine's clock, without the correction."""
    return datetime.now(UTC)


def follow(primary: datetime, *, sent: datetime, received: datetime) -> timedelta:
    """Correct `now` by the clock of the primary, and return the correction.

    The primary's clock showed `primary` at an unknown moment between `sent` and `received`, which
    are times of `system_now`. The correction changes only if that is impossible, and only as far
    as necessary. So clocks that agree are not corrected, and a slow response changes nothing.
    """
    global _correction  # noqa: PLW0603 - the clock of the process
    _correction = min(max(_correction, primary - received), primary - sent)
    return _correction
