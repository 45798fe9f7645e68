"""Upgrades and rollbacks with `make upgrade` under load."""

from collections.abc import Callable

import pytest

from app.db.revisions import head
from tests.edge.load import assert_nothing_was_lost, load
from tests.releases.release import Release, assert_succeeded

MIGRATION = f'''"""Add a column, as a next release may."""

from alembic import op

revision = "next"
down_revision = "{head()}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE articles ADD COLUMN added_by_next integer")


def downgrade() -> None:
    op.execute("ALTER TABLE articles DROP COLUMN added_by_next")
'''
MIGRATIONS = "backend/alembic/versions"


def add_migration(release: Release, name: str, text: str) -> None:
    (release.directory / MIGRATIONS / f"2026_12_31_{name}.py").write_text(text)


@pytest.fixture(scope="session")
def following(this: Release) -> Release:
    """A next release with a migration, and with other settings and another definition of nginx."""
    release = this.copy("following").with_settings(EDGE_REQUESTS_PER_SECOND="90000")
    add_migration(release, "next", MIGRATION)
    release.change(
        "nginx/snippets/headers.conf",
        "nosniff always;",
        "nosniff always;\nadd_header X-Release following always;",
    )
    release.change(
        "docker-compose.yml",
        "  nginx:\n    <<: *hardened\n",
        "  nginx:\n    <<: *hardened\n    labels: { release: following }\n",
    )
    return release


def release_header(running: Release) -> str | None:
    with running.client() as client:
        header: str | None = client.get("/tags").headers.get("X-Release")
        return header


@pytest.mark.core
def test_upgrade_and_rollback(running: Release, following: Release, author: dict[str, str]) -> None:
    """No request fails, although the database stays ahead after the rollback.

    Containers of `docker compose run` continue: one may be an import.
    """
    nginx = running.containers("nginx")
    command = ("run", "--detach", "--no-deps")
    running.project.output(*command, "migrate", "true")
    importing = running.project.output(*command, "backend", "sleep", "infinity").split()[-1]
    with load(running, author) as results:
        finished = following.upgrade()
        assert_succeeded(finished)
        assert "nginx's container has a new definition" in finished.stdout
        assert release_header(running) == "following"
        assert_succeeded(running.upgrade())
        assert release_header(running) is None
    assert_nothing_was_lost(running, results)
    assert results.answered > 1000
    assert running.containers("nginx") == nginx
    assert len(running.containers("backend")) == 1
    options = ("--all", "--status", "running", "--quiet")
    assert importing in running.project.output("ps", *options, "backend").split()
    assert "newer release" in running.project.output("logs", "migrate")
    with running.client() as client:
        assert client.get("/health/ready").json()["ahead"] is True


def end_at_start(release: Release) -> None:
    release.change(
        "backend/app/main.py",
        "        prepare_hashing()\n",
        '        raise RuntimeError("broken")\n',
    )


def change_key_of_zone(release: Release) -> None:
    """`nginx -t` accepts this, but the reload fails."""
    zone = "zone=uploads:10m"
    path = "nginx/templates/edge.conf.template"
    release.change(path, f"limit_req_zone $edge_upload {zone}", f"limit_req_zone $uri {zone}")


def add_unknown_directive(release: Release) -> None:
    release.change("nginx/snippets/headers.conf", "nosniff always;", "nosniff always;\nunknown;")


def fail_to_migrate(release: Release) -> None:
    text = MIGRATION.replace("articles", "missing")
    text = text.replace(
        'revision = "next"\ndown_revision = ', 'revision = "broken"\ndown_revision = "next"  # '
    )
    add_migration(release, "broken", text)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (end_at_start, "RuntimeError: broken"),
        (change_key_of_zone, "configuration of nginx"),
        (add_unknown_directive, 'unknown directive "unknown"'),
        (fail_to_migrate, 'relation "missing" does not exist'),
    ],
)
def test_failed_upgrade_is_rolled_back(
    running: Release,
    following: Release,
    author: dict[str, str],
    fault: Callable[[Release], None],
    reason: str,
) -> None:
    broken = following.copy(f"broken-{fault.__name__}")
    fault(broken)
    services = ("backend", "nginx", "nginx-config", "db")
    before = [running.containers(service) for service in services]
    with load(running, author) as results:
        finished = broken.upgrade()
        print(finished.stdout, finished.stderr)
        assert finished.returncode == 1
        assert reason in finished.stderr
    assert_nothing_was_lost(running, results)
    assert [running.containers(service) for service in services] == before
