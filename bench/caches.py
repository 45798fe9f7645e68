# ruff: noqa: T201 - a script: it prints to the terminal
"""Measure what several nginx with separate caches leave to the backend, and how old responses are.

    make bench ARGS=caches            three minutes; writes capacity.json and docs/scaling.md

The requests have Zipf's distribution: article number n is requested 1/n as often as the first one.
Meanwhile, the most popular article is changed. A response is stale from the change on, as long as
it shows the former version.
"""

import json
import random
import secrets
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

import capacity
import edge
import model
from app.core.config import get_settings
from app.db import embedded, migrate
from load import Generator, check, result
from options import parse_options
from report import Request, Workload
from servers import (
    HOST,
    SERVER_ENVIRONMENT,
    BenchError,
    Server,
    execute,
    free_port,
    scratch_database,
    seed,
    serving,
)
from workloads import open_sessions

RATE: Final = 1_000
"""Requests per second of all nginx together."""
PAUSE_MS: Final = 100
LIFETIMES: Final = (1, 10)
CACHES: Final = (1, 2, 4)
METRICS_SECONDS: Final = 1.5
"""Workers write their metrics once a second."""


def main(arguments: Sequence[str], wrk: str) -> None:
    """Measure, and write the results. Raises BenchError."""
    options = parse_options(arguments, what="Several caches", full=(1, 6), quick=(1, 5))
    if problem := edge.why_no_nginx():
        raise BenchError(f"nginx cannot be started: {problem}")
    found = []
    for lifetime in LIFETIMES:
        found += _measure(lifetime, options.seconds, Generator(wrk))
    if not options.quick:
        stored = model.read_stored() | {"caches": found}
        model.STORED.write_text(json.dumps(stored, indent=2) + "\n")
        capacity.write_tables(stored)
        print(f"written: {model.STORED.name}, {capacity.PAGE.name}")


def _measure(lifetime: int, seconds: int, generator: Generator) -> list[dict[str, float]]:
    port = free_port()
    with ExitStack() as running:
        server_url = get_settings().database_url or embedded.start(
            get_settings().data_dir / "bench" / "postgres"
        )
        url = running.enter_context(scratch_database(server_url))
        migrate.upgrade(url)
        seed(url, model.CACHED_PAGES * 6 // 5)  # some are not published
        environment = SERVER_ENVIRONMENT | {
            "SECRET_KEY": secrets.token_hex(32),
            "DATABASE_URL": url,
            "METRICS_PORT": str(port),
            "PUBLIC_CACHE_SECONDS": str(lifetime),
        }
        server = running.enter_context(
            serving("Pressroom", "app.main:create_app()", "/health/ready", environment)
        )
        open_sessions(server)
        edges = [running.enter_context(edge.edge(server, {}))[0] for _ in range(max(CACHES))]
        (ids,) = execute(url, ARTICLES.format(model.CACHED_PAGES))
        found = []
        for count in CACHES:
            _drive(edges[:count], ids, lifetime, generator, port)  # fills the caches
            each = _drive(edges[:count], ids, seconds, generator, port)
            found.append({"caches": count, "seconds": lifetime, **each})
            print(found[-1], flush=True)
        time.sleep(lifetime + STALE_SECONDS)  # all pages expire
        found[-1]["staleness"] = _staleness(server, edges, ids[0])
        print(found[-1], flush=True)
        return found


STALE_SECONDS: Final = 2
ARTICLES: Final = (
    "SELECT array_agg(id ORDER BY author_id <> (SELECT id FROM users WHERE username = 'writer1'))"
    " FROM (SELECT id, author_id FROM articles WHERE published_at < now()"
    " AND archived_at IS NULL AND deleted_at IS NULL ORDER BY id LIMIT {}) AS first"
)


def _drive(
    edges: Sequence[Server],
    ids: Sequence[int],
    seconds: int,
    generator: Generator,
    metrics_port: int,
) -> dict[str, Any]:
    """Send requests to all nginx at the same time; return the rates at nginx and at the backend."""
    rng = random.Random(1)  # noqa: S311 - not a secret
    weights = [1 / number**model.CACHED_SKEW for number in range(1, len(ids) + 1)]
    share = RATE // len(edges)
    before = _backend_requests(metrics_port)
    running = []
    for server in edges:
        chosen = rng.choices(ids, weights, k=share * (seconds + 1))
        requests = [Request(f"/articles/{number}") for number in chosen]
        connections = max(1, share * PAUSE_MS // 1000)
        workload = Workload("articles", requests, 500, connections, pause_ms=PAUSE_MS)
        running.append((generator.start(server, workload, seconds), server, workload))
    rate = 0.0
    for wrk, server, workload in running:
        counts = result(wrk, seconds + 30)
        check(counts, server, workload)
        rate += counts["requests"] / counts["duration"] * 1e6
    reached = _backend_requests(metrics_port) - before
    return {"rate": round(rate, 1), "origin": round(reached / seconds, 1)}


def _backend_requests(port: int) -> float:
    """Return the number of articles that the backend was asked for."""
    time.sleep(METRICS_SECONDS)
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=20) as response:
        text = response.read().decode()
    counted = 'pressroom_http_requests_total{method="GET",route="/articles/{article_id}"'
    lines = (line for line in text.splitlines() if line.startswith(counted))
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def _staleness(server: Server, edges: Sequence[Server], article: int) -> float:
    """Change an article, and return after how many seconds no nginx shows the former title."""
    path, title = f"/articles/{article}", f"Changed {secrets.token_hex(4)}"
    for each in edges:
        each.get_json(path)  # caches the former version
    body = json.dumps({"title": title})
    status, _ = server.request("PATCH", path, body, "application/json", server.authorization())
    if status != 200:
        raise BenchError(f"the article cannot be changed: {status}")
    changed = stale = time.monotonic()
    outdated = list(edges)
    while outdated:
        sent = time.monotonic()
        if sent - changed > STALE_LIMIT:
            raise BenchError("a former version does not leave the cache")
        outdated = [each for each in outdated if each.get_json(path)["title"] != title]
        stale = sent if outdated else stale
        time.sleep(0.01)
    return round(stale - changed, 2)


STALE_LIMIT: Final = 30.0
