"""The one source of the current time, so that tests can move it."""

from datetime import UTC, datetime


def now() -> datetime:
    """The current moment, aware, in UTC. Call it as `clock.now()`: tests replace it here."""
    return datetime.now(UTC)
