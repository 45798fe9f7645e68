# ruff: noqa: T201 - a script: it talks to people
"""Measure lists, search and bulk at two sizes of the blog, and what the larger one costs.

    make bench ARGS=content                    writes its part of bench/RESULTS.md
    make bench ARGS="content --quick"          10,000 in place of 1,000,000 articles; prints only

One connection asks each of two servers in turn, so that what else the machine does disturbs both.
See bench/README.md.
"""

import argparse
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import psutil
from sqlalchemy import make_url

import bulk
import corpus
from app.core.config import BACKEND_DIR, get_settings
from app.db import embedded, migrate
from report import describe_machine, describe_versions, keep_section, markdown_table, text_table
from servers import (
    BENCH_DIR,
    HOST,
    SERVER_ENVIRONMENT,
    BenchError,
    Server,
    execute,
    serving,
)

HEADING: Final = "## Content"
PAGE: Final = 20
WALKED_PAGES: Final = 100
DEEP: Final = 0.9
"""How much of the list lies before the deep pages."""
PLACES: Final = 8
WARM_UP: Final = 30
SLOWER_BY: Final = 1.5
COMMON_MS, RARE_MS = 150, 20


@dataclass(frozen=True)
class Options:
    """How much to measure, and where to write."""

    small: int
    large: int
    requests: int
    imported: int
    note: str
    output: Path | None


@dataclass(frozen=True)
class Workload:
    """Paths that are asked for in turn, on each of the two servers; the goal in words."""

    name: str
    paths: tuple[Sequence[str], Sequence[str]]
    goal: str = ""


@dataclass(frozen=True)
class Measured:
    """Milliseconds of the answers of the small and of the large blog, in pairs."""

    workload: Workload
    small: Sequence[float]
    large: Sequence[float]

    @property
    def ratio(self) -> float:
        """How many times as long the larger blog takes."""
        return median(self.large) / median(self.small)

    def row(self) -> list[str]:
        """A line of the table."""
        return [
            self.workload.name,
            f"{median(self.small):.1f}",
            f"{median(self.large):.1f}",
            f"{quantiles(self.large, n=20)[-1]:.1f}",
            f"{self.ratio:.2f}",
            self.workload.goal,
        ]


def parse_options(arguments: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="bench/run.py content", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--small", type=int, default=1000, help="articles (default 1000)")
    parser.add_argument("--large", type=int, help="articles (default 1000000)")
    parser.add_argument("--requests", type=int, help="of each sort (default 200)")
    parser.add_argument("--import", type=int, dest="imported", help="articles (default 100000)")
    parser.add_argument("--quick", action="store_true", help="10,000 articles; writes no file")
    parser.add_argument("--note", default="", help="a sentence for the results: what else ran")
    parser.add_argument("--output", type=Path, default=BENCH_DIR / "RESULTS.md")
    given = parser.parse_args(arguments)
    return Options(
        small=given.small,
        large=given.large or (10_000 if given.quick else 1_000_000),
        requests=given.requests or (50 if given.quick else 200),
        imported=given.imported or (5000 if given.quick else 100_000),
        note=given.note,
        output=None if given.quick else given.output,
    )


# --- the databases


def prepare_database(server: str, articles: int, say: Callable[[str], None]) -> str:
    """A database of so many articles: kept for the next run, and made anew where it is outdated."""
    name = _name(articles)
    url = make_url(server).set(database=name).render_as_string(hide_password=False)
    if not is_kept(server, articles):
        say(f"making a database of {articles:,} articles")
        execute(
            server,
            f"DROP DATABASE IF EXISTS {name} WITH (FORCE)",
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'"
            " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'",
        )
        migrate.upgrade(url)
        corpus.fill(url, articles=articles, say=say)
        execute(server, f"COMMENT ON DATABASE {name} IS '{_fingerprint()}'")
    return url


def is_kept(server: str, articles: int) -> bool:
    """Whether there is a database of so many articles that is not outdated."""
    comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{}'"
    made_from: str | None = execute(server, comment.format(_name(articles)))[0]
    return made_from == _fingerprint()


def _name(articles: int) -> str:
    return f"pressroom_content_{articles}"


def _fingerprint() -> str:
    """What a database is made from: the migrations and the corpus."""
    files = [*sorted((BACKEND_DIR / "alembic" / "versions").glob("*.py")), Path(corpus.__file__)]
    return hashlib.blake2b(b"".join(map(Path.read_bytes, files)), digest_size=12).hexdigest()


# --- asking


@contextmanager
def connected(server: Server) -> Iterator[Callable[[str], tuple[Any, str]]]:
    """One connection that is kept: asks for a path, and gives the answer and its Link header."""
    connection = HTTPConnection(HOST, server.port, timeout=60)

    def ask(path: str) -> tuple[Any, str]:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise BenchError(f"{path} is answered with {response.status}: {body[:300]!r}")
        return body, response.getheader("Link", "")

    try:
        yield ask
    finally:
        connection.close()


Ask = Callable[[str], tuple[Any, str]]


def next_page(link: str) -> str | None:
    """The path of the next page by a Link header (RFC 8288)."""
    found = [part.partition(">")[0].strip(" <") for part in link.split(",") if 'rel="next"' in part]
    return found[0] if found else None


def pages_from(ask: Ask, path: str, count: int) -> list[str]:
    """Paths of so many pages one after the other, the first of them `path`."""
    paths: list[str] = []
    current: str | None = path
    while current is not None and len(paths) < count:
        paths.append(current)
        current = next_page(ask(current)[1])
    return paths


def deep_pages(ask: Ask, articles: int) -> list[str]:
    """Paths of pages near the end of the list, found by walking there."""
    current = "/articles?limit=100&fields=id"
    for _ in range(int(articles * DEEP / 100)):
        turned = next_page(ask(current)[1])
        if turned is None:
            raise BenchError("the list is shorter than it should be")
        current = turned
    deep = current.replace("limit=100&fields=id", f"limit={PAGE}")
    return pages_from(ask, deep, PLACES)


def choose_workloads(asks: Sequence[Ask], options: Options) -> list[Workload]:
    """What is asked for; both servers are asked for as many articles."""
    first = f"/articles?limit={PAGE}"
    walks = [pages_from(ask, first, min(WALKED_PAGES, options.small // PAGE) + 1) for ask in asks]
    goal = f"ratio ≤ {SLOWER_BY}"
    deep = [
        deep_pages(ask, size)
        for ask, size in zip(asks, (options.small, options.large), strict=True)
    ]
    half = len(walks[0]) // 2
    slugs = [
        [
            f"/articles/by-slug/{article['slug']}"
            for path in (walk[1], walk[half])
            for article in json.loads(ask(path)[0])
        ]
        for ask, walk in zip(asks, walks, strict=True)
    ]

    def same(*paths: str) -> tuple[Sequence[str], Sequence[str]]:
        return paths, paths

    def pages(start: int) -> tuple[Sequence[str], Sequence[str]]:
        small, large = (walk[start : start + PLACES] for walk in walks)
        return small, large

    numbers = range(1, PLACES + 1)
    return [
        Workload("first page", same(first)),
        Workload("next page, at page 2", pages(1), goal),
        Workload(
            f"next page, at page {min(map(len, walks)) - PLACES}",
            pages(min(map(len, walks)) - PLACES),
            goal,
        ),
        Workload("next page, after nine tenths", (deep[0], deep[1]), goal),
        Workload("by tag", same(*(f"/articles?tag=tag-{number}" for number in numbers)), goal),
        Workload(
            "by author", same(*(f"/articles?author=author{number}" for number in numbers)), goal
        ),
        Workload("one by its slug", (slugs[0], slugs[1]), goal),
        Workload("search: in every article", same("/search?q=everywhere"), f"≤ {COMMON_MS} ms"),
        Workload("search: in half of them", same("/search?q=halfway"), f"≤ {COMMON_MS} ms"),
        Workload("search: in 5 %", same("/search?q=twentieth"), f"≤ {COMMON_MS} ms"),
        Workload("search: in 1 %", same("/search?q=hundredth"), f"≤ {COMMON_MS} ms"),
        Workload("search: in 0.1 %", same("/search?q=thousandth")),
        Workload("search: in ten of them", same("/search?q=tenfold"), f"≤ {RARE_MS} ms"),
        Workload("search: in none", same("/search?q=xyzzy"), f"≤ {RARE_MS} ms"),
        Workload("search: two that never meet", same("/search?q=evenly+oddly")),
        Workload("search: half, without half", same("/search?q=halfway+-evenly")),
        Workload("search: a phrase of two common", same('/search?q="halfway+everywhere"')),
        Workload("search: only in the older half", same("/search?q=bygone")),
        Workload("list: half of them, newest first", same("/articles?q=halfway&sort=newest")),
        Workload("list: half of them, of a tag", same("/articles?q=halfway&tag=tag-3")),
        Workload("suggest: one letter", same("/search/suggest?q=d")),
        Workload("suggest: a common beginning", same("/search/suggest?q=every")),
        Workload("suggest: a rare one", same("/search/suggest?q=tenf")),
        Workload("tags with counts", same("/tags?limit=20")),
    ]


def measure(asks: Sequence[Ask], workload: Workload, requests: int) -> Measured:
    """Ask both servers in turn for so many answers, after as many as it takes to be warm."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(-WARM_UP, requests):
        for ask, paths, taken in zip(asks, workload.paths, times, strict=True):
            path = paths[number % len(paths)].replace('"', "%22")
            started = time.perf_counter()
            ask(path)
            if number >= 0:
                taken.append((time.perf_counter() - started) * 1000)
    return Measured(workload, *times)


# --- all of it

HEADINGS: Final = ["what", "small, ms", "large, ms", "large, 95 %", "ratio", "goal"]
BULK_HEADINGS: Final = ["what", "articles", "per second", "MiB at a tenth", "MiB at most", "goal"]


def run(
    options: Options, say: Callable[[str], None]
) -> tuple[list[Measured], list[bulk.Done], str]:
    """Measure everything; also says in which conditions."""
    busy = psutil.cpu_percent(interval=2)
    settings = get_settings()
    server_url = settings.database_url or embedded.start(settings.data_dir / "bench" / "postgres")
    urls = [prepare_database(server_url, size, say) for size in (options.small, options.large)]
    environment = {**SERVER_ENVIRONMENT, "SECRET_KEY": secrets.token_hex(32)}
    with ExitStack() as running:
        servers = [
            running.enter_context(
                serving(
                    f"Pressroom with {size:,} articles",
                    "app.main:create_app()",
                    "/health/ready",
                    {**environment, "DATABASE_URL": url, "DATABASE_READ_URL": url},
                )
            )
            for size, url in zip((options.small, options.large), urls, strict=True)
        ]
        asks = [running.enter_context(connected(server)) for server in servers]
        say("finding the pages to ask for")
        measured = []
        for workload in choose_workloads(asks, options):
            measured.append(measure(asks, workload, options.requests))
            say("  ".join(measured[-1].row()))
        done = bulk.measure(
            server_url,
            servers[1],
            urls[1],
            environment=environment,
            imported=options.imported,
            say=say,
        )
    (postgres,) = execute(urls[1], "SHOW server_version")
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": describe_machine(),
        "versions": describe_versions(None, str(postgres)),
        "data": f"{options.small:,} and {options.large:,} articles of 1.5 KB in two languages",
        "requests": f"{options.requests} of each sort, one connection to each server, in turn",
        "other load": f"{busy:.0f} % of all CPUs busy before anything was started, "
        f"load average {os.getloadavg()[2]:.1f} over the last 15 minutes",
    }
    if options.note:
        facts["note"] = options.note
    return measured, done, "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write the section. Raises BenchError."""
    options = parse_options(arguments)
    measured, done, facts = run(options, lambda line: print(line, flush=True))
    rows, bulk_rows = [each.row() for each in measured], [each.row() for each in done]
    print(f"\n{text_table(HEADINGS, rows)}\n\n{text_table(BULK_HEADINGS, bulk_rows)}")
    if options.output is None:
        return
    section = "\n\n".join(
        [
            HEADING,
            "Written by `make bench ARGS=content`.",
            facts,
            markdown_table(HEADINGS, rows),
            "Medians of answers over HTTP; a ratio is the large blog's divided by the small one's.",
            "### Import and export",
            markdown_table(BULK_HEADINGS, bulk_rows),
        ]
    )
    keep_section(options.output, HEADING, section)
    print(f"written: {options.output.name}")
