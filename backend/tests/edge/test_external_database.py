"""A PostgreSQL elsewhere, with docker-compose.external-db.yml and TLS."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.certificates import Certificates
from tests.edge.stack import SERVICES, Stack

EXTERNAL = "docker-compose.external-db.yml"
START = (
    "cp /tls/server.pem /tmp/ && chown postgres /tmp/server.pem && chmod 600 /tmp/server.pem"
    " && exec docker-entrypoint.sh postgres -c ssl=on"
    " -c ssl_cert_file=/tmp/server.pem -c ssl_key_file=/tmp/server.pem"
)
ROLES = (
    "CREATE ROLE site_owner LOGIN PASSWORD 'owner-password'",
    "CREATE ROLE site_app LOGIN PASSWORD 'application-password'",
    "CREATE DATABASE site OWNER site_owner",
)


@pytest.fixture
def elsewhere(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """Run a PostgreSQL with TLS, which is no part of the compose files."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    certificates = Certificates(tmp_path, host="elsewhere")
    for file in (certificates.authority, certificates.server):
        file.chmod(0o644)
    service = {
        "image": "${POSTGRES_IMAGE:-postgres:18}",
        "environment": {"POSTGRES_PASSWORD": "administrator"},
        "entrypoint": ["bash", "-c", START],
        "volumes": [f"{tmp_path}:/tls:ro"],
        "networks": ["edge"],
    }
    (tmp_path / "elsewhere.yml").write_text(yaml.dump({"services": {"elsewhere": service}}))
    query = "sslmode=verify-full&sslrootcert=keys/ca.pem&target_session_attrs=read-write"
    settings = {
        "DATABASE_URL": f"postgresql://site_app@nowhere.invalid,elsewhere/site?{query}",
        "DATABASE_OWNER_URL": f"postgresql://site_owner@elsewhere/site?{query}",
        "DATABASE_PASSWORD": "application-password",
        "DATABASE_OWNER_PASSWORD": "owner-password",
        "JWT_KEYS_DIR": str(tmp_path),
    }
    changed = Stack(stack.port, settings, (SERVICES, EXTERNAL, str(tmp_path / "elsewhere.yml")))
    changed.project.output("up", "--detach", "--no-deps", "elsewhere")
    try:
        yield changed
    finally:
        changed.project.run("rm", "--force", "--stop", "--volumes", "elsewhere")


def test_external_database_is_verified_from_the_read_only_container(elsewhere: Stack) -> None:
    project = elsewhere.project
    # Over TCP: during the first start, a temporary server listens on the Unix socket only.
    elsewhere.wait_inside("elsewhere", "pg_isready --quiet --host 127.0.0.1")
    commands = [part for statement in ROLES for part in ("--command", statement)]
    project.output("exec", "-T", "elsewhere", "psql", "--username", "postgres", *commands)

    assert "db" not in project.output("config", "--services").split()
    assert "db" in project.output("--profile", "bundled-db", "config", "--services").split()
    migrated = project.run_captured("run", "--rm", "-T", "migrate")
    assert migrated.returncode == 0, migrated.stdout + migrated.stderr
    doctor = ("run", "--rm", "--no-deps", "-T", "backend", "pressroom", "doctor")
    found = project.run_captured(*doctor)
    assert "role site_app" in found.stdout, found.stdout + found.stderr
    assert "/keys/ca.pem: valid for" in found.stdout
    assert "ok       revision" in found.stdout
