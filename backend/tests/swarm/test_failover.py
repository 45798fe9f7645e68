"""The primary ends, by force and by command: no acknowledged write is lost, and reads go on."""

from collections.abc import Callable

import pytest

from tests.processes import wait_until
from tests.swarm.cluster import Cluster, event
from tests.swarm.load import load

MAX_GAP_SECONDS = 15
SWITCHOVER_SECONDS = 3
MIN_READ_RATE = 0.999

Measured = Callable[[str], None]


@pytest.mark.core
def test_killed_primary(cluster: Cluster, author: dict[str, str], measured: Measured) -> None:
    cluster.wait_until_healthy()
    former = cluster.primary
    with load(cluster.urls, author) as results, event(results) as began:
        cluster.kill(former)
        results.wait_for_writes(20)
        cluster.wait_until_healthy()
    assert cluster.primary != former
    gap = results.longest_gap(began)
    reads = results.of("page", since=began) + results.of("read", since=began)
    failed = results.failed("page", "read", since=began)
    measured(f"writes were back after {gap:.1f} s; {len(failed)} of {len(reads)} reads failed")
    measured(cluster.check_writes(results))
    assert gap < MAX_GAP_SECONDS
    assert len(failed) <= (1 - MIN_READ_RATE) * len(reads), failed[:3]


def test_switchover(cluster: Cluster, author: dict[str, str], measured: Measured) -> None:
    cluster.wait_until_healthy()
    target = cluster.replicas[0]
    with load(cluster.urls, author) as results, event(results) as began:
        cluster.switch_over(target)
        wait_until(lambda: cluster.primary == target, "the replica is the primary")
        results.wait_for_writes(20)
        cluster.wait_until_healthy()
    gap = results.longest_gap(began)
    failed = results.failed("write", since=began)
    span = max(each.at for each in failed) - min(each.at for each in failed) if failed else 0.0
    measured(f"the longest time without a write was {gap:.1f} s; {len(failed)} writes failed")
    measured(cluster.check_writes(results))
    assert not results.failed("page", "read", since=began)
    assert span <= SWITCHOVER_SECONDS


def test_killed_replica(cluster: Cluster, author: dict[str, str], measured: Measured) -> None:
    cluster.wait_until_healthy()
    replica = cluster.replicas[0]
    with load(cluster.urls, author) as results, event(results) as began:
        cluster.kill(replica)
        results.wait_for_writes(20)
        cluster.wait_until_healthy()
    measured(f"the longest time without a write was {results.longest_gap(began):.1f} s")
    measured(cluster.check_writes(results))
    assert not results.failed("page", "read", "own", "write", since=began)
