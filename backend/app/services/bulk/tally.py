"""What an import did, counted."""

from collections import Counter
from collections.abc import Sequence
from heapq import heappush, heappushpop

from app.schemas.bulk import MAX_ERRORS, ImportFailure, ImportReport
from app.services.bulk.records import Outcome, Result


class Tally:
    """Counts results as they come, and keeps the bad records that stand first."""

    def __init__(self) -> None:
        self.counts: Counter[Outcome] = Counter()
        self.stopped: ImportFailure | None = None
        """The first record that a limit kept from being written."""
        self._worst: list[tuple[int, str]] = []

    def add(self, results: Sequence[Result]) -> None:
        """Count these."""
        self.counts.update(result.outcome for result in results)
        for position, outcome, message in results:
            if outcome is Outcome.FAILED and isinstance(position, int):
                push = heappush if len(self._worst) < MAX_ERRORS else heappushpop
                push(self._worst, (-position, message))  # the last of them goes first

    def report(self) -> ImportReport:
        """What there was, the bad records by their lines."""
        return ImportReport(
            **{outcome.value: self.counts[outcome] for outcome in Outcome},
            stopped=self.stopped,
            errors=[
                ImportFailure(line=-line, message=message)
                for line, message in sorted(self._worst, reverse=True)
            ],
        )
