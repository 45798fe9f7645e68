"""The capacity model: known results of queueing theory, and the tables of docs/scaling.md.

The nginx of the benchmarks belongs to it.
"""

import math
from functools import cache

import pytest

from app.core.config import PROJECT_DIR

pytestmark = pytest.mark.checkout

if not (PROJECT_DIR / "bench").exists():
    pytest.skip("the image has only the backend", allow_module_level=True)

import capacity  # noqa: E402 - after the skip
import edge  # noqa: E402 - after the skip
import model  # noqa: E402 - after the skip
import queueing  # noqa: E402 - after the skip
from queueing import Interruptions, Pool, Step, Work  # noqa: E402 - after the skip

REQUESTS = 40_000
"""Enough for a few per cent of accuracy."""


@cache
def simulate(
    pool: Pool,
    work: Work,
    rate: float,
    interruptions: Interruptions | None = None,
    requests: int = REQUESTS,
) -> queueing.Simulated:
    return queueing.simulate(
        {"worker": pool},
        [Step("worker", work)],
        rate=rate,
        requests=requests,
        interruptions=interruptions,
    )


class TestFormulas:
    @pytest.mark.parametrize(
        ("servers", "offered", "waits"),
        [
            (1, 0.5, 0.5),  # M/M/1: the use
            (1, 0.9, 0.9),
            (2, 1.0, 1 / 3),  # M/M/2: 2u² / (1 + u)
            (10, 8.0, 0.4092),  # tables of Erlang C
            (100, 90.0, 0.2170),
        ],
    )
    def test_erlang_c(self, servers: int, offered: float, waits: float) -> None:
        assert queueing.erlang_c(servers, offered) == pytest.approx(waits, rel=2e-3)

    @pytest.mark.parametrize("use", [0.2, 0.5, 0.9])
    def test_mean_wait_of_one_server(self, use: float) -> None:
        """A constant time halves the wait of an exponential one."""
        exponential = queueing.mean_wait(1, use, Work(1.0, 1.0))
        assert exponential == pytest.approx(use / (1 - use))
        assert queueing.mean_wait(1, use, Work(1.0)) == pytest.approx(exponential / 2)


class TestSimulation:
    @pytest.mark.parametrize("variation", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("servers", [1, 4])
    def test_mean_is_that_of_the_formula(self, servers: int, variation: float) -> None:
        work, rate = Work(1.0, variation), 0.7 * servers
        expected = 1.0 + queueing.mean_wait(servers, rate, work)
        assert simulate(Pool(servers), work, rate).mean == pytest.approx(expected, rel=0.04)

    def test_percentiles_of_one_server_are_exponential(self) -> None:
        simulated = simulate(Pool(), Work(1.0, 1.0), 0.7)
        for share in (0.5, 0.9, 0.99):
            expected = -math.log(1 - share) / (1 - 0.7)
            assert simulated.percentile(share) == pytest.approx(expected, rel=0.08)

    @pytest.mark.parametrize("pool", [Pool(), Pool(servers=4), Pool(queues=4)])
    def test_littles_law(self, pool: Pool) -> None:
        """The number in progress, seen by arrivals, is the rate times the mean time."""
        rate = 0.7 * (pool.servers or 1) * pool.queues
        simulated = simulate(pool, Work(1.0, 1.0), rate)
        assert simulated.in_progress == pytest.approx(rate * simulated.mean, rel=0.04)

    def test_separate_queues_are_queues_of_one_server(self) -> None:
        separate = simulate(Pool(queues=4), Work(1.0, 1.0), 4 * 0.7)
        assert separate.mean == pytest.approx(1 / (1 - 0.7), rel=0.05)

    def test_nobody_waits_without_servers(self) -> None:
        simulated = simulate(Pool(servers=None), Work(1.0), 50.0, requests=1000)
        assert simulated.percentile(0.99) == pytest.approx(1)

    def test_interruptions_explain_the_point_that_they_are_derived_from(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(capacity, "SIMULATED", 20_000)  # there are more interruptions
        idle = {"rate": 10.0, "mean_ms": 1.2, "p50_ms": 0.9, "p99_ms": 8.0}
        simulated = capacity.simulate_worker(idle, 0.4, rate=idle["rate"])
        assert simulated.mean * 1000 == pytest.approx(1.2, rel=0.05)
        assert simulated.percentile(0.5) * 1000 == pytest.approx(0.9, rel=0.05)
        assert simulated.percentile(0.99) * 1000 == pytest.approx(8.0, rel=0.15)

    def test_interruptions_use_their_share_of_a_server(self) -> None:
        """Requests wait as behind other requests of the same length."""
        work = Work(1.0, 1.0)
        other = Interruptions("worker", 0.3, work)
        simulated = simulate(Pool(), work, 0.4, interruptions=other)
        assert simulated.mean == pytest.approx(1 / (1 - 0.7), rel=0.05)


class TestCaches:
    def test_no_lifetime_passes_everything_on(self) -> None:
        assert model.origin_rate(500.0, 10_000, 1.0, 0.0, 3) == pytest.approx(500)

    def test_one_page_is_fetched_once_in_its_lifetime_by_each_cache(self) -> None:
        assert model.origin_rate(1e6, 1, 1.0, 2.0, 3) == pytest.approx(3 / 2, rel=1e-3)

    def test_groups_of_pages_agree_with_single_pages(self) -> None:
        rate, pages, seconds = 2_000.0, 30_000, 5.0
        total = sum(1 / rank for rank in range(1, pages + 1))
        each = (rate / rank / total for rank in range(1, pages + 1))
        expected = sum(single / (1 + single * seconds) for single in each)
        found = model.origin_rate(rate, pages, 1.0, seconds, 1)
        assert found == pytest.approx(expected, rel=0.01)


class TestModel:
    @pytest.fixture
    def costs(self) -> model.Costs:
        return model.costs_of(model.read_stored())

    @pytest.mark.parametrize("views", model.SCALES)
    def test_layout_uses_nothing_above_the_limit(self, costs: model.Costs, views: float) -> None:
        found, host = model.layout(views, costs), model.HOST
        needs, limit = found.demand, model.UTILIZATION + 1e-9
        assert needs.nginx / (found.edges * host.processors) <= limit
        assert needs.network / (found.edges * host.network) <= limit
        assert needs.workers / found.workers <= limit
        postgres = (needs.primary + needs.reads) / ((1 + found.replicas) * host.processors)
        assert postgres <= limit

    def test_bounds_are_where_they_are_reached(self, costs: model.Costs) -> None:
        bounds = {each.remedy: each.views for each in model.bounds(costs)}
        needs = model.demand(model.Traffic(bounds["a bucket for images"]), costs)
        growth = (needs.rows + needs.media) * model.YEAR
        assert growth == pytest.approx(model.HOST.disk, rel=1e-3)


@pytest.fixture(scope="module")
def tables() -> dict[str, str]:
    found: dict[str, str] = capacity.tables(model.read_stored())
    return found


@pytest.mark.parametrize(
    "name",
    ["conditions", "costs", "others", "demand", "bounds", "lifetimes", "waits", "points", "caches"],
)
def test_tables_of_the_page_are_those_of_the_stored_results(
    tables: dict[str, str], name: str
) -> None:
    assert (
        f"<!-- {name} -->\n{tables[name]}\n<!-- end of {name} -->" in capacity.PAGE.read_text()
    ), 'run `make bench ARGS="capacity --tables"`'


def test_configuration_of_nginx_is_rendered() -> None:
    """A new setting of nginx needs a value in bench/edge.py."""
    rendered = edge.rendered(8000, 8080)
    assert "server 127.0.0.1:8000 max_fails=2" in rendered
    assert "listen 127.0.0.1:8080;" in rendered
