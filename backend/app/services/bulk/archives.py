"""Extraction of ZIP files with texts, from untrusted users.

Only texts are extracted, and files that say something about them. Other files become empty files,
so that they are counted. Names that lead out of the folder, links and compressions other than
Deflate are refused.
"""

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from app.services.bulk.directories import is_configuration
from app.services.bulk.foreign import SourceError
from app.services.bulk.markdown import SUFFIXES
from app.services.bulk.records import MAX_RECORD_BYTES

MAX_FILES = 20_000
MAX_UNPACKED = 512 * 1024 * 1024
MAX_DEPTH = 30
MAX_DIRECTORY = 8 * 1024 * 1024
"""Maximum size of the list of files in the archive. It is read into memory."""

_TEXTS = {*SUFFIXES, ".json", ".yml", ".yaml", ".toml"}
"""Endings of texts, and of files with values for the texts of a folder."""
_EXPORTS = {".xml", ".json"}
_PRUNED = {"__MACOSX", "node_modules", "bower_components", "vendor"}
_CHUNK = 256 * 1024
_END, _END64, _END64_LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_END_SIZE, _END64_SIZE, _LOCATOR_SIZE = 22, 56, 20
_MAX_COMMENT = 65_535
_OPENING_ERRORS = (
    BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    UnicodeDecodeError,
)
_READ_ERRORS = (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def extract(path: Path, folder: Path, *, advance: Callable[[int], None]) -> list[str]:
    """Extract the texts of an archive into a new folder. Return the problems of single files.

    A folder that contains everything else is left out of the paths: its name often contains a
    version. `advance` gets the number of bytes read. Raises SourceError.
    """
    folder.mkdir()
    problems: list[str] = []
    with _opened(path) as archive:
        _extract_all(archive, folder, problems, advance)
    return problems


def size_of_texts(path: Path) -> int:
    """Return the declared size of the texts in an archive: more is not extracted.

    Raises SourceError.
    """
    with _opened(path) as archive:
        texts = [info for name, info in _files(archive, []) if _is_read(name)]
    return min(sum(min(info.file_size, MAX_RECORD_BYTES + _CHUNK) for info in texts), MAX_UNPACKED)


@contextmanager
def _opened(path: Path) -> Iterator[ZipFile]:
    """Open an archive. Raises SourceError if it cannot be read, also while the block runs."""
    try:
        _check_size_of_directory(path)
        with ZipFile(path) as archive:
            yield archive
    except _OPENING_ERRORS as error:
        raise SourceError(f"This is not a ZIP file that can be read: {error}"[:300]) from error


def _check_size_of_directory(path: Path) -> None:
    """Refuse a long list of files before it is read.

    Its size is in the record at the end, which only a comment may follow, or in the one before.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _END_SIZE - _MAX_COMMENT - _LOCATOR_SIZE - _END64_SIZE))
        tail = file.read()
    end = tail.rfind(_END)
    comment = int.from_bytes(tail[end + 20 : end + 22], "little")
    if end < 0 or end + _END_SIZE + comment != len(tail):
        raise SourceError("This is not a ZIP file, or it is cut off")
    length = int.from_bytes(tail[end + 12 : end + 16], "little")
    locator = max(0, end - _LOCATOR_SIZE)
    end64 = max(0, locator - _END64_SIZE)
    if tail.startswith(_END64_LOCATOR, locator) and tail.startswith(_END64, end64):
        length = int.from_bytes(tail[end64 + 40 : end64 + 48], "little")
    if length > MAX_DIRECTORY:
        raise SourceError("The archive has too many files")


def _extract_all(
    archive: ZipFile, folder: Path, problems: list[str], advance: Callable[[int], None]
) -> None:
    found = list(_files(archive, problems))
    if len(found) > MAX_FILES:
        raise SourceError(f"The archive has more than {MAX_FILES} files")
    suffixes = {name.suffix.lower() for name, _ in found}
    if suffixes.isdisjoint(SUFFIXES) and suffixes & _EXPORTS:
        raise SourceError(
            "The archive has no texts. Unpack an export of WordPress or Ghost, and send its files"
        )
    roots = {name.parts[0] for name, _ in found}
    is_nested = len(roots) == 1 and all(len(name.parts) > 1 for name, _ in found)
    remaining = MAX_UNPACKED
    for name, info in found:
        target = folder.joinpath(*name.parts[1 if is_nested else 0 :])
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if _is_read(name):
                remaining -= _write(archive, info, target, advance)
            else:
                target.touch(exist_ok=False)
        except (*_READ_ERRORS, OSError) as error:
            problems.append(f"{name}: the file cannot be unpacked ({_reason(error)})"[:300])
        if remaining < 0:
            raise SourceError(f"The archive has more than {MAX_UNPACKED} bytes of texts")


def _is_read(name: PurePosixPath) -> bool:
    return name.suffix.lower() in _TEXTS or is_configuration(name.name)


def _reason(error: Exception) -> str:
    return (error.strerror or "") if isinstance(error, OSError) else str(error)


def _files(archive: ZipFile, problems: list[str]) -> Iterator[tuple[PurePosixPath, ZipInfo]]:
    """Yield the files with their paths, without those that are hidden or refused."""
    for info in archive.infolist():
        if info.is_dir():
            continue
        name = PurePosixPath(info.filename.replace("\\", "/"))
        parts = name.parts
        hiding = parts[:-1] if is_configuration(name.name) else parts
        is_hidden = any(part[0] == "." and part != ".." for part in hiding)
        if not parts or is_hidden or not _PRUNED.isdisjoint(parts):
            continue
        if reason := _refusal(name, info):
            problems.append(f"{name}: {reason}"[:300])
        else:
            yield name, info


def _refusal(name: PurePosixPath, info: ZipInfo) -> str:
    parts = name.parts
    if name.is_absolute() or ".." in parts or any(":" in part for part in parts[:1]):
        return "the path leads out of the archive"
    if len(parts) > MAX_DEPTH or max(len(part.encode(errors="replace")) for part in parts) > 255:
        return "the path is too long"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "symbolic links are not followed"
    if info.flag_bits & 0x1:
        return "the file is encrypted"
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        return "only the compression Deflate is supported"
    return ""


def _write(archive: ZipFile, info: ZipInfo, target: Path, advance: Callable[[int], None]) -> int:
    """Write a file, of which at most one byte more than allowed. Return the size."""
    size = 0
    with archive.open(info) as source, target.open("xb") as file:
        try:
            while size <= MAX_RECORD_BYTES and (chunk := source.read(_CHUNK)):
                file.write(chunk)
                size += len(chunk)
                advance(len(chunk))
        except _READ_ERRORS:
            target.unlink()  # not imported as a text that is cut off
            raise
    return size
