# ruff: noqa: T201 - a script: it prints to the terminal
"""Compare frequent reads with those of a former revision and with the data ceiling.

make bench ARGS="reads --former COMMIT"    ten minutes; writes its section of RESULTS.md and a plot

Both revisions use the same database, with the tables of this one. Each round measures all servers
in turn, and its ratios are those of one round.
"""

import secrets
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import plot
from app.core.config import get_settings
from app.db import embedded, migrate
from conduit import COMMUNITY
from imports import former_code
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
    ARTICLES,
    QUICK_ARTICLES,
    SERVER_ENVIRONMENT,
    BenchError,
    Server,
    execute,
    scratch_database,
    seed,
    serving,
)
from workloads import compare_json, open_sessions, size_of

HEADING: Final = "## Frequent reads, before and after"
INTRODUCTION: Final = """\
Written by `make bench ARGS="reads --former COMMIT"`: the newest 20 of 9,000 articles, and one of
them, from one worker. The ratios are medians of those of the rounds."""
PLOT: Final = "reads.svg"
CONNECTIONS: Final = (1, 4, 16, 64, 256)
BEFORE, NOW, CEILING = "before", "this", "ceiling"
LIST, ONE = "list", "one article"
AS_USER: Final = "{0}, with a bearer token"
CONDUIT, FEED = "RealWorld list, with a token", "RealWorld feed"
Key = tuple[str, str]
GOALS: Final[Mapping[tuple[Key, Key], float]] = {
    ((NOW, LIST), (BEFORE, LIST)): 3.0,
    ((NOW, ONE), (BEFORE, ONE)): 1.8,
    ((NOW, AS_USER.format(LIST)), (NOW, LIST)): 0.8,
    ((NOW, AS_USER.format(ONE)), (NOW, ONE)): 0.8,
    ((NOW, LIST), (CEILING, LIST)): 0.7,
    ((NOW, ONE), (CEILING, ONE)): 0.6,
    ((NOW, CONDUIT), (BEFORE, CONDUIT)): 2.0,
    ((NOW, FEED), (BEFORE, FEED)): 2.0,
}
"""The least ratio of the rates of two servers, each with the name of what is read."""
Log = Callable[[str], None]


def _workloads(server: Server, one: str, connections: int) -> dict[str, Workload]:
    paths = {LIST: "/articles", ONE: one, CONDUIT: "/api/articles", FEED: "/api/articles/feed"}
    made: dict[str, Workload] = {}
    for name, path in paths.items():
        is_private = path.startswith("/api")
        authorization = server.authorization() if is_private else ""
        status, body = server.request("GET", path, authorization=authorization)
        if status != 200:
            raise BenchError(f"{server.name}: {path} returned {status}")
        made[name] = Workload(
            name, [Request(path)], size_of(body), connections, is_authenticated=is_private
        )
    for name in (LIST, ONE):
        as_user = AS_USER.format(name)
        made[as_user] = replace(made[name], name=as_user, is_authenticated=True)
    return made


def _measure_all(
    wrk: str, *, former: str, rounds: int, seconds: int, connections: int, quick: bool, log: Log
) -> tuple[dict[Key, list[Measurement]], list[plot.Chart], str]:
    """Return the measurements by server and request, the charts, and how PostgreSQL runs."""
    settings = get_settings()
    measured: dict[Key, list[Measurement]] = {}
    with ExitStack() as running:
        server_url = settings.database_url or embedded.start(
            settings.data_dir / "bench" / "postgres"
        )
        url = running.enter_context(scratch_database(server_url))
        migrate.upgrade(url)
        log(f"seeded in {seed(url, QUICK_ARTICLES if quick else ARTICLES):.1f} s")
        execute(url, *COMMUNITY.split(";"))
        environment = {**SERVER_ENVIRONMENT, "SECRET_KEY": secrets.token_hex(32)}
        environment |= {"DATABASE_URL": url, "DATABASE_READ_URL": url}
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-reads-")))
        code, application = former_code(former, folder), "app.main:create_app()"
        former_server = serving(BEFORE, application, "/health/ready", environment, code=code)
        servers = [
            running.enter_context(former_server),
            running.enter_context(serving(NOW, application, "/health/ready", environment)),
            running.enter_context(
                serving(CEILING, "reference:app", "/articles?limit=1", environment)
            ),
        ]
        for server in servers:
            open_sessions(server)
            server.access_tokens[1:] = []  # only the token of `writer1`
        one = f"/articles/{compare_json(servers[0], servers[1], '/articles')[20 // 2]['id']}"
        turns: dict[Key, tuple[Server, Workload]] = {}
        for server in servers[:2]:
            workloads = _workloads(server, one, connections)
            turns |= {(server.name, name): (server, each) for name, each in workloads.items()}
        for name, path in ((LIST, "/articles"), (ONE, one)):
            compare_json(servers[1], servers[2], path)
            turns[CEILING, name] = servers[2], turns[NOW, name][1]
        generator = Generator(wrk)
        for server, workload in turns.values():
            generator.warm_up(server, workload, 1)
        for number in range(1, rounds + 1):
            for key in list(turns) if number % 2 else list(turns)[::-1]:
                measurement = generator.measure(*turns[key], seconds, number)
                measured.setdefault(key, []).append(measurement)
                log(f"round {number}/{rounds}  {', '.join(key):<40}{measurement.rate:>8,.0f}/s")
        charts = [] if quick else _charts(generator, turns, log)
    return measured, charts, "as DATABASE_URL's server is" if settings.database_url else "embedded"


def _charts(
    generator: Generator, turns: Mapping[Key, tuple[Server, Workload]], log: Log
) -> list[plot.Chart]:
    charts = []
    for name in (LIST, ONE):
        rates: dict[str, dict[float, float]] = {}
        slowest: dict[str, dict[float, float]] = {}
        for label in (BEFORE, NOW, CEILING):
            server, workload = turns[label, name]
            for connections in CONNECTIONS:
                varied = replace(workload, connections=connections)
                done = generator.measure(server, varied, 2, 0)
                rates.setdefault(label, {})[connections] = done.rate
                slowest.setdefault(label, {})[connections] = done.p99_ms
                log(f"{name}, {label}, {connections} connections: {done.rate:,.0f}/s")
        charts += [
            plot.Chart(f"Throughput, {name}", "connections", "responses per second", rates),
            plot.Chart(f"p99, {name}", "connections", "milliseconds", slowest),
        ]
    return charts


def main(arguments: Sequence[str], wrk: str) -> None:
    """Measure, print, and write the section and the plot. Raises BenchError."""
    what = __doc__.partition("\n")[0]
    options = parse_options(arguments, what=what, full=(5, 3), quick=(1, 1))
    if not options.former:
        raise BenchError("--former needs the commit to compare with")
    measured, charts, postgres = _measure_all(
        wrk,
        former=options.former,
        rounds=options.rounds,
        seconds=options.seconds,
        connections=options.connections,
        quick=options.quick,
        log=lambda line: print(line, flush=True),
    )
    headings = ("what", "server", "per second", "CPU per response", "p99")
    rows = [
        [
            name,
            server,
            f"{statistics.median(each.rate for each in runs):,.0f}",
            f"{statistics.median(each.cpu_ms for each in runs):.2f} ms",
            f"{statistics.median(each.p99_ms for each in runs):.1f} ms",
        ]
        for (server, name), runs in sorted(measured.items(), key=lambda item: item[0][1])
    ]
    goal_headings = ("goal", "of", "at least", "ratio (min to max)", "met")
    goals = []
    for (ours, theirs), least in GOALS.items():
        pairs = zip(measured[ours], measured[theirs], strict=True)
        ratios = [one.rate / other.rate for one, other in pairs]
        median = statistics.median(ratios)
        ratio = f"{median:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        met = "pass" if median >= least else "FAIL"
        goals.append([ours[1], ", ".join(theirs), f"{least}", ratio, met])
    print(f"\n{text_table(headings, rows)}\n\n{text_table(goal_headings, goals)}")
    if options.quick:
        return
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": describe_machine(),
        "versions": describe_versions(wrk, postgres),
        "before": options.former,
        "rounds": f"{options.rounds}, of {options.seconds} s, {options.connections} connections",
    }
    if options.note:
        facts["note"] = options.note
    section = [
        HEADING,
        INTRODUCTION,
        "\n".join(f"- {name}: {fact}" for name, fact in facts.items()),
    ]
    section += [markdown_table(goal_headings, goals), markdown_table(headings, rows)]
    section.append(f"![Rate and p99 by connections]({PLOT})")
    write_section(options.output, HEADING, "\n\n".join(section))
    (options.output.parent / PLOT).write_text(plot.render(charts))
    print(f"written: {options.output.name}")
