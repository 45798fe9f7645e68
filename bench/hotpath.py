# ruff: noqa: T201 - a script: it runs our own code and talks to people
"""Measure the hot path: what is read most, from the bare machine up to the edge.

    make bench                        under ten minutes; writes its part of RESULTS.md and a plot
    make bench-quick                  under a minute; prints only, and compares with recorded.json

The quick run leaves out nginx, the storm of logins, memory and start. It fails if the servers
answer differently, or if Pressroom's share of the ceiling is below half of the recorded one.

Each server has its turn in each round, on the same machine, rows and PostgreSQL; what counts are
ratios of one round. See bench/README.md.
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
    SLOWER_BY,
    Measurement,
    Request,
    Workload,
    describe_machine,
    describe_versions,
    keep_section,
    markdown_table,
    text_table,
)
from servers import (
    BENCH_DIR,
    SERVER_ENVIRONMENT,
    BenchError,
    Server,
    children,
    scratch_database,
    seed,
    serving,
    worker_on_its_own,
)
from storm import STORM_CONNECTIONS, STORM_READERS, measure_storm
from workloads import PAGE, login_workload, open_sessions, same_json, size_of

HEADING: Final = "## The hot path"
PLOT: Final = "hotpath.svg"
RECORDED: Final = BENCH_DIR / "recorded.json"
"""Pressroom's share of the ceiling in the last whole run, by CPU time, for each workload."""
TOLERATED: Final = 0.5
"""The part of the recorded share that a quick run must reach."""
LIST, ONE = "list", "one"
LIST_PATH: Final = "/articles"
CONNECTIONS: Final = (1, 4, 16, 64, 256)
TABLE_SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
MIXED_REQUESTS: Final = 200_000
MOST_MEGABYTES: Final = 150
FLAT: Final = 1.1
"""Memory is flat where the second half of the requests adds less than a tenth to it."""
MOST_START_SECONDS: Final = 1.5
MEMORY_STEPS: Final = 4


@dataclass(frozen=True)
class Line:
    """A line of the table: who answers, and the two workloads under which it is measured."""

    name: str
    server: Server
    workloads: Mapping[str, Workload]


@dataclass(frozen=True)
class Goal:
    """One of the goals, and what came of it."""

    name: str
    wanted: str
    found: str
    is_met: bool


@dataclass
class Results:
    """All of a run."""

    lines: list[str] = field(default_factory=list)
    measured: dict[tuple[str, str], list[Measurement]] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    memory: list[tuple[int, float, float]] = field(default_factory=list)
    charts: list[plot.Chart] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def median(self, line: str, workload: str) -> float:
        """Answers a second."""
        return statistics.median(each.rate for each in self.measured[line, workload])

    def ratio(self, line: str, other: str, workload: str) -> tuple[float, float, float]:
        """How much of another line's rate one has: the median of the rounds, least and most."""
        pairs = zip(self.measured[line, workload], self.measured[other, workload], strict=True)
        ratios = [ours.rate / theirs.rate for ours, theirs in pairs]
        return statistics.median(ratios), min(ratios), max(ratios)

    def cpu_share(self, workload: str) -> float:
        """The ceiling's CPU time for an answer, as a share of Pressroom's.

        The least of each server's rounds counts: other work on the machine only adds to it.
        """
        least = {
            line: min(each.cpu_ms for each in self.measured[line, workload])
            for line in (OURS, CEILING)
        }
        return least[CEILING] / least[OURS]


STATIC = "nginx, the same bytes as a static file"
MEMORY = "Starlette, the same bytes from memory"
CEILING = "Starlette + raw asyncpg + orjson (the data ceiling)"
FASTAPI = "FastAPI + raw asyncpg + orjson"
OURS = "Pressroom, anonymous"
TOKEN = "Pressroom, with a bearer token"  # noqa: S105 - a line's name
CACHED = "Pressroom through nginx, cached"
UNCACHED = "Pressroom through nginx, uncached"


Say = Callable[[str], None]


def run(options: Options, wrk: str, say: Say) -> tuple[Results, str]:
    """Start everything, measure, and end everything; the results, and what they depend on."""
    results = Results()
    busy = psutil.cpu_percent(interval=2)
    settings = get_settings()
    with ExitStack() as running:
        server_url = settings.database_url or embedded.start(
            settings.data_dir / "bench" / "postgres"
        )
        url = running.enter_context(scratch_database(server_url))
        migrate.upgrade(url)
        say(f"seeded in {seed(url):.1f} s")
        environment = {**SERVER_ENVIRONMENT, "SECRET_KEY": secrets.token_hex(32)}
        environment |= {"DATABASE_URL": url, "DATABASE_READ_URL": url}
        started = {
            name: running.enter_context(serving(name, application, probe, environment))
            for name, application, probe in (
                (OURS, "app.main:create_app()", "/health/ready"),
                (CEILING, "reference:app", "/articles?limit=1"),
                (FASTAPI, "reference:fast_app", "/articles?limit=1"),
                (MEMORY, "reference:memory_app", "/articles?limit=1"),
            )
            if not options.quick or name in {OURS, CEILING}
        }
        generator = Generator(wrk)
        lines = _lines(running, started, options, results)
        _check(lines)
        say("all answer alike; warming up")
        _measure_rounds(generator, lines, options, results, say)
        ours = started[OURS]
        by_name = {line.name: line for line in lines}
        if not options.quick:
            _measure_storm(
                generator, by_name[TOKEN], url=url, options=options, results=results, say=say
            )
            _measure_connections(generator, by_name, results, say)
            _measure_memory(generator, ours, by_name, results, say)
    if not options.quick:
        _measure_start(results, 3, environment, say)
        _measure_sizes(Generator(wrk), server_url, environment, results, say)
    _judge(results)
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
    if results.left_out:
        facts["left out"] = "; ".join(results.left_out)
    return results, "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def _lines(
    running: ExitStack, started: Mapping[str, Server], options: Options, results: Results
) -> list[Line]:
    """All lines of the table, the edge's where there is an nginx to measure."""
    ours = started[OURS]
    page = same_json(ours, started[CEILING], f"{LIST_PATH}?skip=1000&limit={PAGE}")
    one_path = f"/articles/{page[0]['id']}"
    paths = {LIST: LIST_PATH, ONE: one_path}
    bodies = {name: ours.ask("GET", path)[1] for name, path in paths.items()}
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
    if problem := edge.why_no_edge():
        results.left_out.append(f"nginx: {problem}")
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
    """Raise BenchError unless all say the same of an article and of the list."""
    ours = next(line for line in lines if line.name == OURS)
    for line in lines:
        for name, workload in line.workloads.items():
            if line.name in {OURS, TOKEN}:
                continue
            path, own = workload.requests[0].path, ours.workloads[name].requests[0].path
            if line.name == STATIC:
                status, body = line.server.ask("GET", path)
                if (status, body) != (200, ours.server.ask("GET", own)[1]):
                    raise BenchError(f"{line.name} does not have what {own} is")
            else:
                same_json(ours.server, line.server, path)


def _measure_rounds(
    generator: Generator, lines: Sequence[Line], options: Options, results: Results, say: Say
) -> None:
    results.lines = [line.name for line in lines]
    turns = [(line, name, each) for line in lines for name, each in line.workloads.items()]
    for line, _, workload in turns:
        generator.warm_up(line.server, workload, 1)
    for number in range(1, options.rounds + 1):
        for line, name, workload in turns if number % 2 else turns[::-1]:
            done = generator.measure(line.server, workload, options.seconds, number)
            results.measured.setdefault((line.name, name), []).append(done)
            say(
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
    say: Say,
) -> None:
    server = reads.server
    local = None if get_settings().database_url else url
    with worker_on_its_own(server, database_url=local):
        rounds = measure_storm(
            generator,
            server,
            replace(reads.workloads[ONE], connections=STORM_READERS),
            login_workload(STORM_CONNECTIONS, 100),
            url=url,
            rounds=min(options.rounds, 5),
            seconds=options.seconds,
            say=say,
        )
    slowdown = statistics.median(each.slowdown for each in rounds)
    results.goals.append(
        Goal(
            "p99 of reads during a storm of 16 logins",
            f"≤ {SLOWER_BY} of without",
            f"{slowdown:.2f} ({min(each.slowdown for each in rounds):.2f} to"
            f" {max(each.slowdown for each in rounds):.2f})",
            slowdown <= SLOWER_BY,
        )
    )


def _measure_connections(
    generator: Generator, lines: Mapping[str, Line], results: Results, say: Say
) -> None:
    rates: dict[str, dict[float, float]] = {}
    slowest: dict[str, dict[float, float]] = {}
    for line, label in ((OURS, "Pressroom"), (CEILING, "ceiling")):
        for name, workload in lines[line].workloads.items():
            for connections in CONNECTIONS:
                asked = replace(workload, connections=connections)
                done = generator.measure(lines[line].server, asked, 2, 0)
                rates.setdefault(f"{name}, {label}", {})[connections] = done.rate
                slowest.setdefault(f"{name}, {label}", {})[connections] = done.p99_ms
                say(f"{name}, {label}, {connections} connections: {done.rate:,.0f}/s")
    results.charts += [
        plot.Chart("Throughput by connections", "connections", "answers a second", rates),
        plot.Chart("p99 by connections", "connections", "milliseconds", slowest),
    ]


def _measure_memory(
    generator: Generator, server: Server, lines: Mapping[str, Line], results: Results, say: Say
) -> None:
    """One worker's memory while it answers 200,000 requests of many sorts."""
    mixed = [lines[OURS].workloads[ONE], lines[TOKEN].workloads[ONE], lines[OURS].workloads[LIST]]
    others = ["/tags", "/feed.xml", "/search?q=harbour&limit=5", "/users?limit=5", "/no-such-page"]
    (worker,) = children(server.pid)
    done, rest = 0, [Request(path) for path in others]

    def note() -> None:
        memory = worker.memory_full_info()
        results.memory.append((done, memory.rss / 2**20, memory.uss / 2**20))
        say(f"after {done:,} requests: {memory.rss / 2**20:.0f} MB")

    note()
    while done < MIXED_REQUESTS:
        goal = done + MIXED_REQUESTS // MEMORY_STEPS
        while done < goal:
            for workload in mixed:
                share = 1 if workload.name == LIST else 3
                done += generator.drive(server, workload, share)["requests"]
            asked = Workload("others", rest[:-1], 20, 16)
            done += generator.drive(server, asked, 1)["requests"]
            server.ask("GET", rest[-1].path)
            done += 1
        note()
    most = max(rss for _, rss, _ in results.memory)
    half, end = results.memory[MEMORY_STEPS // 2][1], results.memory[-1][1]
    results.goals.append(
        Goal(
            "memory of one worker after 200,000 mixed requests",
            f"≤ {MOST_MEGABYTES} MB and flat",
            f"{most:.0f} MB at most; {half:.0f} MB half-way, {end:.0f} MB in the end",
            most <= MOST_MEGABYTES and end <= half * FLAT,
        )
    )


def _measure_start(results: Results, times: int, environment: Mapping[str, str], say: Say) -> None:
    """From nothing to the first answer; the import alone, by `python -X importtime`."""
    starts, imports = [], []
    for _ in range(times):
        started = time.monotonic()
        unreachable = {"DATABASE_URL": "postgresql+asyncpg://nobody@127.0.0.1:1/none"}
        quiet = {**environment, **unreachable, "DATABASE_READ_URL": ""}
        with serving("start", "app.main:create_app()", "/health/live", quiet):
            starts.append(time.monotonic() - started)
        said = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", "import app.main"],
            cwd=BACKEND_DIR,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        total = next(line for line in said.splitlines()[::-1] if line.endswith("app.main"))
        imports.append(int(total.split("|")[1]) / 1e6)
    start, imported = statistics.median(starts), statistics.median(imports)
    say(f"cold start {start:.2f} s, of which the import {imported:.2f} s")
    results.goals.append(
        Goal(
            "import of the app, cold start to first answer",
            f"≤ {MOST_START_SECONDS} s",
            f"{start:.2f} s; `-X importtime` of app.main {imported:.2f} s",
            start <= MOST_START_SECONDS,
        )
    )


def _measure_sizes(
    generator: Generator,
    server_url: str,
    environment: Mapping[str, str],
    results: Results,
    say: Say,
) -> None:
    """The same reads of larger and larger tables, those of the content bench."""
    rates: dict[str, dict[float, float]] = {}
    slowest: dict[str, dict[float, float]] = {}
    for size in TABLE_SIZES:
        if size > TABLE_SIZES[2] and not content.is_kept(server_url, size):
            results.left_out.append(
                f"a table of {size:,} articles: `make bench ARGS=content` makes it, in ten minutes"
            )
            continue
        with _reading_of(server_url, size, environment, say) as server:
            newest = server.json(LIST_PATH)[0]["id"]
            for name, path in ((LIST, LIST_PATH), (ONE, f"/articles/{newest}")):
                workload = Workload(name, [Request(path)], 500, 32)
                generator.warm_up(server, workload, 1)
                done = generator.measure(server, workload, 2, 0)
                rates.setdefault(name, {})[size] = done.rate
                slowest.setdefault(name, {})[size] = done.p99_ms
                say(f"{name} of {size:,}: {done.rate:,.0f}/s, p99 {done.p99_ms:.1f} ms")
    results.charts += [
        plot.Chart("Throughput by table size", "articles", "answers a second", rates),
        plot.Chart("p99 by table size", "articles", "milliseconds", slowest),
    ]


@contextmanager
def _reading_of(
    server_url: str, size: int, environment: Mapping[str, str], say: Say
) -> Iterator[Server]:
    url = content.prepare_database(server_url, size, say)
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


def _judge(results: Results) -> None:
    """The goals that are ratios of the table."""
    judged = []

    def share(name: str, line: str, other: str, workload: str, least: float) -> None:
        if (line, workload) in results.measured and (other, workload) in results.measured:
            middle, low, high = results.ratio(line, other, workload)
            found = f"{middle:.2f} ({low:.2f} to {high:.2f})"
            judged.append(Goal(name, f"≥ {least}", found, middle >= least))

    share("list of 20, anonymous, of the data ceiling", OURS, CEILING, LIST, 0.45)
    share("one article, anonymous, of the data ceiling", OURS, CEILING, ONE, 0.35)
    share("list with a bearer token, of the anonymous one", TOKEN, OURS, LIST, 0.6)
    share("one with a bearer token, of the anonymous one", TOKEN, OURS, ONE, 0.6)
    share("list through nginx, cached, of a static file", CACHED, STATIC, LIST, 0.5)
    share("one through nginx, cached, of a static file", CACHED, STATIC, ONE, 0.5)
    share("list through nginx, uncached, of the backend alone", UNCACHED, OURS, LIST, 0.8)
    share("one through nginx, uncached, of the backend alone", UNCACHED, OURS, ONE, 0.8)
    results.goals[:0] = judged


TABLE_HEADINGS = (
    "what", "list /s", "one /s", "list p99 ms", "one p99 ms", "list CPU ms", "one CPU ms",
    "list of the ceiling", "one of the ceiling",
)  # fmt: skip


def table_rows(results: Results) -> list[list[str]]:
    """Medians of the rounds, fastest first."""
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
    """What was wanted, what was found, and whether that is enough."""
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
    for left in results.left_out:
        print(f"left out: {left}")
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
            "Medians of the rounds. CPU ms is what the worker, or nginx, used for an answer.",
            "### Goals",
            markdown_table(GOAL_HEADINGS, goals),
            f"![Throughput and p99 by connections and by table size]({PLOT})",
            "### Memory of one worker",
            markdown_table(("requests", "RSS MB", "USS MB"), memory),
        ]
    )
    keep_section(options.output, HEADING, section)
    print(f"written: {options.output.name}, {PLOT}")
