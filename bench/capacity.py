# ruff: noqa: T201 - a script: it prints to the terminal
"""Measure what requests cost, compare the queueing model with a loaded worker, and derive tables.

    make bench ARGS=capacity             four minutes; writes capacity.json and docs/scaling.md
    make bench ARGS="capacity --tables"  writes the tables of docs/scaling.md again

The processor time of PostgreSQL is that of all its processes, so it must run on this machine.
"""

import json
import math
import secrets
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from http.client import HTTPConnection
from typing import Any, Final

import psutil

import edge
import model
import writing
from app.core.config import PROJECT_DIR, get_settings
from app.db import embedded, migrate
from load import Generator
from options import Options, parse_options
from queueing import Interruptions, Pool, Simulated, Step, Work, simulate
from report import Request, Workload, describe_machine, describe_versions, markdown_table
from servers import (
    ARTICLES,
    HOST,
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
from workloads import ONE_ARTICLE_IDS, login_workload, open_sessions

PAGE: Final = PROJECT_DIR / "docs" / "scaling.md"
IMAGE: Final = "image.webp"
PAUSE_MS: Final = 100
"""The mean pause of a connection. With many connections, requests arrive at random."""
USES: Final = (0.3, 0.6, 0.8)
"""Shares of the worker's processor at which the model is compared with it."""
IDLE: Final = 0.05
COST_USE: Final = 0.5
SIMULATED: Final = 50_000
"""Requests of a simulation."""
Log = Callable[[str], None]


def main(arguments: Sequence[str], wrk: str) -> None:
    """Measure, and write the results. Raises BenchError."""
    if "--tables" in arguments:
        write_tables(model.read_stored())
        return
    options = parse_options(arguments, what="The capacity model", full=(3, 3), quick=(1, 1))
    if get_settings().database_url:
        raise BenchError("DATABASE_URL is set: PostgreSQL must run on this machine, embedded")
    measured = measure(options, wrk, lambda line: print(line, flush=True))
    print(json.dumps(measured, indent=2))
    if not options.quick:
        former = model.read_stored() if model.STORED.exists() else {}
        model.STORED.write_text(json.dumps(former | measured, indent=2) + "\n")
        write_tables(model.read_stored())
        print(f"written: {model.STORED.name}, {PAGE.name}")


# --- measurement


def measure(options: Options, wrk: str, log: Log) -> dict[str, Any]:
    """Start the servers, measure, and stop them. Return the results for capacity.json."""
    busy = psutil.cpu_percent(interval=2)
    with ExitStack() as running:
        server_url = embedded.start(get_settings().data_dir / "bench" / "postgres")
        url = running.enter_context(scratch_database(server_url))
        migrate.upgrade(url)
        seed(url, ARTICLES)
        environment = {**SERVER_ENVIRONMENT, "SECRET_KEY": secrets.token_hex(32)}
        environment |= {"DATABASE_URL": url, "DATABASE_READ_URL": url}
        server = running.enter_context(
            serving("Pressroom", "app.main:create_app()", "/health/ready", environment)
        )
        open_sessions(server)
        generator = Generator(wrk)
        meter = Meter(generator, server, url, options, log)
        image = secrets.token_bytes(int(model.Traffic(0).image_bytes))
        proxy, files = running.enter_context(edge.edge(server, {IMAGE: image}))
        listed, article = reads(server)
        costs: dict[str, Any] = {
            "list": meter.read(listed, proxy),
            "article": meter.read(article, proxy),
            "signed_in_list": meter.read(replace(listed, is_authenticated=True), proxy),
            "signed_in_article": meter.read(replace(article, is_authenticated=True), proxy),
        }
        one = replace(article, requests=article.requests[:1])
        costs["cached_ms"] = meter.nginx_ms(proxy, one)
        costs["proxied_ms"] = meter.nginx_ms(proxy, replace(one, header="Cookie: bench=1"))
        file = Workload("image", [Request(f"/{IMAGE}")], len(image), options.connections)
        costs["file_ms"] = meter.nginx_ms(files, file)
        costs["worker_mb"] = _pss(max(children(server.pid), key=_pss))
        costs["connection_mb"] = statistics.median(
            _pss(psutil.Process(pid)) for pid in execute(url, BACKENDS)[0]
        )
        points = meter.points(article, costs["article"]["worker_ms"])
        costs["writes"] = {
            each.name: meter.write(each)
            for each in writing.choose_workloads(url)
            if each.name in model.Traffic(0).writes()
        }
        costs["login_ms"] = meter.login_ms()
        (postgres,) = execute(url, "SHOW server_version")
    return {
        "conditions": {
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": describe_machine(),
            "versions": describe_versions(wrk, f"{postgres}, embedded, durable"),
            "rounds": f"{options.rounds}, of {options.seconds} s",
            "other load": f"{busy:.0f} % of all CPUs busy before anything was started",
        },
        "costs": costs,
        "points": points,
        "waits": simulate_waits(),
    }


BACKENDS: Final = (
    "SELECT array_agg(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'pressroom'"
)


def reads(server: Server) -> tuple[Workload, Workload]:
    """Return the workloads of the list and of articles."""
    listed = server.get_json("/articles")
    paths = [f"/articles/{each['id']}" for each in listed[:ONE_ARTICLE_IDS]]
    return (
        Workload("list", [Request("/articles")], 5000, 32),
        Workload("article", [Request(path) for path in paths], 500, 32),
    )


class Meter:
    """Measures one server. The costs are the medians of the rounds."""

    def __init__(
        self, generator: Generator, server: Server, url: str, options: Options, log: Log
    ) -> None:
        self._generator = generator
        self._server = server
        self._url = url
        self._options = options
        self._log = log
        (pids,) = execute(url, BACKENDS)
        self._postgres = psutil.Process(pids[0]).ppid()

    def read(self, workload: Workload, proxy: Server) -> dict[str, float]:
        """Return the cost of a read, as a Cost, while half of the worker's processor is used.

        A worker at its limit needs a quarter less for each request.
        """
        done = self._generator.measure(self._server, workload, 1, 0)
        rate = COST_USE * 1000 / done.cpu_ms
        worker, postgres, _ = self._costs(_paced(workload, rate))
        wire = _wire_bytes(proxy, workload, self._server)
        return {"worker_ms": worker, "postgres_ms": postgres, "wire_bytes": wire}

    def write(self, workload: Workload) -> dict[str, float]:
        """Return the cost of a write, as a Cost."""
        if workload.name == writing.FAVORITE:
            execute(self._url, "DELETE FROM favorites")
        execute(self._url, "CHECKPOINT")
        before = execute(self._url, *SIZES)
        worker, postgres, requests = self._costs(workload)
        after = execute(self._url, *SIZES)
        wal, disk = (max(0.0, float(b - a)) for a, b in zip(before, after, strict=True))
        return {
            "worker_ms": worker,
            "postgres_ms": postgres,
            "wal_bytes": round(wal / requests),
            "disk_bytes": round(disk / requests),
        }

    def login_ms(self) -> float:
        """Return the processor time of a login."""
        workload = login_workload(4, 100)
        return self._generator.measure(self._server, workload, 3, 0).cpu_ms

    def nginx_ms(self, proxy: Server, workload: Workload) -> float:
        """Return the processor time of nginx for a response."""
        self._generator.warm_up(proxy, workload, 1)
        rounds = [
            self._generator.measure(proxy, workload, self._options.seconds, number).cpu_ms
            for number in range(self._options.rounds)
        ]
        self._log(f"{proxy.name}, {workload.name}: {statistics.median(rounds):.3f} ms")
        return round(statistics.median(rounds), 4)

    def _costs(self, workload: Workload) -> tuple[float, float, int]:
        """Return milliseconds of the worker and of PostgreSQL, and the number of requests."""
        requests = self._generator.drive(self._server, workload, 1, allowed_errors=("none",))[
            "requests"
        ]
        worker, postgres = [], []
        for number in range(self._options.rounds):
            before = self._postgres_seconds()
            done = self._generator.measure(self._server, workload, self._options.seconds, number)
            worker.append(done.cpu_ms)
            postgres.append((self._postgres_seconds() - before) * 1000 / done.requests)
            requests += done.requests
        found = statistics.median(worker), statistics.median(postgres)
        self._log(f"{workload.name}: {found[0]:.3f} ms + {found[1]:.3f} ms")
        return round(found[0], 4), round(found[1], 4), requests

    def _postgres_seconds(self) -> float:
        times = [each.cpu_times() for each in children(self._postgres)]
        return float(sum(time.user + time.system for time in times))

    def points(self, workload: Workload, worker_ms: float) -> list[dict[str, float]]:
        """Return measurements of a worker at several uses, beside what the model says.

        The worker has one processor; the generator and PostgreSQL have the others.
        """
        with pinned_worker(self._server, database_url=self._url):
            idle = self._paced(workload, IDLE * 1000 / worker_ms)
            self._log(f"idle: mean {idle['mean_ms']:.2f} ms")
            found = []
            for use in USES:
                point = self._paced(workload, use * 1000 / worker_ms)
                simulated = simulate_worker(idle, worker_ms, rate=point["rate"])
                point |= {
                    "model_use": point["rate"] * worker_ms / 1000,
                    "model_mean_ms": simulated.mean * 1000,
                    "model_p50_ms": simulated.percentile(0.5) * 1000,
                    "model_p99_ms": simulated.percentile(0.99) * 1000,
                }
                self._log(f"{use:.0%}: {point}")
                found.append({name: round(value, 3) for name, value in point.items()})
        return [{name: round(value, 3) for name, value in idle.items()}, *found]

    def _paced(self, workload: Workload, rate: float) -> dict[str, float]:
        """Return the best of some rounds: other programs only make the response times longer."""
        paced = _paced(workload, rate)
        self._generator.warm_up(self._server, paced, 1)
        rounds = [self._point(paced) for _ in range(2 * self._options.rounds - 1)]
        return min(rounds, key=lambda point: point["mean_ms"])

    def _point(self, workload: Workload) -> dict[str, float]:
        before = self._server.cpu_seconds()
        counts = self._generator.drive(self._server, workload, self._options.seconds)
        seconds = counts["duration"] / 1e6
        return {
            "rate": counts["requests"] / seconds,
            "use": (self._server.cpu_seconds() - before) / seconds,
            "mean_ms": counts["mean"] / 1000,
            "p50_ms": counts["p50"] / 1000,
            "p99_ms": counts["p99"] / 1000,
        }


def _paced(workload: Workload, rate: float) -> Workload:
    """Return the workload with so many connections that they send `rate` requests per second."""
    connections = max(8, round(rate * PAUSE_MS / 1000))
    return replace(workload, connections=connections, pause_ms=PAUSE_MS)


SIZES: Final = (
    "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn",
    "SELECT pg_database_size(current_database())",
)


def _pss(process: psutil.Process) -> float:
    """Return the proportional set size in MB."""
    return round(float(process.memory_full_info().pss) / 1e6, 1)


def _wire_bytes(proxy: Server, workload: Workload, server: Server) -> float:
    """Return the size of the compressed response of nginx, with its headers."""
    connection = HTTPConnection(HOST, proxy.port, timeout=30)
    headers = {"Accept-Encoding": "gzip"}
    if workload.is_authenticated:
        headers["Authorization"] = server.authorization()
    connection.request("GET", workload.requests[0].path, headers=headers)
    response = connection.getresponse()
    fields = sum(len(name) + len(value) + 4 for name, value in response.getheaders())
    size = len(response.read()) + fields
    connection.close()
    return size


# --- simulation


def simulate_worker(idle: Mapping[str, float], worker_ms: float, *, rate: float) -> Simulated:
    """Simulate one worker, followed by a delay.

    `idle` is a point with few requests. What the worker does not do itself then takes constant
    time, for PostgreSQL and the network. The slowest requests waited for other work.
    """
    delay = Work(max(idle["p50_ms"] - worker_ms, 0.0) / 1000)
    return simulate(
        {"worker": Pool(), "database": Pool(servers=None)},
        [Step("worker", Work(worker_ms / 1000)), Step("database", delay)],
        rate=rate,
        requests=SIMULATED,
        interruptions=interruptions_of(idle),
    )


def interruptions_of(idle: Mapping[str, float]) -> Interruptions:
    """Return the interruptions that explain the mean and the p99 of a point with few requests.

    They come at rate v, and take d on average, exponentially distributed. A request then waits with
    probability v·d, and longer than x with v·d·exp(-x / d): v·d² on average.
    """
    excess = max(idle["mean_ms"] - idle["p50_ms"], 1e-6) / 1000
    slowest = max(idle["p99_ms"] - idle["p50_ms"], 1e-6) / 1000
    low, high = slowest / 100, slowest
    for _ in range(60):
        middle = (low + high) / 2
        is_rarer = excess / middle * math.exp(-slowest / middle) < 0.01
        low, high = (middle, high) if is_rarer else (low, middle)
    return Interruptions("worker", excess / high**2, Work(high, 1.0))


def simulate_waits() -> list[dict[str, float]]:
    """Return the simulated p99 by use, in multiples of the mean time of a request.

    The times vary as an exponential distribution: there are requests of many kinds.
    """
    pools = {"separate": Pool(queues=4), "shared_4": Pool(servers=4), "shared_16": Pool(servers=16)}
    workers = {"separate": 4, "shared_4": 4, "shared_16": 16}
    return [
        {"use": use}
        | {
            name: round(
                simulate(
                    {"worker": pool},
                    [Step("worker", Work(1.0, 1.0))],
                    rate=use * workers[name],
                    requests=SIMULATED,
                ).percentile(0.99),
                1,
            )
            for name, pool in pools.items()
        }
        for use in (0.3, 0.6, 0.8, 0.9)
    ]


# --- tables


def write_tables(stored: Mapping[str, Any]) -> None:
    """Replace the tables of docs/scaling.md by those of the stored results."""
    text = PAGE.read_text()
    for name, table in tables(stored).items():
        before, _, rest = text.partition(f"<!-- {name} -->\n")
        after = rest.partition(f"<!-- end of {name} -->\n")[2]
        if not after:
            raise BenchError(f"{PAGE.name} has no place for the table {name!r}")
        text = f"{before}<!-- {name} -->\n{table}\n<!-- end of {name} -->\n{after}"
    PAGE.write_text(text)


def tables(stored: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of docs/scaling.md by their names."""
    costs = model.costs_of(stored)
    return {
        "conditions": "\n".join(f"- {name}: {each}" for name, each in stored["conditions"].items()),
        "costs": markdown_table(*_cost_table(costs)),
        "others": markdown_table(*_other_table(costs)),
        "demand": markdown_table(*_demand_table(costs)),
        "bounds": markdown_table(*_bound_table(costs)),
        "lifetimes": markdown_table(*_lifetime_table(costs)),
        "caches": markdown_table(*_cache_table(stored["caches"])),
        "points": markdown_table(*_point_table(stored["points"])),
        "waits": markdown_table(*_wait_table(stored["waits"])),
    }


Table = tuple[list[str], list[list[str]]]


def _cost_table(costs: model.Costs) -> Table:
    def row(name: str, cost: model.Cost) -> list[str]:
        sizes = (cost.wire_bytes, cost.wal_bytes, cost.disk_bytes)
        cells = [_short(size) if size else "" for size in sizes]
        return [name, f"{cost.worker_ms:.2f}", f"{cost.postgres_ms:.2f}", *cells]

    headings = ["request", "backend, ms", "PostgreSQL, ms", "response", "WAL", "growth"]
    return headings, [
        row("list of 20", costs.list),
        row("article", costs.article),
        row("list of 20, with a token", costs.signed_in_list),
        row("article, with a token", costs.signed_in_article),
        *(row(name, cost) for name, cost in costs.writes.items()),
    ]


def _other_table(costs: model.Costs) -> Table:
    rows = {
        "nginx: a response from the cache": f"{costs.cached_ms:.3f} ms",
        "nginx: a response of the backend, compressed": f"{costs.proxied_ms:.3f} ms",
        "nginx: an image of 60 KB": f"{costs.file_ms:.3f} ms",
        "a login": f"{costs.login_ms:.0f} ms",
        "memory of a worker": f"{costs.worker_mb:.0f} MB",
        "memory of a connection in PostgreSQL": f"{costs.connection_mb:.0f} MB",
    }
    return ["other costs", ""], [list(row) for row in rows.items()]


def _demand_table(costs: model.Costs) -> Table:
    layouts = [model.layout(views, costs) for views in model.SCALES]
    demands = [each.demand for each in layouts]
    rows: dict[str, list[str]] = {
        "page views per second": [_short(each.traffic.rate) for each in demands],
        "requests at nginx, with images": [_short(each.edge) for each in demands],
        "of the anonymous page views, from the cache": [f"{each.hit_rate:.0%}" for each in demands],
        "reads of the backend per second": [_short(each.origin_reads) for each in demands],
        "writes per second": [_short(each.writes) for each in demands],
        "processors: nginx": [_short(each.nginx) for each in demands],
        "processors: backend": [_short(each.workers) for each in demands],
        "processors: PostgreSQL, reads": [_short(each.reads) for each in demands],
        "processors: PostgreSQL, writes": [_short(each.primary) for each in demands],
        "network, Mbit/s": [_short(each.network * 8 / 1e6) for each in demands],
        "articles after a year": [_short(each.traffic.articles) for each in demands],
        "database, a year": [_bytes(each.rows * model.YEAR) for each in demands],
        "images, a year": [_bytes(each.media * model.YEAR) for each in demands],
        "WAL, a day": [_bytes(each.wal) for each in demands],
        "**hosts of nginx**": [str(each.edges) for each in layouts],
        "**workers**": [str(each.workers) for each in layouts],
        "**read replicas**": [str(each.replicas) for each in layouts],
        "**connections without PgBouncer**": [f"{each.connections:,}" for each in layouts],
    }
    headings = ["page views a day", *(_short(views) for views in model.SCALES)]
    return headings, [[name, *cells] for name, cells in rows.items()]


def _bound_table(costs: model.Costs) -> Table:
    rows = [[each.name, _short(each.views), each.remedy] for each in model.bounds(costs)]
    return ["what is used up", "at page views a day", "add"], rows


def _lifetime_table(costs: model.Costs) -> Table:
    rows = []
    for seconds in (0.0, model.EDGE_SECONDS, 10.0, 60.0):
        row = [f"{seconds:.0f} s"]
        for views in model.SCALES:
            edges = model.layout(views, costs).edges
            needs = model.demand(model.Traffic(views), costs, caches=edges, seconds=seconds)
            row.append(f"{_short(needs.workers)} ({needs.hit_rate:.0%})")
        rows.append(row)
    return ["a page is fresh for", *(_short(views) for views in model.SCALES)], rows


def _cache_table(caches: Sequence[Mapping[str, float]]) -> Table:
    rows = []
    for each in caches:
        of = (
            each["rate"],
            model.CACHED_PAGES,
            model.CACHED_SKEW,
            each["seconds"],
            int(each["caches"]),
        )
        hits = 1 - model.origin_rate(*of) / each["rate"]
        cells = [f"{each['caches']:.0f}", f"{each['seconds']:.0f} s", f"{each['rate']:,.0f}"]
        cells += [f"{each['origin']:,.0f}", f"{1 - each['origin'] / each['rate']:.0%}"]
        age = f"{each['staleness']:.1f} s" if "staleness" in each else ""
        rows.append([*cells, f"{hits:.0%}", age])
    headings = ["nginx", "fresh for", "requests/s", "at the backend", "from the cache", "model"]
    return [*headings, "oldest response"], rows


def _point_table(points: Sequence[Mapping[str, float]]) -> Table:
    rows = []
    for point in points[1:]:
        row = [f"{point['rate']:,.0f}", *_compared(point["use"], point["model_use"], "{:.0%}")]
        for name in ("mean_ms", "p50_ms", "p99_ms"):
            row += _compared(point[name], point[f"model_{name}"], "{:.1f}")
        rows.append(row)
    headings = ["requests/s"]
    for name in ("use", "mean, ms", "p50, ms", "p99, ms"):
        headings += [f"{name}: measured", "model"]
    return headings, rows


def _compared(measured: float, modelled: float, form: str) -> list[str]:
    """Return two cells: the measured value, and that of the model with its error."""
    error = modelled / measured - 1
    return [form.format(measured), f"{form.format(modelled)} ({error:+.0%})"]


def _wait_table(waits: Sequence[Mapping[str, float]]) -> Table:
    rows = [[f"{each['use']:.0%}", *(f"{each[name]:.1f}" for name in WAITS)] for each in waits]
    return ["use", *WAITS.values()], rows


WAITS: Final = {
    "separate": "workers with a queue each",
    "shared_4": "4 with a common queue",
    "shared_16": "16 with a common queue",
}


def _short(value: float) -> str:
    """Return a number with two significant digits, such as 0.035, 12, 4,100 or 2.6 M."""
    for size, unit in ((1e9, " G"), (1e6, " M")):
        if value >= size:
            return f"{float(f'{value / size:.2g}'):g}{unit}"
    if value >= 100:
        return f"{float(f'{value:.2g}'):,.0f}"
    return f"{float(f'{value:.2g}'):g}" if value >= 0.01 else "< 0.01"


def _bytes(value: float) -> str:
    for size, unit in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if value >= size:
            return f"{float(f'{value / size:.2g}'):g} {unit}"
    return "< 1 MB"
