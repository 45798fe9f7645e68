# ruff: noqa: T201 - a script: it prints to the terminal
"""Measure what metrics cost: CPU time for one article, with METRICS_PORT and without.

    make bench ARGS=metrics           two minutes; writes its section of RESULTS.md

Both servers are measured in turn in each round. The server of the metrics is included, and scraped
once in each measurement.
"""

import secrets
import statistics
import threading
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from app.core.config import get_settings
from app.db import embedded, migrate
from load import Generator
from options import parse_options
from report import (
    Request,
    Workload,
    describe_machine,
    markdown_table,
    text_table,
    write_section,
)
from servers import (
    HOST,
    QUICK_ARTICLES,
    SERVER_ENVIRONMENT,
    BenchError,
    free_port,
    scratch_database,
    seed,
    serving,
)

HEADING: Final = "## Metrics"
GOAL_PERCENT: Final = 3.0
WITHOUT, WITH = "without", "with"


def main(arguments: Sequence[str], wrk: str) -> None:
    """Measure, and print or write the table. Raises BenchError."""
    options = parse_options(arguments, what="What metrics cost", full=(12, 4), quick=(6, 2))
    generator = Generator(wrk)
    settings = get_settings()
    with ExitStack() as running:
        server_url = settings.database_url or embedded.start(
            settings.data_dir / "bench" / "postgres"
        )
        url = running.enter_context(scratch_database(server_url))
        migrate.upgrade(url)
        seed(url, QUICK_ARTICLES)
        port = free_port()
        environment = SERVER_ENVIRONMENT | {
            "SECRET_KEY": secrets.token_hex(32),
            "DATABASE_URL": url,
        }
        servers = []
        for name, value in ((WITHOUT, "0"), (WITH, str(port))):
            own = environment | {"METRICS_PORT": value}
            started = serving(name, "app.main:create_app()", "/health/ready", own)
            servers.append(running.enter_context(started))
        newest = servers[0].get_json("/articles")[0]["id"]
        workload = Workload("one", [Request(f"/articles/{newest}")], 500, options.connections)
        for server in servers:
            generator.warm_up(server, workload, 2)
        for number in range(1, options.rounds + 1):
            for server in servers if number % 2 else servers[::-1]:
                if server.name == WITH:
                    threading.Timer(options.seconds / 2, _scrape, (port,)).start()
                done = generator.measure(server, workload, options.seconds, number)
                print(f"round {number}  {server.name:<8}{done.cpu_ms:.4f} ms", flush=True)
        _check(port, newest)
    _report(generator, options.rounds, options.output if not options.quick else None)


def _scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=20) as response:
        return str(response.read().decode())


def _check(port: int, newest: int) -> None:
    """Raise BenchError if nothing was counted: then nothing was measured."""
    time.sleep(1.5)
    counted = 'pressroom_http_requests_total{method="GET",route="/articles/{article_id}"'
    if counted not in _scrape(port):
        raise BenchError(f"the metrics do not contain the requests of article {newest}")


def _report(generator: Generator, rounds: int, output: Path | None) -> None:
    cpu = {(each.server, each.round): (each.cpu_ms, each.rate) for each in generator.measurements}
    shares = [cpu[WITH, n][0] / cpu[WITHOUT, n][0] - 1 for n in range(1, rounds + 1)]
    percent = statistics.median(shares) * 100
    rows = []
    for name in (WITHOUT, WITH):
        values = [cpu[name, number] for number in range(1, rounds + 1)]
        rows.append(
            [
                name,
                f"{statistics.median(value for value, _ in values):.4f} ms",
                f"{statistics.median(rate for _, rate in values):,.0f}/s",
            ]
        )
    headings = ["metrics", "CPU time per response", "rate"]
    verdict = (
        f"The median of {rounds} rounds is {percent:+.1f} % (goal: at most {GOAL_PERCENT:g} %; the"
        f" rounds are from {min(shares) * 100:+.1f} % to {max(shares) * 100:+.1f} %)."
    )
    print(f"\n{text_table(headings, rows)}\n\n{verdict}")
    if output is not None:
        text = f"{HEADING}\n\n{describe_machine()}\n\n{markdown_table(headings, rows)}\n\n{verdict}"
        write_section(output, HEADING, text)
