"""A site with images, its backups, and an empty database to restore them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.config import get_settings
from app.services.backup.encryption import new_key
from tests.commands import run
from tests.databases import execute, temporary_database

IMAGES = [f"{number:032x}" for number in range(1, 6)]
ROWS = """
    INSERT INTO users (id, email, username, name, hashed_password, created_at, updated_at)
      VALUES (1, 'ada@example.com', 'ada', 'Ada', 'x', now(), now());
    INSERT INTO user_sessions
      (user_id, token_hash, created_at, last_used_at, expires_at, user_agent)
      VALUES (1, 'x', now(), now(), now() + interval '1 day', '');
"""
MEDIA = """
    INSERT INTO media (owner_id, folder, content_type, bytes, width, height, widths, color,
      placeholder, created_at)
      VALUES (1, '{folder}', 'image/jpeg', {bytes}, 4, 3, '{{}}', '#aabbcc', '', now());
"""


class Site:
    """A database with images, and a folder for backups."""

    def __init__(self, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = url
        self.media = folder / "media"
        self.target = folder / "backups"
        self._monkeypatch = monkeypatch
        self.set(MEDIA_DIR=str(self.media), BACKUP_TARGET=str(self.target), DATABASE_URL=url)
        rows = [
            self._store(image, f"image {number}".encode()) for number, image in enumerate(IMAGES)
        ]
        execute(url, ROWS, *rows)

    def set(self, **environment: str) -> None:
        for name, value in environment.items():
            self._monkeypatch.setenv(name, value)
        get_settings.cache_clear()

    def unset(self, name: str) -> None:
        self._monkeypatch.delenv(name)
        get_settings.cache_clear()

    def add(self, image: str, content: bytes) -> None:
        execute(self.url, self._store(image, content))

    def _store(self, image: str, content: bytes) -> str:
        """Write the files of an image, and return the statement that inserts its row."""
        files = self.media / "files" / image
        files.mkdir(parents=True)
        (files / "original.jpg").write_bytes(content)
        (files / "w320.webp").write_bytes(b"small " + content)
        return MEDIA.format(folder=image, bytes=2 * len(content) + 6)

    def create(self, capsys: pytest.CaptureFixture[str], *, status: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert run("backup", "create", "--json") == status, capsys.readouterr()
        line: dict[str, Any] = json.loads(capsys.readouterr().out)
        return line

    def contents(self) -> dict[str, bytes]:
        files = self.media / "files"
        return {str(each.relative_to(files)): each.read_bytes() for each in files.rglob("*.*")}

    def manifest(self, backup: str) -> Path:
        return self.target / "backups" / backup / "manifest.json"


@pytest.fixture
def site(own_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Return a site. The tests of a module share its database, so they undo changes of tables."""
    return Site(own_database, tmp_path, monkeypatch)


@pytest.fixture
def encrypted(site: Site, tmp_path: Path) -> Site:
    (tmp_path / "key").write_text(new_key() + "\n")
    site.set(BACKUP_KEY_FILE=str(tmp_path / "key"))
    return site


@pytest.fixture
def empty(site: Site, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Return a function that moves to an empty database, with an empty folder of images."""
    with temporary_database() as url:

        def move() -> str:
            site.set(DATABASE_URL=url, MEDIA_DIR=str(tmp_path / "restored"))
            site.media = tmp_path / "restored"
            return url

        yield move


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that fails, and return its one line."""
    capsys.readouterr()
    assert run("backup", *arguments) == 1
    return " ".join(capsys.readouterr().err.split())
