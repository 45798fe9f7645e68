"""Counts and messages of an import."""

from collections import Counter
from collections.abc import Sequence
from heapq import heappush, heappushpop

from app.schemas.bulk import MAX_ERRORS, ImportFailure, ImportNote, ImportReport
from app.services.bulk.records import Outcome, Result

_REPORTED = (Outcome.CREATED, Outcome.UPDATED, Outcome.UNCHANGED, Outcome.FAILED)
"""All outcomes of NDJSON."""


class Tally:
    """Counts results, and keeps the first messages of failed and of other records."""

    def __init__(self) -> None:
        self.counts: Counter[Outcome] = Counter()
        self.stopped: ImportFailure | None = None
        """The first record that was not written because of a limit."""
        self._errors: list[tuple[int, str]] = []
        self._notes: list[tuple[int, str]] = []

    def add(self, results: Sequence[Result]) -> None:
        """Add results."""
        self.counts.update(result.outcome for result in results)
        for result in results:
            position = result.parsed.position
            message = result.message or "; ".join(result.notes)
            if message and isinstance(position, int):
                first = self._errors if result.outcome is Outcome.FAILED else self._notes
                push = heappush if len(first) < MAX_ERRORS else heappushpop
                push(first, (-position, message))  # a min-heap: the highest line is dropped

    def summary(self) -> str:
        """Return the counts as a sentence, for an import that ends early."""
        counts = ", ".join(f"{self.counts[outcome]} {outcome.value}" for outcome in _REPORTED)
        return f"{counts}; send the records again to import the rest"

    def report(self) -> ImportReport:
        """Return the report, with messages ordered by line."""
        return ImportReport(
            **{outcome.value: self.counts[outcome] for outcome in _REPORTED},
            stopped=self.stopped,
            errors=[
                ImportFailure(line=-line, message=message)
                for line, message in sorted(self._errors, reverse=True)
            ],
            notes=[
                ImportNote(line=-line, message=message)
                for line, message in sorted(self._notes, reverse=True)
            ],
        )
