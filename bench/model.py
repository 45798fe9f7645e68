"""The capacity model: what a number of page views a day needs.

Costs are measured by capacity.py, and stored in capacity.json. `Traffic` has what is assumed. All
rates are those of the busiest hour, unless they are "a day".
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

STORED: Final = Path(__file__).with_name("capacity.json")
SCALES: Final = (1_000, 100_000, 10_000_000, 1_000_000_000)
"""Page views a day."""
DAY: Final = 86_400.0
YEAR: Final = 365.0
UTILIZATION: Final = 0.6
"""The highest use of processors and networks: above it, queues become long."""
CONNECTIONS_OF_WORKER: Final = 11
OWN_CONNECTIONS: Final = 3
"""Connections of jobs that run in one process at a time."""
MAX_CONNECTIONS: Final = 197
"""Those that compose leaves to the backend."""
EDGE_SECONDS: Final = 1.0
"""PUBLIC_CACHE_SECONDS."""
CACHED_PAGES: Final = 2_000
CACHED_SKEW: Final = 1.0
"""The pages of the measurement in caches.py."""


class Host(NamedTuple):
    """A common size of machine. `disk` is in bytes, `network` in bytes per second."""

    processors: int = 4
    memory_mb: int = 8192
    disk: float = 200e9
    network: float = 1e9 / 8


HOST: Final = Host()


@dataclass(frozen=True)
class Traffic:
    """What readers and writers do, for `views` page views a day. These are assumptions."""

    views: float
    peak: float = 3.0
    """The rate of the busiest hour, relative to the mean of the day."""
    lists: float = 0.3
    """The share of lists among page views. The others are articles."""
    signed_in: float = 0.02
    """The share of page views with a token, which bypass the cache."""
    image_bytes: float = 60_000
    """Each page view requests one image of this size."""
    views_per_comment: float = 500
    views_per_favorite: float = 200
    views_per_article: float = 20_000
    changes_per_article: float = 3
    views_per_login: float = 2_000
    images_per_article: float = 3
    stored_image_bytes: float = 400_000
    """All sizes of an image together."""
    skew: float = 1.0
    """The exponent of Zipf's law: how much more popular the first pages are than the others."""
    list_pages: int = 1000
    """The lists that are requested: the first pages of the site, of tags and of authors."""

    @property
    def rate(self) -> float:
        """Return the page views per second."""
        return self.views * self.peak / DAY

    @property
    def articles(self) -> int:
        """Return the number of articles: those of a year, and a thousand from before."""
        return 1000 + int(self.views / self.views_per_article * YEAR)

    def writes(self) -> Mapping[str, float]:
        """Return the writes a day by their kind."""
        articles = self.views / self.views_per_article
        return {
            "create an article": articles,
            "change an article": articles * self.changes_per_article,
            "comment": self.views / self.views_per_comment,
            "favorite": self.views / self.views_per_favorite,
        }


class Cost(NamedTuple):
    """What one request takes: processor time in milliseconds, and bytes."""

    worker_ms: float
    postgres_ms: float
    wire_bytes: float = 0.0
    """The compressed response, with its headers."""
    wal_bytes: float = 0.0
    disk_bytes: float = 0.0


class Costs(NamedTuple):
    """The measured costs."""

    list: Cost
    article: Cost
    signed_in_list: Cost
    signed_in_article: Cost
    writes: Mapping[str, Cost]
    login_ms: float
    cached_ms: float
    """Processor time of nginx for a cached response."""
    proxied_ms: float
    """Processor time of nginx for a response of the backend."""
    file_ms: float
    """Processor time of nginx for an image."""
    worker_mb: float
    connection_mb: float


def read_stored(path: Path = STORED) -> dict[str, Any]:
    """Return the results of the last complete run of capacity.py."""
    stored: dict[str, Any] = json.loads(path.read_text())
    return stored


def costs_of(stored: Mapping[str, Any]) -> Costs:
    """Return the costs in the results of a run."""
    values: dict[str, Any] = dict(stored["costs"])
    values |= {name: Cost(**values[name]) for name in READS}
    values["writes"] = {name: Cost(**cost) for name, cost in values["writes"].items()}
    return Costs(**values)


READS: Final = ("list", "article", "signed_in_list", "signed_in_article")


@lru_cache
def origin_rate(rate: float, pages: int, skew: float, seconds: float, caches: int) -> float:
    """Return the requests that reach the backend, of `rate` requests for the most popular `pages`.

    Each cache gets an equal share, and keeps a page for `seconds`. A page that is requested at rate
    r then reaches the backend at rate r / (1 + r * seconds), for each cache.
    """
    total = reached = 0.0
    shares = list(_shares(pages, skew))
    for count, share in shares:
        total += count * share
    for count, share in shares:
        each = rate * share / total / caches
        reached += count * caches * each / (1 + each * seconds)
    return reached


def _shares(pages: int, skew: float) -> list[tuple[float, float]]:
    """Return numbers of pages with their popularity: the first thousand, then groups of them."""
    shares = [(1.0, rank**-skew) for rank in range(1, min(pages, 1000) + 1)]
    start = 1001
    while start <= pages:
        end = min(int(start * 1.05) + 1, pages + 1)
        middle = math.sqrt(start * (end - 1))
        shares.append((float(end - start), middle**-skew))
        start = end
    return shares


@dataclass(frozen=True)
class Demand:
    """What the traffic needs in the busiest hour, and how the data grows."""

    traffic: Traffic
    edge: float
    """Requests per second at nginx, with those for images."""
    origin_reads: float
    """Reads per second that reach the backend."""
    hit_rate: float
    """The share of anonymous page views that the cache answers."""
    writes: float
    """Writes per second."""
    nginx: float
    """Processors of nginx."""
    workers: float
    """Processors of the backend."""
    primary: float
    """Processors of PostgreSQL for writes."""
    reads: float
    """Processors of PostgreSQL for reads."""
    network: float
    """Bytes per second."""
    wal: float
    """Bytes a day."""
    rows: float
    """Bytes a day in the database."""
    media: float
    """Bytes a day of images."""


def demand(
    traffic: Traffic, costs: Costs, *, caches: int = 1, seconds: float = EDGE_SECONDS
) -> Demand:
    """Return what the traffic needs, with a number of nginx that cache pages for `seconds`."""
    rate = traffic.rate
    anonymous, signed_in = rate * (1 - traffic.signed_in), rate * traffic.signed_in
    to_articles, to_lists = anonymous * (1 - traffic.lists), anonymous * traffic.lists
    articles = origin_rate(to_articles, traffic.articles, traffic.skew, seconds, caches)
    lists = origin_rate(to_lists, traffic.list_pages, traffic.skew, seconds, caches)
    reads = [
        (costs.article, articles),
        (costs.list, lists),
        (costs.signed_in_article, signed_in * (1 - traffic.lists)),
        (costs.signed_in_list, signed_in * traffic.lists),
    ]
    busiest = traffic.peak / DAY
    by_kind = traffic.writes()
    writes = sum(by_kind.values()) * busiest
    logins = traffic.views / traffic.views_per_login * busiest
    origin = sum(each for _, each in reads)
    page_bytes = (
        traffic.lists * costs.list.wire_bytes + (1 - traffic.lists) * costs.article.wire_bytes
    )

    def write_total(name: str) -> float:
        totals = (getattr(costs.writes[kind], name) * each for kind, each in by_kind.items())
        return float(sum(totals))

    return Demand(
        traffic=traffic,
        edge=2 * rate + writes,
        origin_reads=origin,
        hit_rate=max(0.0, 1 - (articles + lists) / anonymous),
        writes=writes,
        nginx=(
            (rate - origin) * costs.cached_ms
            + (origin + writes) * costs.proxied_ms
            + rate * costs.file_ms
        )
        / 1000,
        workers=(
            sum(cost.worker_ms * each for cost, each in reads)
            + write_total("worker_ms") * busiest
            + logins * costs.login_ms
        )
        / 1000,
        primary=write_total("postgres_ms") * busiest / 1000,
        reads=sum(cost.postgres_ms * each for cost, each in reads) / 1000,
        network=rate * (page_bytes + traffic.image_bytes),
        wal=write_total("wal_bytes"),
        rows=write_total("disk_bytes"),
        media=traffic.views
        / traffic.views_per_article
        * traffic.images_per_article
        * traffic.stored_image_bytes,
    )


@dataclass(frozen=True)
class Layout:
    """How many of each are needed, so that none is used above UTILIZATION."""

    demand: Demand
    edges: int
    """Hosts of nginx."""
    workers: int
    backends: int
    """Hosts of the backend."""
    replicas: int
    """Hosts of PostgreSQL that serve reads, beside the primary."""
    connections: int


def layout(views: float, costs: Costs, host: Host = HOST) -> Layout:
    """Return how many hosts of each kind the traffic needs, if each kind has its own."""
    traffic = Traffic(views)
    edges = 1
    while True:
        needs = demand(traffic, costs, caches=edges)
        wanted = max(_count(needs.nginx, host.processors), _count(needs.network, host.network))
        if wanted <= edges:
            break
        edges = wanted
    workers = _count(needs.workers, 1)
    reads_on_primary = host.processors * UTILIZATION - needs.primary
    replicas = max(0, math.ceil((needs.reads - max(reads_on_primary, 0)) / _usable(host)))
    return Layout(
        demand=needs,
        edges=edges,
        workers=workers,
        backends=math.ceil(workers / host.processors),
        replicas=replicas,
        connections=workers * CONNECTIONS_OF_WORKER + OWN_CONNECTIONS,
    )


def _usable(host: Host) -> float:
    return host.processors * UTILIZATION


def _count(needed: float, capacity: float) -> int:
    return max(1, math.ceil(needed / (capacity * UTILIZATION)))


class Bound(NamedTuple):
    """What a layout runs out of, at a number of page views a day, and what to add."""

    name: str
    views: float
    remedy: str


def bounds(costs: Costs, host: Host = HOST) -> list[Bound]:
    """Return what one host runs out of, the earliest first, and then what a primary does."""
    worker_count = host.processors

    def one_host(needs: Demand) -> float:
        return (needs.nginx + needs.workers + needs.primary + needs.reads) / host.processors

    def own_database(needs: Demand) -> float:
        return (needs.primary + needs.reads) / host.processors

    kinds: list[tuple[str, Callable[[Demand], float], float, str]] = [
        (
            f"disk of {host.disk / 1e9:.0f} GB, after a year",
            lambda needs: (needs.rows + needs.media) * YEAR / host.disk,
            1.0,
            "a bucket for images",
        ),
        (
            f"network of {host.network * 8 / 1e9:.0f} Gbit/s",
            lambda needs: needs.network / host.network,
            UTILIZATION,
            "a CDN for images and pages, or more nginx",
        ),
        (
            f"{host.processors} processors for everything",
            one_host,
            UTILIZATION,
            "a host for PostgreSQL, then hosts for the backend",
        ),
        (
            f"{worker_count} workers",
            lambda needs: needs.workers / worker_count,
            UTILIZATION,
            "replicas of the backend",
        ),
        (
            f"{host.processors} processors for PostgreSQL",
            own_database,
            UTILIZATION,
            "read replicas",
        ),
        (
            f"{MAX_CONNECTIONS} connections",
            lambda needs: _count(needs.workers, 1) * CONNECTIONS_OF_WORKER / MAX_CONNECTIONS,
            1.0,
            "PgBouncer",
        ),
        (
            f"{host.processors} processors for writes",
            lambda needs: needs.primary / host.processors,
            UTILIZATION,
            "a larger primary: writes are not distributed",
        ),
        (
            f"database of {host.disk / 1e9:.0f} GB, after a year",
            lambda needs: needs.rows * YEAR / host.disk,
            1.0,
            "a larger disk for PostgreSQL",
        ),
    ]
    found = [
        Bound(name, _views_at(use, limit, costs), remedy) for name, use, limit, remedy in kinds
    ]
    return sorted(found, key=lambda bound: bound.views)


def _views_at(use: Callable[[Demand], float], limit: float, costs: Costs) -> float:
    """Return the page views a day at which the use reaches the limit, by bisection."""
    low, high = 1.0, 1e13
    for _ in range(60):
        middle = math.sqrt(low * high)
        needs = demand(Traffic(middle), costs, caches=layout(middle, costs).edges)
        low, high = (middle, high) if use(needs) < limit else (low, middle)
    return high
