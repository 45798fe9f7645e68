"""The containers of the stack have few rights, and Prometheus knows them."""

import json

import pytest

from tests.processes import wait_until
from tests.swarm.cluster import Cluster

TARGETS = {
    "backend": 2,
    "nginx": 1,
    "nginx-log": 2,
    "postgres": 1,
    "patroni": 3,
    "etcd": 3,
    "haproxy": 2,
    "prometheus": 1,
}
PUBLISHED = {"nginx-1", "nginx-2"}


@pytest.mark.core
def test_rights(cluster: Cluster) -> None:
    swarm = cluster.swarm
    names = [service["Spec"]["Name"].removeprefix(f"{swarm.name}_") for service in swarm.services()]
    publishing = set()
    for name in names:
        ids = swarm.containers(name)
        # Jobs have ended.
        for container in json.loads(swarm.docker("container", "inspect", *ids)) if ids else []:
            host = container["HostConfig"]
            assert host["ReadonlyRootfs"], name
            assert host["CapDrop"] == ["ALL"], name
            assert not host["CapAdd"], name
            assert host["Memory"] > 0, name
            assert host["PidsLimit"] > 0, name
            assert container["Config"]["User"].split(":")[0] not in {"", "root", "0"}, name
            assert "max-size" in host["LogConfig"]["Config"], name
            if any(container["NetworkSettings"]["Ports"].values()):
                publishing.add(name)
    assert publishing == PUBLISHED


def test_prometheus(cluster: Cluster) -> None:
    def all_are_up() -> bool:
        query = ("promtool", "query", "instant", "--format", "json", "http://127.0.0.1:9090")
        found = json.loads(cluster.swarm.execute("prometheus", *query, "sum by (job) (up)"))
        return {each["metric"]["job"]: int(each["value"][1]) for each in found} == TARGETS

    wait_until(all_are_up, "all targets are up", seconds=60)
