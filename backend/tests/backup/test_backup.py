"""Backups to a folder, with a real PostgreSQL: create, list, verify, prune, restore."""

import json
import resource
import shutil
import signal
from collections.abc import Callable
from typing import Any

import pytest

from app.services.backup import programs
from app.services.backup.encryption import new_key
from tests.backup.conftest import IMAGES, MEDIA, Site, error_of
from tests.commands import fetch, run
from tests.databases import execute, migrated_database

pytestmark = pytest.mark.usefixtures("restored_environment")


class TestRoundTrip:
    @pytest.mark.parametrize("is_encrypted", [False, True])
    def test_restore_brings_back_rows_and_images(
        self,
        request: pytest.FixtureRequest,
        site: Site,
        empty: Callable[[], str],
        capsys: pytest.CaptureFixture[str],
        is_encrypted: bool,
    ) -> None:
        if is_encrypted:
            request.getfixturevalue("encrypted")
        before = site.contents()
        made = site.create(capsys)
        assert (made["ok"], made["images"], made["files"]) == (True, 5, 10)
        assert made["counts"]["users"] == 1
        assert run("backup", "verify", made["id"]) == 0
        stored = b"".join(each.read_bytes() for each in site.target.rglob("*") if each.is_file())
        assert (b"image 3" in stored) is not is_encrypted
        url = empty()
        assert run("backup", "restore") == 0
        assert site.contents() == before
        assert [row["username"] for row in fetch(url, "SELECT username FROM users")] == ["ada"]
        (session,) = fetch(url, "SELECT revoked_at FROM user_sessions")
        assert session["revoked_at"] is not None
        assert "sessions ended: 1" in capsys.readouterr().out

    def test_migrated_database_without_rows_is_replaced(
        self, site: Site, capsys: pytest.CaptureFixture[str]
    ) -> None:
        site.create(capsys)
        with migrated_database() as url:
            site.set(DATABASE_URL=url)
            assert run("backup", "restore", "--json") == 0
            assert json.loads(capsys.readouterr().out)["after_restore"]["sessions ended"] == 1
            assert len(fetch(url, "SELECT 1 FROM media")) == 5

    def test_images_are_stored_once(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        assert site.create(capsys)["uploaded_bytes"] > 0
        site.add("a" * 32, b"new")
        again = site.create(capsys)
        assert (again["images"], again["uploaded_bytes"]) == (6, 12)

    def test_image_that_is_lost_in_the_target_is_stored_again(
        self, site: Site, capsys: pytest.CaptureFixture[str]
    ) -> None:
        site.create(capsys)
        lost = next(each for each in (site.target / "media").rglob("*") if each.is_file())
        lost.unlink()
        assert "is missing in" in error_of(capsys, "verify")
        site.create(capsys)
        assert run("backup", "verify") == 0

    def test_images_deleted_during_the_backup_are_included(
        self,
        site: Site,
        empty: Callable[[], str],
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """They are deleted after the snapshot, and withdrawn before they are copied."""
        dump = programs.dump
        before = site.contents()

        def delete_meanwhile(url: str, **options: Any) -> tuple[int, str]:
            execute(site.url, "DELETE FROM media")
            (site.media / "files").rename(site.media / "deleted")
            return dump(url, **options)

        monkeypatch.setattr(programs, "dump", delete_meanwhile)
        assert site.create(capsys)["images"] == 5
        url = empty()
        assert run("backup", "restore") == 0
        assert len(fetch(url, "SELECT 1 FROM media")) == 5
        assert site.contents() == before

    def test_images_deleted_before_the_backup_are_restored_as_deleted(
        self, site: Site, empty: Callable[[], str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A database that is recovered to an earlier moment refers to them."""
        before = site.contents()
        execute(site.url, f"DELETE FROM media WHERE folder = '{IMAGES[0]}'")
        (site.media / "deleted").mkdir()
        (site.media / "files" / IMAGES[0]).rename(site.media / "deleted" / IMAGES[0])
        for _ in range(2):  # the second one knows the files
            made = site.create(capsys)
            assert (made["images"], made["withdrawn"], made["missing"]) == (4, 1, [])
        url = empty()
        assert run("backup", "restore", "--images-only") == 0
        assert fetch(url, "SELECT 1 FROM pg_class WHERE relname = 'users'") == []
        assert [each.name for each in (site.media / "deleted").iterdir()] == [IMAGES[0]]
        assert IMAGES[0] not in "".join(site.contents())
        site.set(DATABASE_URL=site.url)  # it still has four of the rows
        execute(site.url, MEDIA.format(folder=IMAGES[0], bytes=20))
        assert run("after-restore") == 0
        assert "images restored: 1" in capsys.readouterr().out
        assert site.contents() == before

    def test_image_without_files_is_reported(
        self, site: Site, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (site.media / "files" / IMAGES[2] / "original.jpg").unlink()
        made = site.create(capsys, status=3)
        assert (made["images"], made["missing"]) == (4, [IMAGES[2]])
        assert run("backup", "verify") == 0

    def test_deleted_images_must_be_kept(
        self, site: Site, capsys: pytest.CaptureFixture[str]
    ) -> None:
        site.set(MEDIA_KEEP_DELETED_HOURS="0")
        assert "Set MEDIA_KEEP_DELETED_HOURS" in error_of(capsys, "create")


class TestRefusals:
    def test_database_with_rows(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        site.create(capsys)
        assert "The database is not empty: events has rows" in error_of(capsys, "restore")
        assert len(fetch(site.url, "SELECT 1 FROM media")) == 5

    def test_changed_manifest(self, encrypted: Site, capsys: pytest.CaptureFixture[str]) -> None:
        made = encrypted.create(capsys)
        path = encrypted.manifest(made["id"])
        values = json.loads(path.read_text())
        changes: list[dict[str, Any]] = [{"counts": {}}, {"revision": "x"}, {"signature": "x"}]
        for change in changes:
            path.write_text(json.dumps(values | change))
            assert "was changed" in error_of(capsys, "restore", made["id"]), change
            assert "was changed" in error_of(capsys, "verify", made["id"]), change
            assert run("backup", "list") == 0
            assert "was changed" in capsys.readouterr().out, change
            assert "Nothing is deleted" in error_of(capsys, "prune"), change

    def test_damaged_manifest(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        made = site.create(capsys)
        for content in (b"", b"[]", b"{}", b'{"signature": "x"}', b"\xff"):
            site.manifest(made["id"]).write_bytes(content)
            error = error_of(capsys, "restore", made["id"])
            assert "damaged" in error or "newer release" in error, content

    def test_newer_release(
        self, site: Site, empty: Callable[[], str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        set_version = "UPDATE alembic_version SET version_num = '{0}'"
        ((version,),) = fetch(site.url, "SELECT version_num FROM alembic_version")
        execute(site.url, set_version.format("from_the_future"))
        try:
            made = site.create(capsys)
        finally:
            execute(site.url, set_version.format(version))
        empty()
        assert "made by a newer release" in error_of(capsys, "restore", made["id"])

    def test_wrong_keys(self, encrypted: Site, capsys: pytest.CaptureFixture[str]) -> None:
        made = encrypted.create(capsys)
        encrypted.unset("BACKUP_KEY_FILE")
        missing = error_of(capsys, "verify", made["id"])
        assert (
            f"is encrypted: set BACKUP_KEY_FILE to the file with its key {made['key']}" in missing
        )
        encrypted.set(BACKUP_KEY=new_key())
        assert "is encrypted with the key" in error_of(capsys, "restore", made["id"])
        encrypted.set(BACKUP_KEY="secret")
        assert "BACKUP_KEY is not a key" in error_of(capsys, "create")

    def test_unencrypted_backup_with_a_key(
        self, site: Site, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Otherwise somebody who can write to the target could replace a backup."""
        made = site.create(capsys)
        site.set(BACKUP_KEY=new_key())
        assert "is not encrypted: unset BACKUP_KEY" in error_of(capsys, "restore", made["id"])

    def test_damaged_part_leaves_the_database_empty(
        self, encrypted: Site, empty: Callable[[], str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        manifest = encrypted.manifest(encrypted.create(capsys)["id"])
        image = next(each for each in (encrypted.target / "media").rglob("*.age"))
        url = empty()
        for path in (
            manifest.with_name("database.dump.age"),
            manifest.with_name("media.ndjson.age"),
            image,
        ):
            shutil.rmtree(encrypted.media, ignore_errors=True)
            content = path.read_bytes()
            path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
            for command in ("verify", "restore"):
                error = error_of(capsys, command)
                assert "damaged" in error or "cannot be decrypted" in error, path
            assert fetch(url, "SELECT 1 FROM pg_class WHERE relname = 'users'") == [], path
            path.write_bytes(content)

    def test_unknown_backup(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        assert "There is no usable backup" in error_of(capsys, "restore")
        assert "does not exist" in error_of(capsys, "verify", "20260101T000000000000Z-00000000")
        assert "is not the id of a backup" in error_of(capsys, "verify", "../../etc")
        site.unset("BACKUP_TARGET")
        assert "Set BACKUP_TARGET" in error_of(capsys, "list")

    def test_error_is_one_line_of_json(
        self, site: Site, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("backup", "restore", "--json") == 1
        (line,) = capsys.readouterr().out.splitlines()
        assert json.loads(line)["ok"] is False

    def test_rows_that_differ_after_the_restore(
        self,
        site: Site,
        empty: Callable[[], str],
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        load = programs.load

        def load_and_change(url: str, **options: Any) -> None:
            load(url, **options)
            execute(url, "UPDATE users SET name = 'Eve'")

        site.create(capsys)
        empty()
        monkeypatch.setattr(programs, "load", load_and_change)
        assert "Rows of users differ from the backup" in error_of(capsys, "restore")


class TestFailures:
    def test_full_disk(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        """A limit on the size of files stands for it. Nothing half is listed as good."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        try:
            error = error_of(capsys, "create")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, previous)
        assert "File too large" in error
        assert run("backup", "list") == 0
        assert "There is no" in error_of(capsys, "verify")
        assert site.create(capsys)["images"] == 5
        assert run("backup", "verify") == 0

    def test_large_database(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        """It is larger than the buffers of all pipes and writers."""
        noise = "SELECT gen_random_uuid()::text AS text FROM generate_series(1, 100000)"
        execute(site.url, f"CREATE TABLE noise AS {noise}")
        try:
            assert site.create(capsys)["database"]["bytes"] > 1_000_000
        finally:
            execute(site.url, "DROP TABLE noise")
        assert run("backup", "verify") == 0

    def test_interrupted_backup_is_continued(
        self,
        site: Site,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        made = site.create(capsys)
        site.manifest(made["id"]).unlink()
        assert "is incomplete" in error_of(capsys, "verify", made["id"])
        assert site.create(capsys)["uploaded_bytes"] == 0
        assert run("backup", "prune") == 0
        assert not site.manifest(made["id"]).parent.exists() or not [
            *site.manifest(made["id"]).parent.iterdir()
        ]

    def test_two_at_once(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        site.target.mkdir()
        (site.target / "lock").touch()
        assert "Another backup is being made" in error_of(capsys, "create")
        assert "Another backup is being made" in error_of(capsys, "prune")


class TestPrune:
    def test_old_backups_and_their_images_are_deleted(
        self, site: Site, capsys: pytest.CaptureFixture[str]
    ) -> None:
        first = site.create(capsys)
        execute(site.url, f"DELETE FROM media WHERE folder = '{IMAGES[0]}'")
        execute(site.url, "DELETE FROM discarded_folders")  # its files are not kept any more
        second, third = site.create(capsys), site.create(capsys)
        assert run("backup", "prune", "--keep", "1", "--keep-days", "1") == 0
        assert "0 backups deleted, 3 kept" in capsys.readouterr().out
        assert run("backup", "prune", "--keep", "1", "--keep-days", "0", "--json") == 0
        pruned = json.loads(capsys.readouterr().out)
        assert sorted(pruned["deleted"]) == sorted([first["id"], second["id"]])
        assert len([each for each in (site.target / "media").rglob("*") if each.is_file()]) == 8
        assert run("backup", "verify", third["id"]) == 0
