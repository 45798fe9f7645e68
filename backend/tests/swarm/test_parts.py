"""Replicas, etcd, PgBouncer and the network fail, and the backend is replaced."""

import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from app.db.revisions import head
from tests.processes import wait_until
from tests.swarm.cluster import MEMBERS, Cluster, event, why_no_cut
from tests.swarm.load import load

LAG_SECONDS = 30
LEASE_SECONDS = 20
"""`ttl` in deploy/swarm/patroni/patroni.yml."""

Measured = Callable[[str], None]


def test_lagging_replica(cluster: Cluster, author: dict[str, str], measured: Measured) -> None:
    cluster.wait_until_healthy()
    replica = cluster.replicas[0]
    with load(cluster.urls, author) as results, event(results) as began:
        cluster.swarm.query(replica, "SELECT pg_wal_replay_pause()")
        try:
            end = time.monotonic() + LAG_SECONDS
            wait_until(lambda: time.monotonic() > end, "the replica lags")
            results.wait_for_writes(20)
        finally:
            cluster.swarm.query(replica, "SELECT pg_wal_replay_resume()")
    measured(f"the longest time without a write was {results.longest_gap(began):.1f} s")
    measured(cluster.check_writes(results))
    assert not results.failed("page", "read", "own", "write", since=began)


def test_one_etcd_killed(cluster: Cluster, author: dict[str, str], measured: Measured) -> None:
    cluster.wait_until_healthy()
    primary = cluster.primary
    with load(cluster.urls, author) as results, event(results) as began:
        cluster.kill("etcd-1", stay=True)
        results.wait_for_writes(100)
        cluster.scale("etcd-1", 1)
        cluster.wait_until_healthy()
    assert cluster.primary == primary
    measured(f"the longest time without a write was {results.longest_gap(began):.1f} s")
    measured(cluster.check_writes(results))
    assert not results.failed("page", "read", "own", "write", since=began)


def test_two_etcd_killed(cluster: Cluster, author: dict[str, str], measured: Measured) -> None:
    cluster.wait_until_healthy()
    with load(cluster.urls, author) as results, event(results) as began:
        for name in ("etcd-1", "etcd-2"):
            cluster.kill(name, stay=True)
        wait_until(lambda: not any(map(cluster.accepts_writes, MEMBERS)), "it steps down")
        demoted = time.monotonic()
        wait_until(lambda: len(results.failed("write", since=demoted)) > 10, "writes are refused")
        reads = results.of("read", since=began) + results.of("page", since=began)
        refused = results.failed("write", since=demoted)
        for name in ("etcd-1", "etcd-2"):
            cluster.scale(name, 1)
        restored = time.monotonic()
        results.wait_for_writes(20)
        cluster.wait_until_healthy()
    recovered = min(at for at, _ in results.acknowledged if at > restored) - restored
    failed = results.failed("page", "read", since=began)
    measured(
        f"the primary stepped down after {demoted - began:.1f} s; {len(failed)} of {len(reads)}"
        f" reads failed; writes were back {recovered:.1f} s after etcd"
    )
    measured(cluster.check_writes(results))
    assert {(each.status, each.retry_after != "") for each in refused} == {(503, True)}
    assert len(failed) <= 0.001 * len(reads), failed[:3]


@pytest.mark.skipif(why_no_cut() is not None, reason=str(why_no_cut()))
def test_cut_off_primary(cluster: Cluster, author: dict[str, str], measured: Measured) -> None:
    cluster.wait_until_healthy()
    former, others = cluster.primary, cluster.replicas
    container = cluster.swarm.containers(former)[0]
    attempts: list[tuple[float, bool]] = []
    done = threading.Event()

    def write_there() -> None:
        """Write to the former primary from its own container."""
        sql = "INSERT INTO cut_off (at) VALUES (now())"
        psql = ["docker", "exec", container, "psql", "-U", "pressroom", "-qc", sql]
        while not done.wait(0.2):
            started = time.monotonic()
            with suppress(subprocess.TimeoutExpired):
                written = subprocess.run(psql, capture_output=True, timeout=8, check=False)
                attempts.append(
                    (started, written.returncode == 0 and b"cancel" not in written.stderr)
                )

    cluster.swarm.query(former, "CREATE TABLE IF NOT EXISTS cut_off (at timestamptz)")
    writer = threading.Thread(target=write_there)
    with load(cluster.urls, author) as results, event(results) as began:
        writer.start()
        wait_until(lambda: any(written for _, written in attempts), "a write before the cut")
        with cluster.cut_off(former):
            cut = time.monotonic()
            times: dict[str, float] = {}

            def is_replaced() -> bool:
                if any(map(cluster.accepts_writes, others)):
                    times.setdefault("elected", time.monotonic() - cut)
                if not cluster.accepts_writes(former):
                    times.setdefault("stopped", time.monotonic() - cut)
                return len(times) == 2

            wait_until(is_replaced, "another member is the primary")
            results.wait_for_writes(20)
        done.set()
        writer.join()
        cluster.wait_until_healthy()
    acknowledged = [at for at, written in attempts if written and at > cut]
    cluster.swarm.query(cluster.primary, "DROP TABLE cut_off")
    reads = results.of("read", since=began) + results.of("page", since=began)
    failed = results.failed("page", "read", since=began)
    measured(
        f"the former primary stopped after {times['stopped']:.1f} s, and acknowledged"
        f" {len(acknowledged)} writes since the cut; another one after {times['elected']:.1f} s;"
        f" writes were back after {results.longest_gap(began):.1f} s;"
        f" {len(failed)} of {len(reads)} reads failed"
    )
    measured(cluster.check_writes(results))
    assert not acknowledged
    assert times["stopped"] < LEASE_SECONDS + 10


def test_killed_pgbouncer(cluster: Cluster, author: dict[str, str], measured: Measured) -> None:
    cluster.wait_until_healthy()
    with load(cluster.urls, author) as results, event(results) as began:
        cluster.kill("pgbouncer")
        results.wait_for_writes(50)
        cluster.wait_until_healthy()
    measured(f"the longest time without a write was {results.longest_gap(began):.1f} s")
    measured(cluster.check_writes(results))
    assert not results.failed("page", "read", "own", "write", since=began)


def test_rolling_upgrade(
    cluster: Cluster, author: dict[str, str], measured: Measured, tmp_path: Path
) -> None:
    """All backends are replaced by another image, whose migration adds a column."""
    cluster.wait_until_healthy()
    migration = MIGRATION.format(revision=REVISION, former=head())
    (tmp_path / f"2999_12_31_{REVISION}_later.py").write_text(migration)
    cluster.backend_image(tmp_path, tag="later")
    before = set(cluster.swarm.containers("backend"))
    with load(cluster.urls, author) as results, event(results) as began:
        cluster.swarm.deploy(BACKEND_TAG="later")
        cluster.swarm.wait_until_complete()
        results.wait_for_writes(20)
    after = set(cluster.swarm.containers("backend"))
    assert not before & after
    with httpx.Client(base_url=cluster.urls[0]) as client:
        assert client.get("/health/ready").json()["revision"] == REVISION
    measured(f"two backends replaced; the longest request took {results.longest(began):.1f} s")
    measured(cluster.check_writes(results))
    assert not results.failed("page", "read", "own", "write", since=began)


REVISION = "9999"
MIGRATION = '''"""Add a column."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{former}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("articles", sa.Column("later", sa.Text()))


def downgrade() -> None:
    op.drop_column("articles", "later")
'''
