"""The manifests in deploy/kubernetes, rendered: policies, and agreement with the application.

`scripts/manifests.py check`, a row of the matrix, validates them against schemas.
"""

import copy
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from app import __version__
from app.core import metrics
from app.core.config import BACKEND_DIR, PROJECT_DIR, SECRETS, Settings

if (PROJECT_DIR / "scripts" / "manifests.py").exists():
    import manifests

    HAS_RENDERER = manifests.renderer() is not None
else:
    HAS_RENDERER = False

pytestmark = [
    pytest.mark.checkout,
    pytest.mark.skipif(not HAS_RENDERER, reason="neither kustomize nor kubectl is installed"),
]

Object = dict[str, Any]
KUBERNETES = PROJECT_DIR / "deploy" / "kubernetes"
NAME = "app.kubernetes.io/name"
SERVICES_OF_DATABASE = {"database-rw", "database-ro", "database-r", "database-members"}
"""CloudNativePG creates these, and one with the name of each pooler."""
OF_OPERATORS = {"database-app", "database-ca"}
"""Secrets that CloudNativePG writes."""
MEBIBYTES = {"Mi": 1, "Gi": 1024}


@cache
def site(name: str = "example") -> list[Object]:
    rendered: list[Object] = manifests.render(KUBERNETES / name)
    return rendered


def objects(kind: str) -> list[Object]:
    return [each for each in site() if each["kind"] == kind]


def named(kind: str, name: str) -> Object:
    return next(each for each in objects(kind) if each["metadata"]["name"] == name)


class Pod(NamedTuple):
    """A template of Pods."""

    owner: Object
    labels: dict[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def is_server(self) -> bool:
        return bool(self.owner["kind"] == "Deployment")


def pods() -> list[Pod]:
    found = []
    for each in site():
        spec = each.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template", {})
        if each["kind"] in {"Deployment", "Job", "CronJob"}:
            found.append(Pod(each, template["metadata"]["labels"], template["spec"]))
    return found


def containers() -> list[tuple[str, Pod, Object]]:
    return [
        (f"{pod.owner['metadata']['name']}/{container['name']}", pod, container)
        for pod in pods()
        for container in pod.containers
    ]


def secret_volumes(pod: Pod) -> dict[str, str]:
    """Return the Secrets of the volumes, by the name of the volume."""
    volumes = pod.spec["volumes"]
    return {each["name"]: each["secret"]["secretName"] for each in volumes if "secret" in each}


def values(each: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of all fields, at any depth."""
    if isinstance(each, list):
        for item in each:
            yield from values(item)
    elif isinstance(each, dict):
        for name, value in each.items():
            yield name, value
            yield from values(value)


def mebibytes(quantity: str) -> int:
    return int(quantity[:-2]) * MEBIBYTES[quantity[-2:]]


def test_all_kinds_of_pods_are_found() -> None:
    assert {pod.owner["metadata"]["name"] for pod in pods()} == {
        "backend",
        "nginx",
        "migrate",
        "backup",
    }
    assert len(containers()) == 7


def change_replicas(deployment: Object) -> None:
    deployment["spec"]["replica"] = 3


def change_mode(pooler: Object) -> None:
    pooler["spec"]["pgbouncer"]["poolMode"] = "transactions"


@pytest.mark.parametrize(
    ("kind", "change"), [("Deployment", change_replicas), ("Pooler", change_mode)]
)
def test_schemas_find_faults(kind: str, change: Callable[[Object], None]) -> None:
    faulty = copy.deepcopy(objects(kind)[0])
    assert list(manifests.problems([faulty], {})) == []
    change(faulty)
    assert list(manifests.problems([faulty], {}))


# --- containers


def test_pods_meet_the_restricted_profile() -> None:
    """The Pod Security Standards, and a read-only root file system."""
    for pod in pods():
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {each["name"] for each in context.get("sysctls", [])} <= {
            "net.ipv4.ip_unprivileged_port_start"
        }
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod.spec.keys()
        kinds = {kind for volume in pod.spec["volumes"] for kind in volume} - {"name"}
        assert kinds <= {"emptyDir", "secret", "configMap"}
    for name, _, container in containers():
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert not {"privileged", "runAsUser", "procMount"} & context.keys(), name
    namespace = objects("Namespace")[0]["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"


def test_pods_have_no_access_to_the_api_of_kubernetes() -> None:
    for pod in pods():
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["serviceAccountName"] == objects("ServiceAccount")[0]["metadata"]["name"]
        assert pod.spec["enableServiceLinks"] is False
    assert objects("ServiceAccount")[0]["automountServiceAccountToken"] is False


def test_resources_are_requested_and_limited() -> None:
    for name, _, container in containers():
        resources = container["resources"]
        expected = {"cpu", "memory", "ephemeral-storage"}
        assert resources["requests"].keys() == resources["limits"].keys() == expected, name
    for name, value in values([objects("Cluster"), objects("Pooler"), objects("ObjectStore")]):
        if name == "resources":
            assert value["requests"].keys() == value["limits"].keys() == {"cpu", "memory"}


def test_file_systems_in_memory_fit_into_the_limit() -> None:
    """nginx needs about 200 MB beside its cache (docs/settings.md)."""
    pod = next(each for each in pods() if each.labels[NAME] == "nginx")
    volumes = {each["name"]: each["emptyDir"] for each in pod.spec["volumes"]}
    assert all("sizeLimit" in volume for volume in volumes.values())
    container = next(each for each in pod.containers if each["name"] == "nginx")
    in_memory = [
        mebibytes(volumes[mount["name"]]["sizeLimit"])
        for mount in container["volumeMounts"]
        if volumes[mount["name"]].get("medium") == "Memory"
    ]
    assert len(in_memory) == 3
    assert sum(in_memory) + 200 <= mebibytes(container["resources"]["limits"]["memory"])


def test_images_have_a_version() -> None:
    images = [value for name, value in values(site()) if name in {"image", "imageName"}]
    assert len(images) == len(containers()) + 2  # PostgreSQL and PgBouncer
    for image in images:
        name, _, tag = image.rpartition(":")
        assert name, image
        assert re.match("[0-9]", tag), image
        if "/pressroom" in name:
            assert tag == __version__


def test_servers_have_probes() -> None:
    for name, pod, container in containers():
        is_initial = container in pod.spec.get("initContainers", [])
        if pod.is_server and not is_initial:
            assert {"readinessProbe", "livenessProbe"} <= container.keys(), name
    backend = named("Deployment", "backend")["spec"]["template"]["spec"]["containers"][0]
    paths = {probe: backend[probe]["httpGet"]["path"] for probe in backend if "Probe" in probe}
    assert paths == {
        "startupProbe": "/health/live",
        "livenessProbe": "/health/live",  # a restart does not bring the database back
        "readinessProbe": "/health/ready",
    }


def test_pods_may_finish_their_requests() -> None:
    for pod in filter(lambda pod: pod.is_server, pods()):
        hook = pod.spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        left = pod.spec["terminationGracePeriodSeconds"] - hook
        assert hook >= 7  # caches of CoreDNS (5 s) and nginx (1 s), and the endpoints
        assert left >= int(settings()["GRACEFUL_TIMEOUT"]) + 5


# --- availability


def budgets() -> dict[str, Object]:
    return {
        str(budget["spec"]["selector"]["matchLabels"]): budget["spec"]
        for budget in objects("PodDisruptionBudget")
    }


def test_each_server_has_a_budget_that_allows_drains() -> None:
    selectors = [pod.owner["spec"]["selector"]["matchLabels"] for pod in pods() if pod.is_server]
    poolers = [{"cnpg.io/poolerName": each["metadata"]["name"]} for each in objects("Pooler")]
    assert len(selectors) == 2
    assert len(poolers) == 1
    found = budgets()
    assert found.keys() == set(map(str, [*selectors, *poolers]))
    for budget in found.values():
        assert budget["maxUnavailable"] >= 1
        assert "minAvailable" not in budget
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_servers_are_replicated_and_spread() -> None:
    autoscaled = {each["spec"]["scaleTargetRef"]["name"] for each in autoscalers()}
    for pod in filter(lambda pod: pod.is_server, pods()):
        spec, name = pod.owner["spec"], pod.owner["metadata"]["name"]
        # Each apply would reset what the autoscaler has chosen.
        assert ("replicas" in spec) is (name not in autoscaled)
        assert spec.get("replicas", 2) >= 2
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        constraints = pod.spec["topologySpreadConstraints"]
        assert {each["topologyKey"] for each in constraints} == {
            "topology.kubernetes.io/zone",
            "kubernetes.io/hostname",
        }
    assert all(each["spec"]["instances"] >= 2 for each in objects("Pooler"))
    assert objects("Cluster")[0]["spec"]["instances"] >= 3


def autoscalers() -> list[Object]:
    return objects("HorizontalPodAutoscaler")


def test_autoscaler_uses_a_metric_of_the_backend() -> None:
    spec = named("HorizontalPodAutoscaler", "backend")["spec"]
    assert spec["minReplicas"] >= 2
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300
    kinds = {each["type"]: each[each["type"].lower()] for each in spec["metrics"]}
    assert kinds.keys() == {"Pods", "Resource"}
    adapter = yaml.safe_load((KUBERNETES / "observe" / "adapter.yaml").read_text())
    rule = adapter["rules"]["custom"][0]
    series = rule["seriesQuery"].partition("{")[0]
    assert series in metrics.COUNTERS
    pattern, replacement = rule["name"]["matches"], rule["name"]["as"].replace("${1}", r"\1")
    assert kinds["Pods"]["metric"]["name"] == re.sub(pattern, replacement, series)


def test_connections_fit_into_the_database() -> None:
    """For the largest number of Pods, and one more during a rollout."""
    given, pooler = settings(), objects("Pooler")[0]["spec"]
    parameters = objects("Cluster")[0]["spec"]["postgresql"]["parameters"]
    allowed = int(parameters["max_connections"]) - 3 - 2
    most = named("HorizontalPodAutoscaler", "backend")["spec"]["maxReplicas"] + 1
    workers = most * int(given["WEB_CONCURRENCY"])
    pool = Settings.model_fields["database_pool_size"].default
    # Beside PgBouncer: two of a worker, one for the metrics of a Pod, and some for the Jobs.
    by_pooler = pooler["instances"] * int(pooler["pgbouncer"]["parameters"]["default_pool_size"])
    assert by_pooler + 2 * workers + most + 5 <= allowed
    assert workers * (pool + 1) + 5 <= allowed  # a replica
    clients = int(pooler["pgbouncer"]["parameters"]["max_client_conn"])
    assert workers * 2 * pool <= clients


def test_commits_survive_a_failover() -> None:
    postgresql = objects("Cluster")[0]["spec"]["postgresql"]
    assert postgresql["synchronous"]["number"] >= 1
    assert postgresql["synchronous"]["dataDurability"] == "required"
    assert "synchronous_commit" not in postgresql["parameters"]


def test_statements_on_replicas_do_not_hold_the_replay_back() -> None:
    """Otherwise replicas are too far behind to be used, and commits wait for them."""
    patroni = yaml.safe_load((PROJECT_DIR / "deploy/swarm/patroni/patroni.yml").read_text())
    for postgresql in (
        objects("Cluster")[0]["spec"]["postgresql"],
        patroni["bootstrap"]["dcs"]["postgresql"],
    ):
        delay = postgresql["parameters"]["max_standby_streaming_delay"]
        seconds = float(delay.removesuffix("s"))
        assert seconds <= Settings.model_fields["database_read_max_lag"].default / 2


# --- network


def test_nothing_is_allowed_by_default() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in objects("NetworkPolicy")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, policy in policies.items():
        for rule in policy.get("ingress", []):
            assert rule["from"], name
            assert rule["ports"], name
        for rule in policy.get("egress", []):
            assert rule["ports"], name
    blocks = [value for name, value in values(policies) if name == "ipBlock"]
    everything = [each for each in blocks if each["cidr"] == "0.0.0.0/0"]
    assert everything
    for each in everything:
        assert "169.254.0.0/16" in each["except"]  # metadata of cloud machines, with their keys


def test_only_name_servers_are_reached_in_the_local_network() -> None:
    [rule] = named("NetworkPolicy", "dns")["spec"]["egress"]
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in rule["to"]
    assert {each["port"] for each in rule["ports"]} == {53}


# --- agreement


def settings(map_name: str = "settings") -> dict[str, str]:
    """Return a ConfigMap. Its name ends with a hash."""
    found = [
        each["data"]
        for each in objects("ConfigMap")
        if re.fullmatch(f"{map_name}-[a-z0-9]+", each["metadata"]["name"])
    ]
    assert len(found) == 1
    return dict(found[0])


def environment(pod: Pod) -> dict[str, str]:
    """Return the settings of a container of the backend."""
    container = pod.spec["containers"][0]
    return settings() | {each["name"]: each["value"] for each in container["env"]}


def of_the_backend() -> list[Pod]:
    return [pod for pod in pods() if pod.labels[NAME] in {"backend", "migrate", "backup"}]


@pytest.mark.parametrize("index", range(3))
def test_production_starts_with_these_settings(
    index: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = of_the_backend()[index]
    (tmp_path / "ca.crt").touch()
    files = {name: value for name, value in environment(pod).items() if name.endswith("_FILE")}
    assert {"SECRET_KEY_FILE", "DATABASE_PASSWORD_FILE"} <= files.keys()
    for name, value in environment(pod).items():
        if name in files:
            (tmp_path / name).write_text(f"{name}-{'x' * 32}")
            value = str(tmp_path / name)  # noqa: PLW2901
        monkeypatch.setenv(name, value.replace("/database/ca.crt", str(tmp_path / "ca.crt")))
    loaded = Settings(_env_file=None)
    assert loaded.environment == "production"
    assert loaded.s3_bucket
    assert ("DATABASE_OWNER_URL" in environment(pod)) is (pod.labels[NAME] != "backend")


def test_settings_are_known() -> None:
    """A misspelled one would have no effect."""
    known = {name.upper() for name in Settings.model_fields} | {
        f"{x}_FILE".upper() for x in SECRETS
    }
    source = (BACKEND_DIR / "gunicorn.conf.py").read_text(encoding="utf-8")
    known |= set(re.findall(r'environ\.get\("([A-Z_]+)"\)', source))
    known |= {"DATABASE_DIRECT_URL"}
    for pod in of_the_backend():
        assert environment(pod).keys() - known == set()
    render = (PROJECT_DIR / "nginx" / "scripts" / "render.sh").read_text(encoding="utf-8")
    of_nginx = set(re.findall(r"[A-Z][A-Z_]+", render)) | {"NAMESPACE"}
    nginx = next(pod for pod in pods() if pod.labels[NAME] == "nginx").containers[0]
    assert {each["name"] for each in nginx["env"]} | settings("nginx-settings").keys() <= of_nginx


def test_no_manifest_contains_a_secret() -> None:
    assert objects("Secret") == []
    names = {name.upper() for name in SECRETS if not name.endswith("_url")}
    for pod in of_the_backend():
        assert not names & environment(pod).keys()
    for map_name in ("settings", "nginx-settings"):
        assert not names & settings(map_name).keys()
        assert not [
            value for value in settings(map_name).values() if re.search(r"://.*:.*@", value)
        ]


def test_readme_lists_the_secrets() -> None:
    readme = (KUBERNETES / "README.md").read_text(encoding="utf-8")
    listed = {
        (name, key)
        for name, keys in re.findall(r"^\| `([a-z-]+)` \| (`.*`) \|", readme, re.MULTILINE)
        for key in re.findall("`([a-z_]+)`", keys)
    }
    used = {
        (value["name"], value["key"])
        for name, value in values(objects("ObjectStore"))
        if name in {"accessKeyId", "secretAccessKey"}
    }
    for pod in of_the_backend():
        volumes = secret_volumes(pod)
        container = pod.spec["containers"][0]
        mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
        for value in environment(pod).values():
            folder, _, key = value.rpartition("/")
            if folder in mounts and volumes.get(mounts[folder]) not in OF_OPERATORS:
                used.add((volumes[mounts[folder]], key))
    assert listed == used


def test_references_resolve() -> None:
    maps = {each["metadata"]["name"] for each in objects("ConfigMap")}
    for name, pod, container in containers():
        volumes = {volume["name"] for volume in pod.spec["volumes"]}
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes, name
        sources = {each["configMapRef"]["name"] for each in container.get("envFrom", [])}
        assert sources <= maps, name
    services = {each["metadata"]["name"]: each["spec"] for each in objects("Service")}
    for name, service in services.items():
        ports = {
            port["name"]
            for pod in pods()
            if service["selector"].items() <= pod.labels.items()
            for container in pod.containers
            for port in container.get("ports", [])
        }
        assert {port["targetPort"] for port in service["ports"]} <= ports, name
    for route in objects("HTTPRoute"):
        for backend in route["spec"]["rules"][0]["backendRefs"]:
            assert backend["port"] in {port["port"] for port in services[backend["name"]]["ports"]}
    hosts = {
        host
        for pod in of_the_backend()
        for host in re.findall(r"@([a-z-]+):5432", " ".join(environment(pod).values()))
    }
    poolers = {each["metadata"]["name"] for each in objects("Pooler")}
    assert hosts == {"pooler", "database-rw", "database-members"}
    assert hosts <= SERVICES_OF_DATABASE | poolers
    assert poolers <= set(objects("Cluster")[0]["spec"]["certificates"]["serverAltDNSNames"])


def test_nginx_finds_the_backend() -> None:
    """Its names are in the configuration of nginx, and get a domain."""
    template = (PROJECT_DIR / "nginx" / "templates" / "edge.conf.template").read_text()
    names = set(re.findall(r"server ([a-z-]+)\$\{BACKEND_DOMAIN\}:8000 resolve", template))
    headless = {
        each["metadata"]["name"]: each["spec"]
        for each in objects("Service")
        if each["spec"].get("clusterIP") == "None"
    }
    assert names == headless.keys() == {"ready-backend", "backend"}
    assert headless["backend"]["publishNotReadyAddresses"] is True
    assert "publishNotReadyAddresses" not in headless["ready-backend"]


def test_rules_are_generated_and_find_their_jobs() -> None:
    assert manifests.RULES.read_text() == manifests.rules()
    spec = objects("PrometheusRule")[0]["spec"]
    expressions = [value for name, value in values(spec) if name == "expr"]
    assert "up == 0" not in expressions
    jobs = {job for each in expressions for job in re.findall(r'up\{job="([a-z]+)"', each)}
    labels = {
        each["spec"]["selector"]["matchLabels"].get(NAME) for each in objects("ServiceMonitor")
    }
    assert jobs == {"backend"}
    assert jobs <= labels


def test_restored_site_starts_without_the_backend() -> None:
    restored = {(each["kind"], each["metadata"]["name"]): each for each in site("restore")}
    backend = restored["Deployment", "backend"]
    assert backend["spec"]["replicas"] == 0
    cluster = restored["Cluster", "database"]["spec"]
    source = cluster["externalClusters"][0]["plugin"]["parameters"]["serverName"]
    archive = cluster["plugins"][0]["parameters"]["serverName"]
    assert source == objects("Cluster")[0]["spec"]["plugins"][0]["parameters"]["serverName"]
    assert archive != source  # the archive of a new database must be empty
    job = restored["Job", "migrate"]["spec"]["template"]["spec"]["containers"][0]
    assert job["args"][-1] == "pressroom migrate && pressroom after-restore"
