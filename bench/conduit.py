# ruff: noqa: T201 - a script: it prints to the terminal
"""Compare the RealWorld API's lists with the native ones, for the same articles and worker.

make bench ARGS=conduit           two minutes; writes its section of RESULTS.md

The user follows a third of the authors, and a seventh of the articles are favorites.
"""

import secrets
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, Final

from app.core.config import get_settings
from app.db import embedded, migrate
from load import Generator
from options import parse_options
from report import (
    Measurement,
    Request,
    Workload,
    describe_machine,
    describe_versions,
    markdown_table,
    text_table,
    write_section,
)
from servers import (
    SERVER_ENVIRONMENT,
    BenchError,
    Server,
    execute,
    scratch_database,
    seed,
    serving,
)
from workloads import PAGE, open_sessions, size_of

HEADING: Final = "## The RealWorld API"
INTRODUCTION: Final = """\
Written by `make bench ARGS=conduit`: the newest 20 of 9,000 articles. The RealWorld API's lists
contain the total count, and for each article whether the user follows its author and likes it."""
MIN_RATIO: Final = 0.8
COMMUNITY: Final = """
    INSERT INTO follows SELECT reader.id, author.id, now() FROM users AS reader, users AS author
    WHERE reader.username = 'writer1' AND author.id % 3 = 0 AND author.id <> reader.id;
    INSERT INTO favorites SELECT reader.id, articles.id, now() FROM users AS reader, articles
    WHERE reader.username = 'writer1' AND articles.id % 7 = 0
      OR reader.username LIKE 'writer%0' AND articles.id % 10 = 0;
    ANALYZE
"""
"""The user `writer1` logs in first."""
NATIVE, CONDUIT = "native", "RealWorld"
AUTHENTICATED, ANONYMOUS, FEED = "list, with a bearer token", "list, anonymous", "feed"
LISTS_WITH_GOAL: Final = frozenset({AUTHENTICATED, ANONYMOUS})
LISTS: Final = {
    AUTHENTICATED: ("/articles", "/api/articles", True),
    ANONYMOUS: ("/articles", "/api/articles", False),
    FEED: ("/feed", "/api/articles/feed", True),
}


def measure(
    wrk: str, *, rounds: int, seconds: int, connections: int, log: Callable[[str], None]
) -> tuple[dict[tuple[str, str], list[Measurement]], str]:
    """Return the measurements by list and API, and a description of PostgreSQL."""
    settings = get_settings()
    measured: dict[tuple[str, str], list[Measurement]] = {}
    with ExitStack() as running:
        server_url = settings.database_url or embedded.start(
            settings.data_dir / "bench" / "postgres"
        )
        url = running.enter_context(scratch_database(server_url))
        migrate.upgrade(url)
        log(f"seeded in {seed(url):.1f} s")
        execute(url, *COMMUNITY.split(";"))
        environment = {**SERVER_ENVIRONMENT, "SECRET_KEY": secrets.token_hex(32)}
        environment |= {"DATABASE_URL": url, "DATABASE_READ_URL": url}
        server = running.enter_context(
            serving("Pressroom", "app.main:create_app()", "/health/ready", environment)
        )
        open_sessions(server)
        server.access_tokens[1:] = []  # only the token of `writer1`
        turns = [
            (name, api, _workload(server, path, connections, is_authenticated=is_authenticated))
            for name, (native, conduit, is_authenticated) in LISTS.items()
            for api, path in ((NATIVE, native), (CONDUIT, conduit))
        ]
        generator = Generator(wrk)
        for _, _, workload in turns:
            generator.warm_up(server, workload, 1)
        for number in range(1, rounds + 1):
            for name, api, workload in turns if number % 2 else turns[::-1]:
                measurement = generator.measure(server, workload, seconds, number)
                measured.setdefault((name, api), []).append(measurement)
                log(f"round {number}/{rounds}  {name:<28}{api:<12}{measurement.rate:>8,.0f}/s")
    return measured, "as DATABASE_URL's server is" if settings.database_url else "embedded, durable"


def _verdict(name: str, ratio: float) -> str:
    """Return whether the goal is met. It applies to lists only: feeds differ for each user."""
    if name not in LISTS_WITH_GOAL:
        return "no goal"
    return "pass" if ratio >= MIN_RATIO else "FAIL"


def _workload(server: Server, path: str, connections: int, *, is_authenticated: bool) -> Workload:
    """Return the workload for a list. Raises BenchError if its length is wrong."""
    authorization = server.authorization() if is_authenticated else ""
    status, body = server.request("GET", path, authorization=authorization)
    articles: Any = body.count(b'"author"')
    if status != 200 or articles != PAGE:
        raise BenchError(f"{path} returned {status} with {articles} articles")
    return Workload(
        path, [Request(path)], size_of(body), connections, is_authenticated=is_authenticated
    )


def main(arguments: Sequence[str], wrk: str) -> None:
    """Measure, print, and write the section. Raises BenchError."""
    what = __doc__.partition("\n")[0]
    options = parse_options(arguments, what=what, full=(5, 3), quick=(1, 1))
    measured, postgres = measure(
        wrk,
        rounds=options.rounds,
        seconds=options.seconds,
        connections=options.connections,
        log=lambda line: print(line, flush=True),
    )
    headings = ("what", "native /s", "RealWorld /s", "ratio (min to max)", f"≥ {MIN_RATIO}")
    rows = []
    for name in LISTS:
        ours, theirs = measured[name, CONDUIT], measured[name, NATIVE]
        ratios = [one.rate / other.rate for one, other in zip(ours, theirs, strict=True)]
        median_ratio = statistics.median(ratios)
        rows.append(
            [
                name,
                f"{statistics.median(each.rate for each in theirs):,.0f}",
                f"{statistics.median(each.rate for each in ours):,.0f}",
                f"{median_ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                _verdict(name, median_ratio),
            ]
        )
    print(f"\n{text_table(headings, rows)}")
    if options.quick:
        return
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": describe_machine(),
        "versions": describe_versions(wrk, postgres),
        "rounds": f"{options.rounds}, of {options.seconds} s, {options.connections} connections",
    }
    if options.note:
        facts["note"] = options.note
    section = "\n\n".join(
        [
            HEADING,
            INTRODUCTION,
            "\n".join(f"- {name}: {fact}" for name, fact in facts.items()),
            markdown_table(headings, rows),
        ]
    )
    write_section(options.output, HEADING, section)
    print(f"written: {options.output.name}")
