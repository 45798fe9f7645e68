"""Upgrades from releases without `make upgrade`, and rollbacks to them, under load."""

from collections.abc import Iterator

import pytest

from tests.edge.load import assert_nothing_was_lost, load
from tests.edge.stack import register
from tests.processes import HIGH_LIMITS
from tests.releases.release import Release, assert_succeeded, checkout, has_commit

PREVIOUS = {
    "0011": "0bc0c0b96d83c369e8fe3e7252ab127cecee7be7",
    "0006": "a4ee3851ef7033fce83ab4b335d228179ca11bfe",
}
"""The last commit without `make upgrade`, and an older one, by the revision of their database."""


@pytest.fixture(params=list(PREVIOUS.values()), ids=list(PREVIOUS))
def previous(this: Release, request: pytest.FixtureRequest) -> Iterator[Release]:
    """Run a release without `make upgrade`."""
    if not has_commit(request.param):
        pytest.skip("the clone lacks this commit")
    directory = this.directory.with_name(f"previous-{request.param[:7]}")
    release = with_known_limits(checkout(Release(this.port, directory=directory), request.param))
    with release.project.running(attempts=3):  # its nginx soon becomes unhealthy on a busy machine
        yield release


def with_known_limits(release: Release) -> Release:
    """Set LIMITS to the kinds that the release knows: it refuses others."""
    path = release.directory / "backend/app/core/limits.py"
    source = path.read_text() if path.exists() else ""
    known = [each for each in HIGH_LIMITS.split(",") if f'"{each.partition("=")[0]}"' in source]
    return release.with_settings(LIMITS=",".join(known))


def replace_backend(release: Release) -> None:
    """Run the documented commands for a rollback to a release without `make upgrade`."""
    release.project.output("build", "--quiet", "backend")
    release.project.output("up", "--detach", "--wait", "--no-deps", "backend")


def test_upgrade_and_rollback(this: Release, previous: Release) -> None:
    """The first upgrade replaces nginx. Later, nginx holds requests, for a limited time."""
    with previous.client() as client:
        author = register(client)
    with load(previous, author) as first:
        assert_succeeded(this.upgrade())
    found = f"{len(first.broken)} refused or broken connections, {first.wrong}"
    print(f"first upgrade: {first.answered} answers, {found}")
    assert not first.wrong
    with this.client() as client:
        author = register(client)  # tokens of older releases may not be valid
    with load(this, author) as results:
        replace_backend(previous)
        results.wait_for(200)
        assert_succeeded(this.upgrade())
    # The rollback replaces the only backend, which takes longer on a busy machine.
    assert_nothing_was_lost(this, results, may_exceed_hold=True)
