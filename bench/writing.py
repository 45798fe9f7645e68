# ruff: noqa: T201 - a script: it prints to the terminal
"""Compare the speed of writing with that of a former revision.

    make bench ARGS=writing                     writes its section of bench/RESULTS.md
    make bench ARGS="writing --former COMMIT"   with another revision

Each revision has its own worker and its own database, with the same rows. CPU times are those of
the worker and of its connections in PostgreSQL, which includes triggers.
"""

import json
import secrets
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from imports import make_post
from load import Generator
from options import Options, parse_options
from report import (
    PRESSROOM,
    REFRESH,
    Measurement,
    Request,
    Workload,
    describe_machine,
    describe_versions,
    markdown_table,
    text_table,
    write_section,
)
from revisions import FORMER, FORMER_COMMIT, start_revisions
from servers import execute
from workloads import JSON, REFRESH_CONNECTIONS, open_sessions

HEADING: Final = "## Writing"
EXPLANATION: Final = """\
CPU times are per request: of the worker, and of its connections in PostgreSQL. *of CPU* is the
ratio of their sums."""
ARTICLES: Final = 10_000
TEXTS: Final = 200
WRITERS: Final = 10
CREATE, CHANGE, COMMENT, FAVORITE = "create an article", "change an article", "comment", "favorite"
GOALS: Final = {CREATE: 3.0, CHANGE: 1.5, COMMENT: 1.5, FAVORITE: 1.5, REFRESH: 1.5}


class Written(NamedTuple):
    """A measurement, and the CPU time of PostgreSQL per request in milliseconds."""

    measurement: Measurement
    postgres_ms: float

    @property
    def cpu_ms(self) -> float:
        """Return the CPU time per request of the worker and of PostgreSQL."""
        return self.measurement.cpu_ms + self.postgres_ms


def _texts() -> list[str]:
    """Return texts of 2 KB."""
    posts = (make_post(number) for number in range(1, 2 * TEXTS, 2))
    return [
        "\n\n".join(islice(cycle(markdown for markdown, _ in post.paragraphs), 7))[:2048]
        for post in posts
    ]


def choose_workloads(url: str) -> list[Workload]:
    """Return the workloads for a database."""
    tags, ids, own = execute(
        url,
        "SELECT array_agg(name ORDER BY id) FROM tags WHERE is_listed",
        "SELECT array_agg(id ORDER BY id) FROM (SELECT id FROM articles"
        " WHERE published_at < now() AND archived_at IS NULL ORDER BY id LIMIT 2000) AS first",
        "SELECT array_agg(articles.id ORDER BY articles.id) FROM articles"
        " JOIN users ON users.id = author_id AND username = 'writer1'"
        " WHERE published_at < now() AND archived_at IS NULL AND deleted_at IS NULL",
    )
    articles = [
        json.dumps(
            {
                "title": f"Post 0000000 about {secrets.token_hex(4)}",
                "content": content,
                "tags": [tags[(number * step) % len(tags)] for step in (1, 2, 3)],
                "published": True,
            }
        )
        for number, content in enumerate(_texts(), start=1)
    ]
    comment = json.dumps(
        {"content": "A short comment with *some* Markdown, and a second sentence."}
    )
    return [
        Workload(
            CREATE,
            [Request("/articles", article) for article in articles],
            2000,
            WRITERS,
            "POST",
            JSON,
            is_authenticated=True,
        ),
        Workload(
            CHANGE,
            # The number of the request is in the text, so that each request changes the article.
            [
                Request(f"/articles/{number}", json.dumps({"content": f"0000000 {content}"}))
                for number, content in zip(own, cycle(_texts()), strict=False)
            ],
            200,
            WRITERS,
            "PATCH",
            JSON,
            is_authenticated=True,
        ),
        Workload(
            COMMENT,
            [Request(f"/articles/{number}/comments", comment) for number in ids[:500]],
            200,
            WRITERS,
            "POST",
            JSON,
            is_authenticated=True,
        ),
        Workload(
            FAVORITE,
            [Request(f"/articles/{number}/favorite") for number in ids],
            50,
            WRITERS,
            "PUT",
            is_authenticated=True,
        ),
        Workload(
            REFRESH,
            [Request("/auth/refresh")],
            300,
            REFRESH_CONNECTIONS,
            "POST",
            JSON,
            is_chain=True,
        ),
    ]


def measure(
    wrk: str, options: Options, log: Callable[[str], None]
) -> dict[tuple[str, str], list[Written]]:
    """Return the measurements by workload and revision."""
    measured: dict[tuple[str, str], list[Written]] = {}
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-writing-")))
        revisions = start_revisions(
            running, former=options.former, folder=folder, articles=ARTICLES
        )
        generator = Generator(wrk)
        workloads: dict[tuple[str, str], Workload] = {}
        for revision in revisions:
            open_sessions(revision.server)
            for workload in choose_workloads(revision.url):
                workloads[workload.name, revision.server.name] = workload
                generator.warm_up(revision.server, workload, 1)
        for number in range(1, options.rounds + 1):
            for name in GOALS:
                for revision in revisions if number % 2 else revisions[::-1]:
                    if name == FAVORITE:
                        execute(revision.url, "DELETE FROM favorites")
                    before = revision.postgres_seconds()
                    workload = workloads[name, revision.server.name]
                    done = generator.measure(revision.server, workload, options.seconds, number)
                    postgres_ms = (revision.postgres_seconds() - before) * 1000 / done.requests
                    measured.setdefault((name, revision.server.name), []).append(
                        Written(done, postgres_ms)
                    )
                    log(
                        f"round {number}/{options.rounds}  {name:<18} {revision.server.name:<16}"
                        f"{done.rate:>8,.0f}/s  CPU ms: {done.cpu_ms:.2f} + {postgres_ms:.2f}"
                    )
    return measured


def rows(measured: dict[tuple[str, str], list[Written]]) -> list[list[str]]:
    """Return a row for each workload, with medians. A ratio is of two rates of one round."""
    table = []
    for name, goal in GOALS.items():
        own, former = measured[name, PRESSROOM], measured[name, FORMER]
        ratios = [
            one.measurement.rate / other.measurement.rate
            for one, other in zip(own, former, strict=True)
        ]
        ratio = statistics.median(ratios)
        cells = [name]
        for runs in (former, own):
            cells += [
                f"{statistics.median(run.measurement.rate for run in runs):,.0f}",
                f"{statistics.median(run.measurement.cpu_ms for run in runs):.2f}",
                f"{statistics.median(run.postgres_ms for run in runs):.2f}",
            ]
        cpu = statistics.median(
            other.cpu_ms / one.cpu_ms for one, other in zip(own, former, strict=True)
        )
        cells += [f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})", f"{cpu:.2f}"]
        table.append([*cells, "pass" if ratio >= goal else f"FAIL: below {goal}"])
    return table


def main(arguments: Sequence[str], wrk: str) -> None:
    """Measure, print, and write the section. Raises BenchError."""
    what = __doc__.partition("\n")[0]
    options = parse_options(arguments, what=what, full=(5, 4), quick=(2, 2), former=FORMER_COMMIT)
    busy = psutil.cpu_percent(interval=2)
    measured = measure(wrk, options, lambda line: print(line, flush=True))
    cells = ("/s", "worker ms", "PostgreSQL ms")
    headings = ["what", *(f"{revision} {cell}" for revision in ("former", "now") for cell in cells)]
    headings += ["ratio (min to max)", "of CPU", "goal"]
    table = rows(measured)
    print(f"\n{text_table(headings, table)}")
    if options.quick:
        return
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": describe_machine(),
        "versions": describe_versions(wrk, "embedded, durable"),
        "former revision": options.former,
        "rounds": f"{options.rounds}, of {options.seconds} s; {WRITERS} connections of one user,"
        f" {REFRESH_CONNECTIONS} for refreshes",
        "other load": f"{busy:.0f} % of all CPUs busy before anything was started",
    }
    if options.note:
        facts["note"] = options.note
    section = "\n\n".join(
        [
            HEADING,
            "Written by `make bench ARGS=writing`: articles of 2 KB with three tags, published.",
            "\n".join(f"- {name}: {fact}" for name, fact in facts.items()),
            markdown_table(headings, table),
            EXPLANATION,
        ]
    )
    write_section(options.output, HEADING, section)
    print(f"written: {options.output.name}")
