"""The cluster is restored to a moment, in a new stack, from what Barman has."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.processes import wait_until
from tests.swarm.cluster import Cluster
from tests.swarm.load import load

Measured = Callable[[str], None]


def checksums(cluster: Cluster) -> dict[str, list[object]]:
    """Return the number of rows and the checksum of tables."""
    from restore_drill import COUNT, OF_TABLE, TABLES

    sql = COUNT.format(tables=",".join(OF_TABLE.format(table=table) for table in TABLES))
    found: dict[str, list[object]] = json.loads(cluster.swarm.query(cluster.primary, sql))
    return found


def has_base_backup(cluster: Cluster) -> bool:
    listed = cluster.swarm.execute("barman", "barman", "list-backups", "--minimal", "pressroom")
    return bool(listed.strip())


def test_restore_of_a_moment(
    cluster: Cluster, author: dict[str, str], measured: Measured, tmp_path: Path
) -> None:
    cluster.wait_until_healthy()
    wait_until(lambda: has_base_backup(cluster), "there is a base backup")
    with load(cluster.urls, author) as before:
        before.wait_for_writes(50)
    expected = checksums(cluster)
    moment = cluster.swarm.query(cluster.primary, "SELECT clock_timestamp()")
    with load(cluster.urls, author) as later:
        later.wait_for_writes(50)
    assert checksums(cluster) != expected
    options = ("--force", "--archive", "--archive-timeout", "60")
    cluster.swarm.execute("barman", "barman", "switch-wal", *options, "pressroom")
    cluster.scale("barman", 0)
    wait_until(lambda: not cluster.swarm.containers("barman"), "Barman has stopped")

    secrets = tmp_path / "secrets"
    shutil.copytree(cluster.swarm.environment["SECRETS_DIR"], secrets)
    settings = {
        name: cluster.swarm.environment[name]
        for name in ("BACKEND_ENV_FILE", "BACKEND_TAG")
        if name in cluster.swarm.environment
    }
    restored = Cluster.create("restored", SECRETS_DIR=str(secrets), **settings)
    started = time.monotonic()
    try:
        restored.swarm.restore(moment, volume=f"{cluster.swarm.name}_barman")
        seconds = time.monotonic() - started
        found = checksums(restored)
        measured(f"{found['articles'][0]} articles as at the moment, after {seconds:.0f} s")
        assert found == expected
        restored.wait_until_healthy()
        with httpx.Client(base_url=restored.urls[0]) as client:
            title = before.acknowledged[-1][1]
            listed = client.get("/articles", params={"q": title}).json()
            assert [each["title"] for each in listed] == [title]
    finally:
        restored.swarm.down()
        cluster.scale("barman", 1)
