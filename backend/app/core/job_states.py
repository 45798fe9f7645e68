"""The states of background jobs, for the pages and the API that show the health of the server."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.core import clock


@dataclass
class JobState:
    """The state of a job in this process."""

    interval: float
    """Seconds between two runs."""
    succeeded_at: datetime | None = None
    failing_since: datetime | None = None
    error: str | None = None
    """The name of the last exception."""

    def note_success(self) -> None:
        """Note that a run has succeeded."""
        self.succeeded_at, self.failing_since, self.error = clock.now(), None, None

    def note_failure(self, error: Exception) -> None:
        """Note that a run has failed."""
        self.failing_since = self.failing_since or clock.now()
        self.error = type(error).__name__


class StepsFailed(Exception):
    """Some steps of a job failed; the others are done."""

    def __init__(self, errors: Mapping[str, Exception]) -> None:
        super().__init__(
            ", ".join(f"{name}: {type(error).__name__}" for name, error in errors.items())
        )
        self.errors = errors
        """The error of each failed step, by the name of the step."""
