# ruff: noqa: T201 - a script: it prints to the terminal
"""Compare lists, search, import and export for two sizes of the blog.

    make bench ARGS=content                    writes its section of bench/RESULTS.md
    make bench ARGS="content --quick"          10,000 instead of 1,000,000 articles; prints only

Requests alternate between the two servers, so that other load affects both. See bench/README.md.
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
from report import describe_machine, describe_versions, markdown_table, text_table, write_section
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
DEEP_FRACTION: Final = 0.9
"""The fraction of the list before the deep pages."""
PAGES_PER_WORKLOAD: Final = 8
WARM_UP: Final = 30
MAX_SLOWDOWN: Final = 1.5
COMMON_MS, RARE_MS = 150, 20


@dataclass(frozen=True)
class Options:
    """The sizes of the measurement, and the output file."""

    small: int
    large: int
    requests: int
    imported: int
    note: str
    output: Path | None


@dataclass(frozen=True)
class Workload:
    """Paths for both servers, requested in turn, and the goal in words."""

    name: str
    paths: tuple[Sequence[str], Sequence[str]]
    goal: str = ""
    method: str = "GET"
    is_authenticated: bool = False
    """Whether an administrator sends the requests, who follows half of the authors."""


@dataclass(frozen=True)
class Comparison:
    """Response times of the small and of the large blog, in milliseconds, as pairs."""

    workload: Workload
    small: Sequence[float]
    large: Sequence[float]

    @property
    def ratio(self) -> float:
        """Return the median of the large blog, divided by that of the small one."""
        return median(self.large) / median(self.small)

    def row(self) -> list[str]:
        """Return a row of the table."""
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
    parser.add_argument("--requests", type=int, help="of each kind (default 200)")
    parser.add_argument("--import", type=int, dest="imported", help="articles (default 100000)")
    parser.add_argument("--quick", action="store_true", help="10,000 articles; writes no file")
    parser.add_argument("--note", default="", help="a note for the results, such as other load")
    parser.add_argument("--output", type=Path, default=BENCH_DIR / "RESULTS.md")
    parsed = parser.parse_args(arguments)
    return Options(
        small=parsed.small,
        large=parsed.large or (10_000 if parsed.quick else 1_000_000),
        requests=parsed.requests or (50 if parsed.quick else 200),
        imported=parsed.imported or (5000 if parsed.quick else 100_000),
        note=parsed.note,
        output=None if parsed.quick else parsed.output,
    )


# --- the databases


def prepare_database(server: str, articles: int, log: Callable[[str], None]) -> str:
    """Return the URL of a database of this size. An outdated one is recreated."""
    name = _name(articles)
    url = make_url(server).set(database=name).render_as_string(hide_password=False)
    if not is_kept(server, articles):
        log(f"creating a database of {articles:,} articles")
        execute(
            server,
            f"DROP DATABASE IF EXISTS {name} WITH (FORCE)",
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'"
            " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'",
        )
        migrate.upgrade(url)
        corpus.fill(url, articles=articles, log=log)
        execute(server, f"COMMENT ON DATABASE {name} IS '{_fingerprint()}'")
    return url


def is_kept(server: str, articles: int) -> bool:
    """Return whether there is an up-to-date database with this number of articles."""
    comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{}'"
    made_from: str | None = execute(server, comment.format(_name(articles)))[0]
    return made_from == _fingerprint()


def _name(articles: int) -> str:
    return f"pressroom_content_{articles}"


def _fingerprint() -> str:
    """Return a hash of the sources of a database: the migrations and the corpus."""
    files = [*sorted((BACKEND_DIR / "alembic" / "versions").glob("*.py")), Path(corpus.__file__)]
    return hashlib.blake2b(b"".join(map(Path.read_bytes, files)), digest_size=12).hexdigest()


# --- requests


Fetch = Callable[..., tuple[Any, str]]
ANONYMOUS: Final = Workload("", ((), ()))


@contextmanager
def connected(server: Server) -> Iterator[Fetch]:
    """Yield a function that fetches a path with a persistent connection: body and Link header."""
    connection = HTTPConnection(HOST, server.port, timeout=60)
    authorization = {"Authorization": bulk.log_in(server)}

    def fetch(path: str, workload: Workload = ANONYMOUS) -> tuple[Any, str]:
        headers = authorization if workload.is_authenticated else {}
        connection.request(workload.method, path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise BenchError(f"{path} returned {response.status}: {body[:300]!r}")
        return body, response.getheader("Link", "")

    try:
        yield fetch
    finally:
        connection.close()


def next_page(link: str) -> str | None:
    """Return the path of the next page in a Link header (RFC 8288)."""
    found = [part.partition(">")[0].strip(" <") for part in link.split(",") if 'rel="next"' in part]
    return found[0] if found else None


def pages_from(fetch: Fetch, path: str, count: int) -> list[str]:
    """Return the paths of up to `count` consecutive pages, starting with `path`."""
    paths: list[str] = []
    current: str | None = path
    while current is not None and len(paths) < count:
        paths.append(current)
        current = next_page(fetch(current)[1])
    return paths


def deep_pages(fetch: Fetch, articles: int) -> list[str]:
    """Return the paths of pages near the end of the list, by following the links."""
    current = "/articles?limit=100&fields=id"
    for _ in range(int(articles * DEEP_FRACTION / 100)):
        following = next_page(fetch(current)[1])
        if following is None:
            raise BenchError("the list is too short")
        current = following
    deep = current.replace("limit=100&fields=id", f"limit={PAGE}")
    return pages_from(fetch, deep, PAGES_PER_WORKLOAD)


def choose_workloads(fetchers: Sequence[Fetch], options: Options) -> list[Workload]:
    """Return the workloads. Both servers return the same number of articles."""
    first = f"/articles?limit={PAGE}"
    walks = [
        pages_from(fetch, first, min(WALKED_PAGES, options.small // PAGE) + 1) for fetch in fetchers
    ]
    goal = f"ratio ≤ {MAX_SLOWDOWN}"
    deep = [
        deep_pages(fetch, size)
        for fetch, size in zip(fetchers, (options.small, options.large), strict=True)
    ]
    half = len(walks[0]) // 2
    slugs = [
        [
            f"/articles/by-slug/{article['slug']}"
            for path in (walk[1], walk[half])
            for article in json.loads(fetch(path)[0])
        ]
        for fetch, walk in zip(fetchers, walks, strict=True)
    ]

    def same(*paths: str) -> tuple[Sequence[str], Sequence[str]]:
        return paths, paths

    def pages(start: int) -> tuple[Sequence[str], Sequence[str]]:
        small, large = (walk[start : start + PAGES_PER_WORKLOAD] for walk in walks)
        return small, large

    numbers = range(1, PAGES_PER_WORKLOAD + 1)
    return [
        Workload("first page", same(first)),
        Workload("next page, at page 2", pages(1), goal),
        Workload(
            f"next page, at page {min(map(len, walks)) - PAGES_PER_WORKLOAD}",
            pages(min(map(len, walks)) - PAGES_PER_WORKLOAD),
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
        Workload("list: 5 %, of a rare tag", same("/articles?q=twentieth&tag=tag-900"), goal),
        Workload("list: with its total", same(f"{first}&count=true"), goal),
        Workload("list: favorites of a user", same("/articles?favorited_by=author7"), goal),
        Workload("list: by title", same(f"{first}&sort=title"), goal),
        Workload("tags with counts", same("/tags?limit=20"), goal),
        Workload("tags by their counts", same("/tags?limit=20&sort=count"), goal),
        Workload("tags with a prefix", same("/tags?limit=20&q=tag-7"), goal),
        Workload(
            "comments of an article", same(*(f"/articles/{n}/comments" for n in (500, 501))), goal
        ),
        Workload("a profile", same("/profiles/author3"), goal),
        Workload("changes, far behind", same("/changes"), goal),
        Workload("Atom feed", same("/atom.xml"), goal),
        Workload("sitemap, of up to 50,000 articles", same("/sitemap.xml")),
        *(
            Workload(name, same(path), goal, method, is_authenticated=True)
            for name, method, path in (
                ("feed of followed authors", "GET", "/feed"),
                ("feed, far behind", "GET", "/feed?skip=1000&limit=20"),
                ("followed authors", "GET", f"/profiles/{corpus.ADMIN}/following"),
                ("comments to moderate", "GET", "/comments?status=pending"),
                ("trash", "GET", "/trash"),
                ("reports", "GET", "/reports"),
                ("own articles", "GET", "/articles?status=draft"),
                ("users", "GET", "/users"),
                ("HEAD of an export", "HEAD", "/articles/export"),
            )
        ),
    ]


def measure(fetchers: Sequence[Fetch], workload: Workload, requests: int) -> Comparison:
    """Send `requests` requests to each server in turn, after the warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(-WARM_UP, requests):
        for fetch, paths, durations in zip(fetchers, workload.paths, times, strict=True):
            path = paths[number % len(paths)].replace('"', "%22")
            started = time.perf_counter()
            fetch(path, workload)
            if number >= 0:
                durations.append((time.perf_counter() - started) * 1000)
    return Comparison(workload, *times)


# --- the benchmark

HEADINGS: Final = ["what", "small, ms", "large, ms", "large, 95 %", "ratio", "goal"]
BULK_HEADINGS: Final = ["what", "articles", "per second", "MiB at a tenth", "MiB at most", "goal"]


def run(
    options: Options, log: Callable[[str], None]
) -> tuple[list[Comparison], list[bulk.BulkResult], str]:
    """Measure everything. Return the results and a description of the conditions."""
    busy = psutil.cpu_percent(interval=2)
    settings = get_settings()
    server_url = settings.database_url or embedded.start(settings.data_dir / "bench" / "postgres")
    urls = [prepare_database(server_url, size, log) for size in (options.small, options.large)]
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
        fetchers = [running.enter_context(connected(server)) for server in servers]
        log("finding the pages to request")
        comparisons = []
        for workload in choose_workloads(fetchers, options):
            comparisons.append(measure(fetchers, workload, options.requests))
            log("  ".join(comparisons[-1].row()))
        bulk_results = bulk.measure(
            server_url,
            servers[1],
            urls[1],
            environment=environment,
            imported=options.imported,
            log=log,
        )
    (postgres,) = execute(urls[1], "SHOW server_version")
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": describe_machine(),
        "versions": describe_versions(None, str(postgres)),
        "data": f"{options.small:,} and {options.large:,} articles of 1.5 KB in two languages;"
        f" per article {corpus.COMMENTS_PER_ARTICLE} comments and a favorite",
        "requests": f"{options.requests} of each kind, one connection per server, in turn",
        "other load": f"{busy:.0f} % of all CPUs busy before anything was started, "
        f"load average {os.getloadavg()[2]:.1f} over the last 15 minutes",
    }
    if options.note:
        facts["note"] = options.note
    return comparisons, bulk_results, "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write the section. Raises BenchError."""
    options = parse_options(arguments)
    comparisons, bulk_results, facts = run(options, lambda line: print(line, flush=True))
    rows, bulk_rows = [each.row() for each in comparisons], [each.row() for each in bulk_results]
    print(f"\n{text_table(HEADINGS, rows)}\n\n{text_table(BULK_HEADINGS, bulk_rows)}")
    if options.output is None:
        return
    section = "\n\n".join(
        [
            HEADING,
            "Written by `make bench ARGS=content`.",
            facts,
            markdown_table(HEADINGS, rows),
            "Medians of response times. A ratio is the large blog's divided by the small one's.",
            "### Import and export",
            markdown_table(BULK_HEADINGS, bulk_rows),
        ]
    )
    write_section(options.output, HEADING, section)
    print(f"written: {options.output.name}")
