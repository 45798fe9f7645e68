# ruff: noqa: T201 - a script: it prints to the terminal
"""Compare searches of common words with those of a former revision.

    make bench ARGS=searching                     writes its section of bench/RESULTS.md
    make bench ARGS="searching --former COMMIT"   with another revision

Each revision has its own worker and its own database, with the same 10,000 articles of 2 KB. One
connection sends the requests, in turn. The CPU time of PostgreSQL depends less on other load.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from options import Options, parse_options
from report import describe_machine, describe_versions, markdown_table, text_table, write_section
from revisions import FORMER_COMMIT, Revision, start_revisions
from servers import BenchError

HEADING: Final = "## Searching"
ARTICLES: Final = 10_000
WORDS: Final = ("harbour", "success", "develop", "discover", "field", "near", "small", "author")
"""`harbour` is at the beginning of every second article. The others are in two to six of ten."""
REPETITIONS: Final = 5
GOAL: Final = 4.0


class Searches(NamedTuple):
    """The times of one search in milliseconds: of a response, and of PostgreSQL's CPU."""

    response: float
    postgres: float


def search(revision: Revision) -> Searches:
    """Search each word some times."""
    before = revision.postgres_seconds()
    durations = []
    for word in WORDS * REPETITIONS:
        started = time.perf_counter()
        status, body = revision.server.request("GET", f"/search?q={word}")
        durations.append((time.perf_counter() - started) * 1000)
        if status != 200 or b"<mark>" not in body:
            raise BenchError(f"{revision.server.name}: the search of {word} returned {status}")
    seconds = revision.postgres_seconds() - before
    return Searches(statistics.median(durations), seconds * 1000 / len(durations))


def measure(options: Options, log: Callable[[str], None]) -> tuple[list[Searches], list[Searches]]:
    """Return the rounds of this revision and of the former one, which take turns."""
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-searching-")))
        revisions = start_revisions(
            running, former=options.former, folder=folder, articles=ARTICLES
        )
        rounds: tuple[list[Searches], list[Searches]] = ([], [])
        for number in range(options.rounds + 1):
            for revision, measured in zip(revisions, rounds, strict=True):
                found = search(revision)
                if number:  # the first round is the warm-up
                    measured.append(found)
                    log(f"{number}  {revision.server.name:<16} {found.response:.1f} ms")
    return rounds


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write the section. Raises BenchError."""
    what = __doc__.partition("\n")[0]
    options = parse_options(arguments, what=what, full=(5, 4), quick=(2, 2), former=FORMER_COMMIT)
    busy = psutil.cpu_percent(interval=2)
    own, before = measure(options, lambda line: print(line, flush=True))
    table = []
    for name, of in (("response", 0), ("CPU of PostgreSQL", 1)):
        ratios = [old[of] / max(new[of], 0.01) for new, old in zip(own, before, strict=True)]
        ratio = statistics.median(ratios)
        table.append(
            [
                name,
                f"{statistics.median(each[of] for each in before):.1f}",
                f"{statistics.median(each[of] for each in own):.1f}",
                f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                "pass" if ratio >= GOAL else f"FAIL: below {GOAL}",
            ]
        )
    headings = ("what", "former, ms", "now, ms", "ratio (min to max)", "goal")
    print(f"\n{text_table(headings, table)}")
    if options.quick:
        return
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": describe_machine(),
        "versions": describe_versions(None, "embedded, durable"),
        "former revision": options.former,
        "rounds": f"{options.rounds}, of {len(WORDS) * REPETITIONS} searches each",
        "other load": f"{busy:.0f} % of all CPUs busy before anything was started",
    }
    if options.note:
        facts["note"] = options.note
    section = "\n\n".join(
        [
            HEADING,
            "Written by `make bench ARGS=searching`: common words in 10,000 articles of 2 KB.",
            "\n".join(f"- {name}: {fact}" for name, fact in facts.items()),
            markdown_table(headings, table),
        ]
    )
    write_section(options.output, HEADING, section)
    print(f"written: {options.output.name}")
