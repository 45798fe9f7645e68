# ruff: noqa: S603, T201 - a script: it runs git and prints to the terminal
"""Compare Pressroom with minimal reference servers on this machine.

    make bench                        the hot path and nginx; writes its section of RESULTS.md
    make bench-quick                  the same in about a minute; prints only
    make bench ARGS=identity          logins, refreshes and concurrent reads, six minutes
    make bench ARGS=conduit           the RealWorld API's lists and the native ones, two minutes
    make bench ARGS=beside            reads beside other work, memory and start, ten minutes
    make bench ARGS="reads --former COMMIT"    reads, before and after; ten minutes
    make bench ARGS=content           lists, search and bulk with 1,000 and 1,000,000 articles
    make bench ARGS=metrics           what metrics cost, three minutes
    make bench ARGS=imports           imports of all formats, and of a file of 1 GiB
    make bench ARGS=writing           creating articles, comments, favorites; refreshes
    make bench ARGS=realtime          open streams: memory, delay, reads beside them
    make bench ARGS=searching         searches of common words, beside a former revision
    make bench ARGS=capacity          costs of requests, and the tables of docs/scaling.md
    make bench ARGS=caches            several nginx with separate caches

All servers run in the same process model (gunicorn with backend/gunicorn.conf.py, one worker) with
the same PostgreSQL and rows. Their responses are compared before the measurement. A wrong response
or a broken connection fails the run. See bench/README.md. This module contains *identity*.
"""

import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

import psutil

import beside
import caches
import capacity
import conduit
import content
import hotpath
import imports
import metrics
import reads
import realtime
import searching
import writing
from app.core.config import PROJECT_DIR, get_settings
from app.db import embedded, migrate
from load import Generator
from options import Options, parse_options
from report import (
    IDENTITY,
    LOGIN,
    Conditions,
    Measurement,
    Results,
    Storm,
    Workload,
    describe_machine,
    describe_versions,
    render_markdown,
    render_tables,
    write_section,
)
from servers import (
    ARTICLES,
    SERVER_ENVIRONMENT,
    USERS,
    BenchError,
    Server,
    execute,
    pinned_worker,
    scratch_database,
    seed,
    serving,
)
from storm import STORM_CONNECTIONS, STORM_READERS, measure_storm
from workloads import LOGGED_IN, choose_workloads

HOW_TO_GET_WRK: Final = """wrk, the load generator, is not installed. It is a package of that name:
    Debian, Ubuntu   apt-get install wrk
    macOS            brew install wrk"""

WITHOUT_WRK: Final = {"content": content, "imports": imports, "searching": searching}


def run_rounds(
    generator: Generator,
    servers: Sequence[Server],
    workloads: Sequence[Workload],
    options: Options,
    log: Callable[[str], None],
) -> list[Measurement]:
    """Measure all servers in each round. The order of the servers alternates."""
    for workload in workloads:
        for server in servers:
            generator.warm_up(server, workload, 1 if options.quick else 2)
    for number in range(1, options.rounds + 1):
        order = servers if number % 2 else servers[::-1]
        for workload in workloads:
            for server in order:
                done = generator.measure(server, workload, options.seconds, number)
                log(
                    f"round {number}/{options.rounds}  {workload.name:<24} {server.name:<10}"
                    f"{done.rate:>9.1f}/s  p50 {done.p50_ms:.1f} ms  p99 {done.p99_ms:.1f} ms"
                )
    return generator.measurements


def run_storm(
    generator: Generator,
    server: Server,
    workloads: Sequence[Workload],
    *,
    url: str,
    is_local: bool,
    options: Options,
    log: Callable[[str], None],
) -> Storm:
    """Measure authenticated reads, without and with concurrent logins."""
    by_name = {workload.name: workload for workload in workloads}
    reads = replace(by_name[LOGGED_IN], connections=STORM_READERS)
    logins = replace(by_name[LOGIN], connections=STORM_CONNECTIONS)
    with pinned_worker(server, database_url=url if is_local else None) as sharing:
        rounds = measure_storm(
            generator,
            server,
            reads,
            logins,
            url=url,
            rounds=options.rounds,
            seconds=options.seconds,
            log=log,
        )
    return Storm(reads, logins, sharing, rounds)


def measure_all(options: Options, wrk: str, log: Callable[[str], None]) -> Results:
    """Start the servers, measure, and stop them."""
    busy_at_start = psutil.cpu_percent(interval=2)
    settings = get_settings()
    external = settings.database_url
    with ExitStack() as running:
        log("PostgreSQL: " + ("DATABASE_URL" if external else "embedded"))
        server_url = external or embedded.start(settings.data_dir / "bench" / "postgres")
        url = running.enter_context(scratch_database(server_url))
        migrate.upgrade(url)
        seed_seconds = seed(url)
        log(f"seeded {USERS} users and {ARTICLES:,} articles in {seed_seconds:.1f} s")
        environment = {
            **SERVER_ENVIRONMENT,
            "SECRET_KEY": secrets.token_hex(32),
            "DATABASE_URL": url,
            "DATABASE_READ_URL": url,
        }
        pressroom, reference = (
            running.enter_context(serving(name, application, probe, environment))
            for name, application, probe in (
                ("Pressroom", "app.main:create_app()", "/health/ready"),
                ("reference", "reference:app", "/articles?limit=1"),
            )
        )
        workloads = choose_workloads(pressroom, reference, options.connections)
        log("both servers return the same responses; warming up")
        generator = Generator(wrk)
        measurements = run_rounds(generator, (pressroom, reference), workloads, options, log)
        storm = run_storm(
            generator,
            pressroom,
            workloads,
            url=url,
            is_local=not external,
            options=options,
            log=log,
        )
        postgres, size = execute(
            url, "SHOW server_version", "SELECT avg(length(content)) FROM articles"
        )
        return Results(
            workloads=workloads,
            measurements=measurements,
            storm=storm,
            conditions=Conditions(
                rounds=options.rounds,
                seconds=options.seconds,
                seed_seconds=seed_seconds,
                articles=ARTICLES,
                article_bytes=round(size),
                busy_at_start=busy_at_start,
                durable="as DATABASE_URL's server is set" if external else "embedded, durable",
                note=options.note,
                machine=describe_machine(),
                versions=describe_versions(wrk, str(postgres)),
                revision=_revision(),
            ),
        )


def _revision() -> str:
    """Return the measured commit, and whether there are uncommitted changes."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PROJECT_DIR), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "backend/app", "backend/gunicorn.conf.py")
        return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _end(signum: int, frame: object) -> None:
    """Raise KeyboardInterrupt on SIGTERM, so that all processes are stopped."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Return the exit status."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    part = arguments[0] if arguments[:1] and not arguments[0].startswith("-") else "hotpath"
    wrk = shutil.which("wrk")
    if wrk is None and part not in WITHOUT_WRK:
        print(HOW_TO_GET_WRK, file=sys.stderr)
        return 2
    started = time.monotonic()
    try:
        if part in WITHOUT_WRK or wrk is None:
            WITHOUT_WRK[part].main(arguments[1:])
            return 0
        parts = {
            "hotpath": hotpath,
            "conduit": conduit,
            "beside": beside,
            "caches": caches,
            "capacity": capacity,
            "metrics": metrics,
            "reads": reads,
            "realtime": realtime,
            "writing": writing,
        }
        if part in parts:
            own = arguments[1:] if arguments[:1] == [part] else arguments
            parts[part].main(own, wrk)
            print(f"{time.monotonic() - started:.0f} s in all")
            return 0
        what = __doc__.partition("\n")[0]
        options = parse_options(arguments[1:], what=what, full=(5, 4), quick=(2, 2))
        results = measure_all(options, wrk, lambda line: print(line, flush=True))
    except (BenchError, RuntimeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; all processes are stopped", file=sys.stderr)
        return 130
    print(f"\n{render_tables(results)}\n\n{time.monotonic() - started:.0f} s in all")
    if not options.quick:
        write_section(options.output, IDENTITY, render_markdown(results))
        print(f"written: {options.output.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
