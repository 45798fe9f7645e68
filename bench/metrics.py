# ruff: noqa: T201 - a script: it prints to the terminal
"""Measure what metrics cost: CPU time for one article, with METRICS_PORT and without.

    make bench ARGS=metrics           three minutes; writes its section of RESULTS.md

Other programs change the rate and the CPU time of a response by more than the metrics do. So the
measurements are short, and alternate: both servers of a round have the same conditions. The result
is the median of the rounds. The server of the metrics is scraped once in each round. Its CPU time
is shown for one scrape, because its share depends on how often Prometheus scrapes.
"""

import secrets
import statistics
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import psutil

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
    Server,
    children,
    free_port,
    scratch_database,
    seed,
    serving,
)

HEADING: Final = "## Metrics"
GOAL_PERCENT: Final = 3.0
SCRAPE_INTERVAL: Final = 15
"""Seconds between two scrapes, for the share of the server of the metrics."""
WITHOUT, WITH = "without", "with"


class Measured(NamedTuple):
    """One measurement of the worker."""

    cpu_ms: float
    rate: float


def main(arguments: Sequence[str], wrk: str) -> None:
    """Measure, and print or write the table. Raises BenchError."""
    options = parse_options(arguments, what="What metrics cost", full=(30, 2), quick=(10, 1))
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
            with_port = environment | {"METRICS_PORT": value}
            started = serving(name, "app.main:create_app()", "/health/ready", with_port)
            servers.append(running.enter_context(started))
        newest = servers[0].get_json("/articles")[0]["id"]
        workload = Workload("one", [Request(f"/articles/{newest}")], 500, options.connections)
        for server in servers:
            generator.warm_up(server, workload, 2)
        exporter = _exporter(servers[1], port)
        rows: dict[str, list[Measured]] = {WITHOUT: [], WITH: []}
        scrapes: list[float] = []
        for number in range(1, options.rounds + 1):
            for server in servers if number % 2 else servers[::-1]:
                before = _seconds(exporter)
                if server.name == WITH:
                    threading.Timer(options.seconds / 2, _scrape, (port,)).start()
                done = generator.measure(server, workload, options.seconds, number)
                scrape_ms = 0.0
                if server.name == WITH:
                    scrape_ms = (_seconds(exporter) - before) * 1000
                    scrapes.append(scrape_ms)
                cpu_ms = done.cpu_ms - scrape_ms / done.requests
                rows[server.name].append(Measured(cpu_ms, done.rate))
            pair = (rows[name][-1].cpu_ms for name in (WITHOUT, WITH))
            print(f"round {number}", *(f"{value:.4f} ms" for value in pair), sep="  ", flush=True)
        _check(port, newest)
    _report(rows, scrapes, options.output if not options.quick else None)


def _exporter(server: Server, port: int) -> psutil.Process:
    """Return the process of the server that listens on the port of the metrics."""
    for process in children(server.pid):
        listening = process.net_connections("tcp")
        if any(each.laddr.port == port and each.status == psutil.CONN_LISTEN for each in listening):
            return process
    raise BenchError("no process serves the metrics")


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=20) as response:
        return str(response.read().decode())


def _check(port: int, newest: int) -> None:
    """Raise BenchError if nothing was counted: then nothing was measured."""
    time.sleep(1.5)
    counted = 'pressroom_http_requests_total{method="GET",route="/articles/{article_id}"'
    if counted not in _scrape(port):
        raise BenchError(f"the metrics do not contain the requests of article {newest}")


def _report(
    rows: Mapping[str, Sequence[Measured]], scrapes: Sequence[float], output: Path | None
) -> None:
    pairs = zip(rows[WITHOUT], rows[WITH], strict=True)
    shares = sorted(after.cpu_ms / before.cpu_ms - 1 for before, after in pairs)
    quarter = len(shares) // 4
    own = statistics.median(shares) * 100
    scrape = statistics.mean(scrapes)
    beside = scrape / (SCRAPE_INTERVAL * 1000) * 100
    table = [
        [
            name,
            f"{statistics.median(each.cpu_ms for each in values):.4f} ms",
            f"{statistics.median(each.rate for each in values):,.0f}/s",
        ]
        for name, values in rows.items()
    ]
    headings = ["metrics", "CPU time of the worker per response", "rate"]
    low, high = shares[quarter] * 100, shares[-1 - quarter] * 100
    verdict = (
        f"With metrics, the CPU time changes by {own:+.1f} %, the median of {len(shares)} rounds."
        f" Half of them are from {low:+.1f} % to {high:+.1f} %. A scrape takes {scrape:.0f} ms of"
        f" the server of the metrics: {beside:.1f} % of a processor with one in {SCRAPE_INTERVAL}"
        f" s. The sum is {own + beside:+.1f} % (goal: at most {GOAL_PERCENT:g} %)."
    )
    print(f"\n{text_table(headings, table)}\n\n{verdict}")
    if output is not None:
        text = (
            f"{HEADING}\n\n{describe_machine()}\n\n{markdown_table(headings, table)}\n\n{verdict}"
        )
        write_section(output, HEADING, text)
