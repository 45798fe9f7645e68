"""Untrusted file names: symbolic links are not followed, and only regular files are opened."""

import ast
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from app.auth.rotation import write_settings
from app.core import clock
from app.core.config import Settings
from app.db.session import Database
from app.models import DiscardedFolder
from app.services.bulk import files, markdown
from app.services.bulk.foreign import ReadOptions
from app.services.bulk.markdown_writing import FolderWriter
from app.services.bulk.records import MAX_RECORD_BYTES, ParsedRecord
from app.services.media import discarding
from app.services.media.storage import LocalStorage, new_folder
from tests.commands import fetch, run

pytestmark = pytest.mark.usefixtures("restored_environment")

POST = "---\ndate: 2020-01-01\nauthor: ada\n---\n# Title\n\nLong enough.\n"
SECRET = "# Secret\n\nSECRET_KEY=of-this-installation\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Create a folder to import, and files outside of it."""
    folder = tmp_path / "blog"
    (folder / "inside").mkdir(parents=True)
    (folder / "good.md").write_text(POST)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / ".env").write_text(SECRET)
    (tmp_path / "outside" / "post.md").write_text(SECRET)
    return folder


def read(folder: Path) -> list[ParsedRecord]:
    survey = markdown.survey(folder, lambda _: None)
    assert {author.handle for author in survey.authors} <= {"ada"}
    options = ReadOptions(now=datetime(2026, 1, 1, tzinfo=UTC))
    return list(markdown.read(folder, survey, options, resolve_author=str, advance=lambda _: None))


def problems_of(folder: Path) -> dict[str, str]:
    """Return the problems by position. The remaining record must be the valid post."""
    items = read(folder)
    (good,) = [item for item in items if item.record is not None]
    assert good.position == "good.md"
    return {str(item.position): item.problem for item in items if item.record is None}


class TestImportingAFolder:
    @pytest.mark.parametrize("target", ["../outside/.env", "good.md", "nothing", "leak.md"])
    def test_symbolic_links_are_reported(self, folder: Path, target: str) -> None:
        """Includes links to a file in the folder, dangling links and loops."""
        (folder / "leak.md").symlink_to(target)
        assert problems_of(folder) == {
            "leak.md": f"the file cannot be read ({files.SYMLINK_MESSAGE})"
        }

    def test_linked_folders_are_reported(self, folder: Path) -> None:
        (folder / "linked").symlink_to("../outside")
        (folder / "inside" / "loop").symlink_to("..")
        assert problems_of(folder) == {
            "linked": f"the folder cannot be read ({files.SYMLINK_MESSAGE})",
            "inside/loop": f"the folder cannot be read ({files.SYMLINK_MESSAGE})",
        }

    def test_import_folder_may_be_a_symbolic_link(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "current").symlink_to("blog")
        assert problems_of(tmp_path / "current") == {}

    def test_link_created_between_listing_and_opening(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file and a folder are replaced by links after they were listed."""
        (folder / "inside" / "post.md").write_text(POST)
        original, replaced = os.open, []

        def open_and_replace(path: Any, *arguments: Any, **options: Any) -> int:
            if path in {"inside", "good.md"} and path not in replaced:
                replaced.append(path)
                folder_path = folder / path
                folder_path.rename(folder.parent / f"{path}-was")
                folder_path.symlink_to("../outside" if path == "inside" else "../outside/.env")
            return original(path, *arguments, **options)

        monkeypatch.setattr(os, "open", open_and_replace)
        items = read(folder)
        assert replaced == ["good.md", "inside"]
        assert all(item.record is None for item in items)
        assert "of-this-installation" not in repr(items)

    def test_special_files_are_reported(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe.md")
        with socket.socket(socket.AF_UNIX) as server:
            here = Path.cwd()
            os.chdir(folder)  # the path of a socket has a maximum length
            try:
                server.bind("socket.md")
            finally:
                os.chdir(here)
            (folder / "directory.md").mkdir()
            why = "the file cannot be read (not a regular file)"
            assert problems_of(folder) == {"pipe.md": why, "socket.md": why}

    def test_huge_file_is_not_read(self, folder: Path) -> None:
        with (folder / "huge.md").open("wb") as file:
            file.truncate(1 << 40)  # a sparse file
        assert str(MAX_RECORD_BYTES) in problems_of(folder)["huge.md"]

    def test_invalid_file_names_are_reported(self, folder: Path) -> None:
        for name in (b"\xff\xfe.md", b"new\nline.md", b"escape\x1b[2J.md"):
            (folder / os.fsdecode(name)).write_text(POST)
        (folder / "Fine \u0645\u06cc\u200c\u062e.md").write_text(POST)  # Persian, with a joiner
        items = {str(item.position): item for item in read(folder)}
        assert [name for name, item in items.items() if item.record] == [
            "Fine \u0645\u06cc\u200c\u062e.md",
            "good.md",
        ]
        problems = {item.problem for item in items.values() if item.record is None}
        assert problems == {"the file name is not UTF-8 or has control characters: rename it"}

    def test_names_are_case_sensitive(self, folder: Path) -> None:
        (folder / "GOOD.md").write_text(POST)
        if len(list(folder.glob("*.md"))) == 1:
            pytest.skip("the file system does not tell cases apart")
        assert len({item.source_id for item in read(folder)}) == 2

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
    def test_unreadable_folders_are_reported(self, folder: Path) -> None:
        (folder / "inside").chmod(0)
        (why,) = problems_of(folder).values()
        assert why == "the folder cannot be read (Permission denied)"
        (folder / "inside").chmod(0o700)


def test_command_reports_links(
    own_database: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "leak.md").symlink_to("../outside/.env")
    (folder / os.fsdecode(b"bad\x1b[31m\xff.md")).write_text(POST)
    assert run("import", str(folder)) == 1
    out, err = capsys.readouterr()
    assert f"leak.md: the file cannot be read ({files.SYMLINK_MESSAGE})" in err
    assert "\x1b[31m.md" not in err
    assert r"bad\x1b[31m\udcff.md: the file name is not UTF-8" in err
    assert "created    1" in out
    assert [row["slug"] for row in fetch(own_database, "SELECT slug FROM articles")] == ["good"]


RECORD = {"title": "T", "slug": "t", "content": "x", "created_at": "2020-01-01T00:00:00Z"}
EXPORTED = "2020-01-01-t.md"


class TestExporting:
    def test_export_does_not_write_through_links(self, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_text("as it was")
        (tmp_path / EXPORTED).symlink_to(victim)
        with pytest.raises(OSError, match="symbolic link"):
            FolderWriter(tmp_path).write_all([RECORD])
        assert victim.read_text() == "as it was"

    def test_export_does_not_wait_for_a_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / EXPORTED)
        with pytest.raises(OSError, match="not a regular file"):
            FolderWriter(tmp_path).write_all([RECORD])

    def test_export_truncates_longer_files(self, tmp_path: Path) -> None:
        (tmp_path / EXPORTED).write_text("long " * 1000)
        FolderWriter(tmp_path).write_all([RECORD])
        assert "long" not in (tmp_path / EXPORTED).read_text()


class TestMediaFiles:
    async def test_links_in_the_storage_are_not_read(self, tmp_path: Path) -> None:
        storage = LocalStorage(tmp_path)
        folder, linked, name = new_folder(), new_folder(), "800.jpg"
        folder_path = tmp_path / "files" / folder
        folder_path.mkdir(parents=True)
        (folder_path / name).write_bytes(b"image")
        (folder_path / "900.jpg").symlink_to(name)
        os.mkfifo(folder_path / "1000.jpg")
        (tmp_path / "files" / linked).symlink_to(folder)
        assert await storage.size(folder, name) == 5
        pieces = storage.read(folder, name, start=1, end=5)
        assert b"".join([piece async for piece in pieces]) == b"mage"
        for where in ((folder, "900.jpg"), (folder, "1000.jpg"), (linked, name), (folder, "..")):
            assert await storage.size(*where) is None
            with pytest.raises(FileNotFoundError):
                _ = [piece async for piece in storage.read(*where, start=0, end=5)]

    async def test_invalid_folder_names_are_never_deleted(
        self, database: Database, tmp_path: Path
    ) -> None:
        storage = LocalStorage(tmp_path)
        (tmp_path / "files" / "kept").mkdir(parents=True)
        async with database.unit_of_work() as session:
            for name in ("", "kept", "../files", "."):
                session.add(DiscardedFolder(folder=name, discarded_at=clock.now()))
        await discarding.remove_discarded(database, storage=storage)
        assert (tmp_path / "files" / "kept").is_dir()


def test_written_settings_are_private(tmp_path: Path) -> None:
    victim, env = tmp_path / "victim", tmp_path / ".env"
    victim.write_text("as it was")
    env.write_text("SECRET_KEY_FILE=x\nexport SECRET_KEY = 'old'\nALGORITHM=HS256\nPORT=1\n")
    (tmp_path / ".env.new").symlink_to(victim)
    write_settings(env, {"SECRET_KEY": "new", "JWT_ALGORITHM": "HS256"})
    assert env.read_text() == "PORT=1\nSECRET_KEY=new\nJWT_ALGORITHM=HS256\n"
    assert env.stat().st_mode & 0o777 == 0o600
    assert victim.read_text() == "as it was"
    assert Settings(_env_file=env).secret_key == "new"


# --- all places that open files

OPENING = {
    "open", "fdopen", "fwalk", "walk", "scandir", "listdir", "iterdir", "rglob", "read_text",
    "read_bytes", "write_text", "write_bytes", "ZipFile", "TemporaryFile", "NamedTemporaryFile",
    "mkdtemp", "TemporaryDirectory", "mkdir", "touch", "unlink", "rename", "rmtree", "copyfile",
    "copytree", "move", "open_below", "open_folder",
}  # fmt: skip
"""Functions and methods that access files by name. Those of `files` are found by `files.`."""
SAFE = "by `files`, without following links"
OPERATOR = "named by the operator, or the body of a request"
TEMPORARY = "without a name"
NEW = "below a new folder, in which archives create regular files and folders only"
RANDOM = "a new folder with a random name, or in it"
ANNOTATION = "only a type"
PLACES = {
    "archives._check_size_of_directory: path.open": OPERATOR,
    "archives._extract_all: target.parent.mkdir": NEW,
    "archives._extract_all: target.touch": NEW,
    "archives._extract_all: ZipFile": ANNOTATION,
    "archives._files: ZipFile": ANNOTATION,
    "archives._opened: ZipFile": OPERATOR,
    "archives._write: ZipFile": ANNOTATION,
    "archives._write: archive.open": "in the archive",
    "archives._write: target.open": NEW,
    "archives._write: target.unlink": NEW,
    "archives.extract: folder.mkdir": NEW,
    "copying._temporary_directory: directory.mkdir": RANDOM,
    "copying._temporary_directory: shutil.rmtree": RANDOM,
    "directories.Site._opened: files.open_folder": SAFE,
    "directories._data_file: files.read": SAFE,
    "directories._program: files.read": SAFE,
    "directories._read: files.read": SAFE,
    "directories._section: files.read": SAFE,
    "fetching.Fetcher._receive: path.open": RANDOM,
    "files.create: os.fdopen": "a descriptor",
    "files.create: os.open": "with O_NOFOLLOW, in the folder of an export",
    "files.open_below: open_folder": SAFE,
    "files.open_below: os.open": "in an open folder, with O_NOFOLLOW",
    "files.open_folder: os.open": "the root, then each folder with O_NOFOLLOW",
    "files.read: os.fdopen": "a descriptor",
    "files.read: os.open": "in an open folder, with O_NOFOLLOW",
    "folders.Folders.has: open_below": SAFE,
    "folders._copy: open_below": SAFE,
    "folders._copy: os.fdopen": "a descriptor",
    "folders._copy: target.open": "a new name in MEDIA_DIR",
    "foreign.SourceFile.__init__: path.open": OPERATOR,
    "ghost._redirects: files.read": SAFE,
    "ghost._redirects: os.open": "the folder of the operator's file",
    "ghost_writing.GhostWriter.__init__: tempfile.TemporaryFile": TEMPORARY,
    "markdown._entry: files.read": SAFE,
    "markdown._walk: os.fwalk": "does not follow links",
    "markdown._walk: os.listdir": "a descriptor",
    "markdown._walk: os.open": "the folder of the operator's file",
    "markdown_writing.ArchiveWriter.__init__: ZipFile": "written to memory",
    "markdown_writing.FolderWriter.write_all: files.create": SAFE,
    "redirects._NginxMaps.__init__: tempfile.TemporaryFile": TEMPORARY,
    "relinking._DryRun.__init__: tempfile.TemporaryFile": TEMPORARY,
    "reporting.Report.__init__: tempfile.TemporaryFile": TEMPORARY,
    "runs._clean_up: shutil.rmtree": RANDOM,
    "runs._open: path.unlink": OPERATOR,
    "runs._receive: (run.directory / 'body').open": RANDOM,
    "runs._receive: run.directory.mkdir": RANDOM,
    "sources._detect: path.open": OPERATOR,
}
"""Why a place that opens a file follows no link that somebody else has made."""


def opening(tree: ast.AST, scope: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the calls that open files, with the functions in which they are."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in OPENING or f"files.{name}" in FUNCTIONS:
                code = ast.unparse(node)
                if name in OPENING or code in FUNCTIONS:
                    yield f"{'.'.join(scope)}: {code}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from opening(node, (*scope, node.name))
        else:
            yield from opening(node, scope)


FUNCTIONS = {
    f"files.{name}"
    for name, value in vars(files).items()
    if isinstance(value, FunctionType) and value.__module__ == files.__name__
} - {"files.decode", "files.is_link"}


def test_every_place_that_opens_files_is_listed() -> None:
    folder = Path(files.__file__).parent
    found = {
        f"{path.relative_to(folder).with_suffix('').as_posix()}.{place}"
        for path in folder.rglob("*.py")
        for place in opening(ast.parse(path.read_text()))
    }
    assert found == PLACES.keys()
