"""What an import did, counted."""

from collections import Counter
from collections.abc import Sequence
from heapq import heappush, heappushpop

from app.schemas.bulk import MAX_ERRORS, ImportFailure, ImportNote, ImportReport
from app.services.bulk.records import Outcome, Result


class Tally:
    """Counts results as they come, and keeps the first messages on bad records and on others."""

    def __init__(self) -> None:
        self.counts: Counter[Outcome] = Counter()
        self._errors: list[tuple[int, str]] = []
        self._notes: list[tuple[int, str]] = []

    def add(self, results: Sequence[Result]) -> None:
        """Count these."""
        self.counts.update(result.outcome for result in results)
        for position, outcome, message in results:
            if message and isinstance(position, int):
                first = self._errors if outcome is Outcome.FAILED else self._notes
                push = heappush if len(first) < MAX_ERRORS else heappushpop
                push(first, (-position, message))  # the last of them goes first

    def summary(self) -> str:
        """The counts as a sentence, for an import that ends early."""
        counts = ", ".join(f"{self.counts[outcome]} {outcome.value}" for outcome in Outcome)
        return f"{counts}; send the records again to import the rest"

    def report(self) -> ImportReport:
        """What there was, the messages by their lines."""
        return ImportReport(
            **{outcome.value: self.counts[outcome] for outcome in Outcome},
            errors=[
                ImportFailure(line=-line, message=message)
                for line, message in sorted(self._errors, reverse=True)
            ],
            notes=[
                ImportNote(line=-line, message=message)
                for line, message in sorted(self._notes, reverse=True)
            ],
        )
