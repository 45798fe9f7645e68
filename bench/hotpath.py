# ruff: noqa: T201 - a script: it prints to the terminal
"""Measure the most frequent reads, from a static file to the complete application behind nginx.

    make bench                        under ten minutes; writes its section of RESULTS.md and a plot
    make bench-quick                  under a minute; prints only, and compares with recorded.json

The quick run has a fifth of the articles, and leaves out nginx, the storm of logins, memory and
start. It fails if the servers answer differently, or if Pressroom's share of the ceiling is below
half of the recorded one.

All servers are measured in turn in each round, with the same machine, rows and PostgreSQL. Compare
the ratios of a round. See bench/README.md.
"""

import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

import psutil

import content
import edge
import plot
from app.core.config import BACKEND_DIR, get_settings
from app.db import embedded, migrate
from load import Generator
from options import Options, parse_options
from report import (
    MAX_SLOWDOWN,
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
    ARTICLES,
    BENCH_DIR,
    QUICK_ARTICLES,
    SERVER_ENVIRONMENT,
    BenchError,
    Server,
    children,
    pinned_worker,
    scratch_database,
    seed,
    serving,
)
from storm import STORM_CONNECTIONS, STORM_READERS, measure_storm
from workloads import PAGE, compare_json, login_workload, open_sessions, size_of

HEADING: Final = "## The hot path"
PLOT: Final = "hotpath.svg"
RECORDED: Final = BENCH_DIR / "recorded.json"
"""Pressroom's share of the ceiling in the last complete run, by CPU time, for each workload."""
TOLERATED: Final = 0.5
"""The fraction of the recorded share that a quick run must reach."""
LIST, ONE = "list", "one"
LIST_PATH: Final = "/articles"
CONNECTIONS: Final = (1, 4, 16, 64, 256)
TABLE_SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
MIXED_REQUESTS: Final = 200_000
MAX_MEGABYTES: Final = 150
FLAT: Final = 1.1
"""Memory is flat if the second half of the requests increases it by less than a tenth."""
MAX_START_SECONDS: Final = 1.5
MEMORY_STEPS: Final = 4


@dataclass(frozen=True)
class Line:
    """A row of the table: a server and its two workloads."""

    name: str
    server: Server
    workloads: Mapping[str, Workload]


@dataclass(frozen=True)
class Goal:
    """A goal and its result."""

    name: str
    wanted: str
    found: str
    is_met: bool


@dataclass
class Results:
    """The results of a run."""

    lines: list[str] = field(default_factory=list)
    measured: dict[tuple[str, str], list[Measurement]] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    memory: list[tuple[int, float, float]] = field(default_factory=list)
    charts: list[plot.Chart] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def median(self, line: str, workload: str) -> float:
        """Return the median of the responses per second."""
        return statistics.median(each.rate for each in self.measured[line, workload])

    def ratio(self, line: str, other: str, workload: str) -> tuple[float, float, float]:
        """Return the ratio of two rates: median, minimum and maximum of the rounds."""
        pairs = zip(self.measured[line, workload], self.measured[other, workload], strict=True)
        ratios = [ours.rate / theirs.rate for ours, theirs in pairs]
        return statistics.median(ratios), min(ratios), max(ratios)

    def cpu_share(self, workload: str) -> float:
        """Return the ceiling's CPU time per response, divided by Pressroom's.

        Each is the minimum of the rounds, because other load on the machine only increases it.
        """
        least = {
            line: min(each.cpu_ms for each in self.measured[line, workload])
            for line in (PRESSROOM, CEILING)
        }
        return least[CEILING] / least[PRESSROOM]


STATIC = "nginx, the same bytes as a static file"
MEMORY = "Starlette, the same bytes from memory"
CEILING = "Starlette + raw asyncpg + orjson (the data ceiling)"
FASTAPI = "FastAPI + raw asyncpg + orjson"
PRESSROOM = "Pressroom, anonymous"
TOKEN = "Pressroom, with a bearer token"  # noqa: S105 - a line's name
CACHED = "Pressroom through nginx, cached"
UNCACHED = "Pressroom through nginx, uncached"


Log = Callable[[str], None]


def run(options: Options, wrk: str, log: Log) -> tuple[Results, str]:
    """Start the servers, measure, and stop them. Return the results and the conditions."""
    results = Results()
    busy = psutil.cpu_percent(interval=0.1 if options.quick else 2)
    settings = get_settings()
    with ExitStack() as running:
        server_url = settings.database_url or embedded.start(
            settings.data_dir / "bench" / "postgres"
        )
        url = running.enter_context(scratch_database(server_url))
        migrate.upgrade(url)
        articles = QUICK_ARTICLES if options.quick else ARTICLES
        log(f"seeded {articles:,} articles in {seed(url, articles):.1f} s")
        environment = {**SERVER_ENVIRONMENT, "SECRET_KEY": secrets.token_hex(32)}
        environment |= {"DATABASE_URL": url, "DATABASE_READ_URL": url}
        started = {
            name: running.enter_context(serving(name, application, probe, environment))
            for name, application, probe in (
                (PRESSROOM, "app.main:create_app()", "/health/ready"),
                (CEILING, "reference:app", "/articles?limit=1"),
                (FASTAPI, "reference:fast_app", "/articles?limit=1"),
                (MEMORY, "reference:memory_app", "/articles?limit=1"),
            )
            if not options.quick or name in {PRESSROOM, CEILING}
        }
        # A quick run compares CPU times, on which other load has little effect.
        generator = Generator(wrk, pause_seconds=0) if options.quick else Generator(wrk)
        lines = _lines(running, started, options, results)
        _check(lines)
        log("all responses are equal; warming up")
        _measure_rounds(generator, lines, options, results, log)
        ours = started[PRESSROOM]
        by_name = {line.name: line for line in lines}
        if not options.quick:
            _measure_storm(
                generator, by_name[TOKEN], url=url, options=options, results=results, log=log
            )
            _measure_connections(generator, by_name, results, log)
            _measure_memory(generator, ours, by_name, results, log)
    if not options.quick:
        _measure_start(results, 3, environment, log)
        _measure_sizes(Generator(wrk), server_url, environment, results, log)
    _add_ratio_goals(results)
    postgres = "as DATABASE_URL's server is" if settings.database_url else "embedded, durable"
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": describe_machine(),
        "versions": describe_versions(wrk, postgres),
        "rounds": f"{options.rounds}, of {options.seconds} s, {options.connections} connections",
        "other load": f"{busy:.0f} % of all CPUs busy before anything was started",
    }
    if options.note:
        facts["note"] = options.note
    if results.skipped:
        facts["skipped"] = "; ".join(results.skipped)
    return results, "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def _lines(
    running: ExitStack, started: Mapping[str, Server], options: Options, results: Results
) -> list[Line]:
    """Return the rows of the table, those of nginx only if it is available."""
    ours = started[PRESSROOM]
    page = compare_json(ours, started[CEILING], f"{LIST_PATH}?skip=1000&limit={PAGE}")
    one_path = f"/articles/{page[0]['id']}"
    paths = {LIST: LIST_PATH, ONE: one_path}
    bodies = {name: ours.request("GET", path)[1] for name, path in paths.items()}
    workloads = {
        name: Workload(name, [Request(path)], size_of(bodies[name]), options.connections)
        for name, path in paths.items()
    }
    with_token = {name: replace(each, is_authenticated=True) for name, each in workloads.items()}
    open_sessions(ours)
    lines = [Line(name, server, workloads) for name, server in started.items()]
    lines.append(Line(TOKEN, ours, with_token))
    if options.quick:
        return lines
    if problem := edge.why_no_nginx():
        results.skipped.append(f"nginx: {problem}")
        return lines
    proxy, files = running.enter_context(
        edge.edge(ours, {f"{name}.json": body for name, body in bodies.items()})
    )
    static = {
        name: replace(each, requests=[Request(f"/{name}.json")]) for name, each in workloads.items()
    }
    uncached = {name: replace(each, header="Cookie: bench=1") for name, each in workloads.items()}
    lines.append(Line(STATIC, files, static))
    lines.append(Line(CACHED, proxy, workloads))
    lines.append(Line(UNCACHED, proxy, uncached))
    return lines


def _check(lines: Sequence[Line]) -> None:
    """Raise BenchError unless all servers return the same article and the same list."""
    ours = next(line for line in lines if line.name == PRESSROOM)
    for line in lines:
        for name, workload in line.workloads.items():
            if line.name in {PRESSROOM, TOKEN}:
                continue
            path, own = workload.requests[0].path, ours.workloads[name].requests[0].path
            if line.name == STATIC:
                status, body = line.server.request("GET", path)
                if (status, body) != (200, ours.server.request("GET", own)[1]):
                    raise BenchError(f"{line.name} differs from {own}")
            else:
                compare_json(ours.server, line.server, path)


def _measure_rounds(
    generator: Generator, lines: Sequence[Line], options: Options, results: Results, log: Log
) -> None:
    results.lines = [line.name for line in lines]
    turns = [(line, name, each) for line in lines for name, each in line.workloads.items()]
    for line, _, workload in turns:
        generator.warm_up(line.server, workload, 1)
    for number in range(1, options.rounds + 1):
        for line, name, workload in turns if number % 2 else turns[::-1]:
            done = generator.measure(line.server, workload, options.seconds, number)
            results.measured.setdefault((line.name, name), []).append(done)
            log(
                f"round {number}/{options.rounds}  {name:<5}{line.name:<52}"
                f"{done.rate:>9,.0f}/s  p99 {done.p99_ms:.1f} ms"
            )


def _measure_storm(
    generator: Generator,
    reads: Line,
    *,
    url: str,
    options: Options,
    results: Results,
    log: Log,
) -> None:
    server = reads.server
    local = None if get_settings().database_url else url
    with pinned_worker(server, database_url=local):
        rounds = measure_storm(
            generator,
            server,
            replace(reads.workloads[ONE], connections=STORM_READERS),
            login_workload(STORM_CONNECTIONS, 100),
            url=url,
            rounds=min(options.rounds, 5),
            seconds=options.seconds,
            log=log,
        )
    slowdown = statistics.median(each.slowdown for each in rounds)
    results.goals.append(
        Goal(
            "p99 of reads during a storm of 16 logins",
            f"≤ {MAX_SLOWDOWN} of without",
            f"{slowdown:.2f} ({min(each.slowdown for each in rounds):.2f} to"
            f" {max(each.slowdown for each in rounds):.2f})",
            slowdown <= MAX_SLOWDOWN,
        )
    )


def _measure_connections(
    generator: Generator, lines: Mapping[str, Line], results: Results, log: Log
) -> None:
    rates: dict[str, dict[float, float]] = {}
    slowest: dict[str, dict[float, float]] = {}
    for line, label in ((PRESSROOM, "Pressroom"), (CEILING, "ceiling")):
        for name, workload in lines[line].workloads.items():
            for connections in CONNECTIONS:
                varied = replace(workload, connections=connections)
                done = generator.measure(lines[line].server, varied, 2, 0)
                rates.setdefault(f"{name}, {label}", {})[connections] = done.rate
                slowest.setdefault(f"{name}, {label}", {})[connections] = done.p99_ms
                log(f"{name}, {label}, {connections} connections: {done.rate:,.0f}/s")
    results.charts += [
        plot.Chart("Throughput by connections", "connections", "responses per second", rates),
        plot.Chart("p99 by connections", "connections", "milliseconds", slowest),
    ]


def _measure_memory(
    generator: Generator, server: Server, lines: Mapping[str, Line], results: Results, log: Log
) -> None:
    """Measure the memory of a worker during 200,000 requests of several kinds."""
    anonymous, with_token = lines[PRESSROOM].workloads, lines[TOKEN].workloads
    mixed = [anonymous[ONE], with_token[ONE], anonymous[LIST]]
    others = ["/tags", "/feed.xml", "/search?q=harbour&limit=5", "/users?limit=5", "/no-such-page"]
    (worker,) = children(server.pid)
    done, rest = 0, [Request(path) for path in others]

    def note() -> None:
        memory = worker.memory_full_info()
        results.memory.append((done, memory.rss / 2**20, memory.uss / 2**20))
        log(f"after {done:,} requests: {memory.rss / 2**20:.0f} MB")

    note()
    while done < MIXED_REQUESTS:
        goal = done + MIXED_REQUESTS // MEMORY_STEPS
        while done < goal:
            for workload in mixed:
                seconds = 1 if workload.name == LIST else 3
                done += generator.drive(server, workload, seconds)["requests"]
            varied = Workload("others", rest[:-1], 20, 16)
            done += generator.drive(server, varied, 1)["requests"]
            server.request("GET", rest[-1].path)
            done += 1
        note()
    most = max(rss for _, rss, _ in results.memory)
    half, end = results.memory[MEMORY_STEPS // 2][1], results.memory[-1][1]
    results.goals.append(
        Goal(
            "memory of one worker after 200,000 mixed requests",
            f"≤ {MAX_MEGABYTES} MB and flat",
            f"{most:.0f} MB at most; {half:.0f} MB after half, {end:.0f} MB at the end",
            most <= MAX_MEGABYTES and end <= half * FLAT,
        )
    )


def _measure_start(results: Results, times: int, environment: Mapping[str, str], log: Log) -> None:
    """Measure the time to the first response, and of the import by `python -X importtime`."""
    starts, imports = [], []
    for _ in range(times):
        started = time.monotonic()
        unreachable = {"DATABASE_URL": "postgresql+asyncpg://nobody@127.0.0.1:1/none"}
        unreachable_environment = {**environment, **unreachable, "DATABASE_READ_URL": ""}
        with serving("start", "app.main:create_app()", "/health/live", unreachable_environment):
            starts.append(time.monotonic() - started)
        output = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", "import app.main"],
            cwd=BACKEND_DIR,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        total = next(line for line in output.splitlines()[::-1] if line.endswith("app.main"))
        imports.append(int(total.split("|")[1]) / 1e6)
    start, imported = statistics.median(starts), statistics.median(imports)
    log(f"cold start {start:.2f} s, of which the import {imported:.2f} s")
    results.goals.append(
        Goal(
            "import of the app, cold start to first answer",
            f"≤ {MAX_START_SECONDS} s",
            f"{start:.2f} s; `-X importtime` of app.main {imported:.2f} s",
            start <= MAX_START_SECONDS,
        )
    )


def _measure_sizes(
    generator: Generator,
    server_url: str,
    environment: Mapping[str, str],
    results: Results,
    log: Log,
) -> None:
    """Measure the same reads for the table sizes of the content benchmark."""
    rates: dict[str, dict[float, float]] = {}
    slowest: dict[str, dict[float, float]] = {}
    for size in TABLE_SIZES:
        if size > TABLE_SIZES[2] and not content.is_kept(server_url, size):
            results.skipped.append(
                f"a table of {size:,} articles: `make bench ARGS=content` creates it in ten minutes"
            )
            continue
        with _reading_of(server_url, size, environment, log) as server:
            newest = server.get_json(LIST_PATH)[0]["id"]
            for name, path in ((LIST, LIST_PATH), (ONE, f"/articles/{newest}")):
                workload = Workload(name, [Request(path)], 500, 32)
                generator.warm_up(server, workload, 1)
                done = generator.measure(server, workload, 2, 0)
                rates.setdefault(name, {})[size] = done.rate
                slowest.setdefault(name, {})[size] = done.p99_ms
                log(f"{name} of {size:,}: {done.rate:,.0f}/s, p99 {done.p99_ms:.1f} ms")
    results.charts += [
        plot.Chart("Throughput by table size", "articles", "responses per second", rates),
        plot.Chart("p99 by table size", "articles", "milliseconds", slowest),
    ]


@contextmanager
def _reading_of(
    server_url: str, size: int, environment: Mapping[str, str], log: Log
) -> Iterator[Server]:
    url = content.prepare_database(server_url, size, log)
    address = {"DATABASE_URL": url, "DATABASE_READ_URL": url}
    with serving(
        f"{size:,}", "app.main:create_app()", "/health/ready", {**environment, **address}
    ) as server:
        yield server


def _compare_with_recorded(results: Results) -> None:
    """Raise BenchError if a workload's share of the ceiling is far below the recorded one."""
    for workload, recorded in json.loads(RECORDED.read_text()).items():
        share, least = results.cpu_share(workload), TOLERATED * recorded
        if share < least:
            raise BenchError(
                f"{workload}: Pressroom's share of the ceiling is {share:.2f}; at least"
                f" {least:.2f} is expected, half of the recorded {recorded:.2f}"
            )


def _add_ratio_goals(results: Results) -> None:
    """Add the goals for ratios in the table."""
    goals = []

    def add(name: str, line: str, other: str, workload: str, least: float) -> None:
        if (line, workload) in results.measured and (other, workload) in results.measured:
            middle, low, high = results.ratio(line, other, workload)
            found = f"{middle:.2f} ({low:.2f} to {high:.2f})"
            goals.append(Goal(name, f"≥ {least}", found, middle >= least))

    add("list of 20, anonymous, of the data ceiling", PRESSROOM, CEILING, LIST, 0.45)
    add("one article, anonymous, of the data ceiling", PRESSROOM, CEILING, ONE, 0.35)
    add("list with a bearer token, of the anonymous one", TOKEN, PRESSROOM, LIST, 0.6)
    add("one with a bearer token, of the anonymous one", TOKEN, PRESSROOM, ONE, 0.6)
    add("list through nginx, cached, of a static file", CACHED, STATIC, LIST, 0.5)
    add("one through nginx, cached, of a static file", CACHED, STATIC, ONE, 0.5)
    add("list through nginx, uncached, of the backend alone", UNCACHED, PRESSROOM, LIST, 0.8)
    add("one through nginx, uncached, of the backend alone", UNCACHED, PRESSROOM, ONE, 0.8)
    results.goals[:0] = goals


TABLE_HEADINGS = (
    "what", "list /s", "one /s", "list p99 ms", "one p99 ms", "list CPU ms", "one CPU ms",
    "list of the ceiling", "one of the ceiling",
)  # fmt: skip


def table_rows(results: Results) -> list[list[str]]:
    """Return the medians of the rounds, fastest first."""
    rows = []
    for line in sorted(results.lines, key=lambda name: -results.median(name, ONE)):
        row = [line]
        for figure in ("rate", "p99_ms", "cpu_ms"):
            for workload in (LIST, ONE):
                found = [getattr(each, figure) for each in results.measured[line, workload]]
                middle = statistics.median(found)
                row.append(f"{middle:,.0f}" if figure == "rate" else f"{middle:.2f}")
        row += [f"{results.ratio(line, CEILING, workload)[0]:.2f}" for workload in (LIST, ONE)]
        rows.append(row)
    return rows


GOAL_HEADINGS = ("goal", "wanted", "found", "")


def goal_rows(results: Results) -> list[list[str]]:
    """Return each goal with its target, its result, and whether it is met."""
    return [
        [goal.name, goal.wanted, goal.found, "pass" if goal.is_met else "FAIL"]
        for goal in results.goals
    ]


def main(arguments: Sequence[str], wrk: str) -> None:
    """Measure, print, and write the section and the plot. Raises BenchError."""
    what = __doc__.partition("\n")[0]
    options = parse_options(arguments, what=what, full=(5, 3), quick=(2, 1))
    results, facts = run(options, wrk, lambda line: print(line, flush=True))
    rows, goals = table_rows(results), goal_rows(results)
    print(f"\n{text_table(TABLE_HEADINGS, rows)}\n\n{text_table(GOAL_HEADINGS, goals)}")
    for reason in results.skipped:
        print(f"skipped: {reason}")
    if options.quick:
        _compare_with_recorded(results)
        return
    shares = {workload: round(results.cpu_share(workload), 2) for workload in (LIST, ONE)}
    RECORDED.write_text(json.dumps(shares, indent=2) + "\n")
    (options.output.parent / PLOT).write_text(plot.render(results.charts))
    memory = [[f"{done:,}", f"{rss:.0f}", f"{uss:.0f}"] for done, rss, uss in results.memory]
    section = "\n\n".join(
        [
            HEADING,
            "Written by `make bench`.",
            facts,
            markdown_table(TABLE_HEADINGS, rows),
            "Medians of the rounds. CPU ms is the CPU time of the worker or nginx per response.",
            "### Goals",
            markdown_table(GOAL_HEADINGS, goals),
            f"![Throughput and p99 by connections and by table size]({PLOT})",
            "### Memory of one worker",
            markdown_table(("requests", "RSS MB", "USS MB"), memory),
        ]
    )
    write_section(options.output, HEADING, section)
    print(f"written: {options.output.name}, {PLOT}")
