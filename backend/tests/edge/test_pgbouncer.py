"""PgBouncer in transaction mode: reads and writes of several processes share few connections."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import NamedTuple
from uuid import uuid4

import pytest

from tests.e2e.conftest import copy_backend
from tests.postgres import ClusterMember, cluster, fetch
from tests.processes import Api, Checkout, free_port, pressroom, serving, wait_until

IMAGE = "pressroom-test-pgbouncer"
DOCKERFILE = """
ARG DEBIAN_IMAGE=debian:trixie-slim
FROM ${DEBIAN_IMAGE}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends pgbouncer
USER postgres
ENTRYPOINT ["sh", "-c", "cat > /tmp/pgbouncer.ini && exec pgbouncer /tmp/pgbouncer.ini"]
"""
SERVER_CONNECTIONS = 4
CONFIGURATION = """
[databases]
pressroom = host=127.0.0.1 port={database_port} user={role}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_prepared_statements = 200
default_pool_size = {size}
{more}
"""
REQUESTS = 400
ROLE = "pressroom_app"


class Pooled(NamedTuple):
    """A server, PgBouncer in front of it, and two processes that connect to PgBouncer."""

    server: ClusterMember
    pooler: "Pooler"
    apis: list[Api]
    headers: dict[str, str]


class Pooler:
    """PgBouncer in a container, which uses the network of the host."""

    def __init__(self, server: ClusterMember, *, role: str = ROLE, more: str = "") -> None:
        self.port = free_port()
        self.name = f"{IMAGE}-{uuid4().hex[:8]}"
        self.url = f"postgresql://{role}@127.0.0.1:{self.port}/pressroom"
        self._configuration = CONFIGURATION.format(
            database_port=server.port,
            role=role,
            port=self.port,
            size=SERVER_CONNECTIONS,
            more=more,
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        command = ["docker", "run", "--rm", "--interactive", "--network", "host"]
        with subprocess.Popen(
            [*command, "--name", self.name, IMAGE], stdin=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            process.stdin.write(self._configuration)
            process.stdin.close()
            try:
                wait_until(self._answers, "PgBouncer answers")
                yield
            finally:
                remove = ["docker", "rm", "--force", self.name]
                subprocess.run(remove, check=True, stdout=subprocess.DEVNULL)

    def _answers(self) -> bool:
        try:
            return bool(fetch(self.url, "SELECT 1"))
        except OSError:
            return False


@pytest.fixture(scope="module")
def image() -> str:
    source = os.environ.get("DEBIAN_IMAGE")
    arguments = ["--build-arg", f"DEBIAN_IMAGE={source}"] if source else []
    command = ["docker", "build", "--quiet", "--tag", IMAGE, *arguments, "-"]
    subprocess.run(command, input=DOCKERFILE, text=True, check=True, stdout=subprocess.DEVNULL)
    return IMAGE


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    directory = tmp_path_factory.mktemp("checkout") / "backend"
    copy_backend(directory)
    return Checkout(directory=directory, logs=tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def server() -> Iterator[ClusterMember]:
    with cluster(replicas=0) as members:
        yield members[0]


@pytest.fixture(scope="module")
def pooled(image: str, checkout: Checkout, server: ClusterMember) -> Iterator[Pooled]:
    pooler = Pooler(server)
    direct_url = server.url.replace("postgres@", f"{ROLE}@")
    settings = {
        "DATABASE_URL": pooler.url,
        "DATABASE_DIRECT_URL": direct_url,
        "DATABASE_PASSWORD": "pooled",
        "DATABASE_POOL_SIZE": "10",
    }
    with ExitStack() as stack:
        with pressroom(checkout, "migrate", DATABASE_OWNER_URL=server.url, **settings) as migration:
            assert migration.wait() == 0, migration.log
        stack.enter_context(pooler.running())
        apis = [stack.enter_context(serving(checkout, **settings)) for _ in range(2)]
        yield Pooled(server, pooler, apis, apis[0].bearer("pooled"))


def test_mixed_requests_share_few_connections(pooled: Pooled) -> None:
    def work(number: int) -> list[int]:
        client, headers = pooled.apis[number % 2].client, pooled.headers
        new = {"title": f"Pooled {number}", "content": "Text.", "published": True}
        created = client.post("/articles", json=new, headers=headers)
        path = f"/articles/{created.json()['id']}"
        return [
            created.status_code,
            client.get(path).status_code,
            client.patch(path, json={"content": "More."}, headers=headers).status_code,
            client.get("/articles", headers=headers).status_code,
            client.get("/search", params={"q": "pooled"}).status_code,
        ]

    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(work, range(REQUESTS // 5)))
    assert {status for each in results for status in each} == {200, 201}
    [row] = fetch(
        pooled.server.url,
        "SELECT count(*) AS count FROM pg_stat_activity WHERE application_name = 'pressroom'",
    )
    assert row["count"] <= SERVER_CONNECTIONS


def test_role_has_the_parameters_that_the_pooler_loses(pooled: Pooled) -> None:
    names = ("statement_timeout", "idle_in_transaction_session_timeout", "jit")
    values = [fetch(pooled.pooler.url, f"SHOW {name}")[0][0] for name in names]
    assert values == ["15s", "30s", "off"]
    ready = pooled.apis[0].client.get("/health/ready").json()
    assert ready["warnings"] == []


def test_streams_listen_on_a_direct_connection(pooled: Pooled) -> None:
    client = pooled.apis[0].client
    with client.stream("GET", "/changes/stream", params={"topic": "changes"}) as stream:
        lines = stream.iter_lines()
        assert next(lines) is not None
        new = {"title": "Streamed", "content": "Text.", "published": True}
        other = pooled.apis[1].client
        assert other.post("/articles", json=new, headers=pooled.headers).status_code == 201
        assert any("streamed" in line.lower() for line in lines if line.startswith("data"))


def test_lost_parameters_are_a_warning(
    image: str, checkout: Checkout, server: ClusterMember
) -> None:
    ignored = "statement_timeout,idle_in_transaction_session_timeout,jit"
    more = f"ignore_startup_parameters = {ignored}"
    pooler = Pooler(server, role="postgres", more=more)
    with pooler.running(), serving(checkout, DATABASE_URL=pooler.url) as api:
        [warning] = api.client.get("/health/ready").json()["warnings"]
    assert warning.startswith("Statements have no timeout")


def test_processes_recover_from_a_restart_of_the_pooler(
    image: str, checkout: Checkout, server: ClusterMember
) -> None:
    pooler = Pooler(server, role="postgres")
    settings = {"DATABASE_URL": pooler.url, "DATABASE_DIRECT_URL": server.url}
    with ExitStack() as stack:
        with pooler.running():
            api = stack.enter_context(serving(checkout, **settings))
            headers = api.bearer("restarted")
            assert api.client.get("/articles").status_code == 200
        assert api.client.get("/articles").status_code == 503
        stack.enter_context(pooler.running())
        wait_until(lambda: api.client.get("/articles").status_code == 200, "it reads again")
        new = {"title": "After the restart", "content": "Text."}
        wait_until(
            lambda: api.client.post("/articles", json=new, headers=headers).status_code == 201,
            "it writes again",
        )
