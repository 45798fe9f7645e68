# ruff: noqa: T201 - a script: it prints to the terminal
"""Compare searches of common words with those of a former revision.

    make bench ARGS=searching                     writes its section of bench/RESULTS.md
    make bench ARGS="searching --former COMMIT"   with another revision

Each revision has its own worker and its own database, with the same 10,000 articles of 2 KB. One
connection sends the requests, in turn. The CPU time of PostgreSQL depends less on other load.
"""

import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from app.core.config import BACKEND_DIR, get_settings
from app.db import embedded
from imports import MIGRATE, former_code
from options import Options, parse_options
from report import describe_machine, describe_versions, markdown_table, text_table, write_section
from servers import SERVER_ENVIRONMENT, BenchError, Server, execute, scratch_database, seed, serving

HEADING: Final = "## Searching"
FORMER_COMMIT: Final = "6be3bcc"
ARTICLES: Final = 10_000
WORDS: Final = ("harbour", "success", "develop", "discover", "field", "near", "small", "author")
"""`harbour` is at the beginning of every second article. The others are in two to six of ten."""
REPETITIONS: Final = 5
GOAL: Final = 4.0
BACKENDS: Final = (
    "SELECT array_agg(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'pressroom'"
)


class Searches(NamedTuple):
    """The times of one search in milliseconds: of a response, and of PostgreSQL's CPU."""

    response: float
    postgres: float


class Revision(NamedTuple):
    """A running revision and its database."""

    server: Server
    url: str

    def postgres_seconds(self) -> float:
        """Return the CPU time of the server's connections; 0 if PostgreSQL is remote."""
        (pids,) = execute(self.url, BACKENDS)
        try:
            times = [psutil.Process(pid).cpu_times() for pid in pids or ()]
        except psutil.NoSuchProcess:
            return 0.0
        return float(sum(time.user + time.system for time in times))

    def search(self) -> Searches:
        """Search each word some times."""
        before = self.postgres_seconds()
        durations = []
        for word in WORDS * REPETITIONS:
            started = time.perf_counter()
            status, body = self.server.request("GET", f"/search?q={word}")
            durations.append((time.perf_counter() - started) * 1000)
            if status != 200 or b"<mark>" not in body:
                raise BenchError(f"{self.server.name}: the search of {word} returned {status}")
        seconds = self.postgres_seconds() - before
        return Searches(statistics.median(durations), seconds * 1000 / len(durations))


def start(running: ExitStack, name: str, code: Path, server_url: str) -> Revision:
    """Start a revision with a new database."""
    url = running.enter_context(scratch_database(server_url))
    subprocess.run([sys.executable, "-c", MIGRATE, url], cwd=code, check=True)  # noqa: S603 - own code
    seed(url, ARTICLES)
    environment = {**SERVER_ENVIRONMENT, "SECRET_KEY": secrets.token_hex(32)}
    environment |= {"DATABASE_URL": url, "DATABASE_READ_URL": url}
    server = running.enter_context(
        serving(name, "app.main:create_app()", "/health/ready", environment, code=code)
    )
    return Revision(server, url)


def measure(
    options: Options, former: str, log: Callable[[str], None]
) -> tuple[list[Searches], list[Searches]]:
    """Return the rounds of this revision and of the former one, which take turns."""
    settings = get_settings()
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-searching-")))
        server_url = settings.database_url or embedded.start(
            settings.data_dir / "bench" / "postgres"
        )
        revisions = [
            start(running, name, code, server_url)
            for name, code in (
                ("Pressroom", BACKEND_DIR),
                ("former revision", former_code(former, folder / "former")),
            )
        ]
        rounds: tuple[list[Searches], list[Searches]] = ([], [])
        for number in range(options.rounds + 1):
            for revision, measured in zip(revisions, rounds, strict=True):
                found = revision.search()
                if number:  # the first round is the warm-up
                    measured.append(found)
                    log(f"{number}  {revision.server.name:<16} {found.response:.1f} ms")
    return rounds


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write the section. Raises BenchError."""
    others, former = list(arguments), FORMER_COMMIT
    if "--former" in others:
        at = others.index("--former")
        former = "".join(others[at + 1 : at + 2])
        del others[at : at + 2]
    options = parse_options(others, what=__doc__.partition("\n")[0], full=(5, 4), quick=(2, 2))
    busy = psutil.cpu_percent(interval=2)
    own, before = measure(options, former, lambda line: print(line, flush=True))
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
        "former revision": former,
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
