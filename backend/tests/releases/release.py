"""Checkouts of different releases that run as the same compose project."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.core.config import PROJECT_DIR
from tests.edge.stack import Stack, project_of_worker


@dataclass(frozen=True)
class Release(Stack):
    """A checkout of a release."""

    directory: Path = PROJECT_DIR

    @property
    def project_name(self) -> str:
        return project_of_worker("releases")

    @property
    def project(self) -> Any:
        from containers import Project

        name, files = self.project_name, self.files
        return Project(name, *files, directory=self.directory, environment=self.environment)

    @property
    def environment(self) -> dict[str, str]:
        # As in production, `docker compose` builds the images of the checkout.
        return {"PULL_POLICY": "build", **super().environment}

    def upgrade(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `make upgrade` in this checkout."""
        from containers import mirrors

        name = {"COMPOSE_PROJECT_NAME": self.project_name}
        return subprocess.run(
            [sys.executable, "-u", str(self.directory / "scripts" / "upgrade.py"), *arguments],
            env={**mirrors(), **os.environ, **self.environment, **name},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    def with_settings(self, **settings: str) -> "Release":
        return replace(self, settings={**self.settings, **settings})

    def copy(self, name: str) -> "Release":
        """Copy the checkout to another folder beside it."""
        directory = self.directory.with_name(name)
        shutil.copytree(self.directory, directory)
        return replace(self, directory=directory)

    def change(self, path: str, old: str, new: str) -> None:
        """Replace the only occurrence of `old` in a file."""
        file = self.directory / path
        text = file.read_text()
        assert text.count(old) == 1, f"{path}: {old!r}"
        file.write_text(text.replace(old, new))

    def containers(self, service: str) -> list[str]:
        ids: str = self.project.output("ps", "--quiet", service)
        return ids.split()


def git(*arguments: str) -> bytes:
    return subprocess.run(
        ["git", *arguments], cwd=PROJECT_DIR, check=True, capture_output=True
    ).stdout


def copy_of_this_checkout(release: Release) -> Release:
    """Fill the folder of `release` with the files of this checkout, also uncommitted ones."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.decode().split("\0")):
        if (PROJECT_DIR / name).is_file():
            target = release.directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT_DIR / name, target)
    return release


def checkout(release: Release, commit: str) -> Release:
    """Fill the folder of `release` with the files of a commit."""
    release.directory.mkdir()
    archive = git("archive", commit)
    subprocess.run(["tar", "-x"], input=archive, cwd=release.directory, check=True)
    return release


def has_commit(commit: str) -> bool:
    """Return whether the repository has a commit. Shallow clones lack older ones."""
    found = subprocess.run(
        ["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=PROJECT_DIR, check=False
    )
    return found.returncode == 0


def assert_succeeded(finished: subprocess.CompletedProcess[str]) -> None:
    """Check that `make upgrade` succeeded, and show its steps."""
    print(finished.stdout)
    assert finished.returncode == 0, finished.stdout + finished.stderr
