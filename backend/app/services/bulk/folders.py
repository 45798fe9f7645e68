"""Folders with the images of an old site, in which files are found by their addresses.

The names are untrusted. Each folder on the way is opened relative to its parent, without following
symbolic links, so that no file outside is read. Folders are not listed: a loop has no effect.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from unicodedata import normalize

from app.services.bulk.fetching import FetchedFile, NotFetched
from app.services.bulk.files import open_below
from app.services.bulk.references import without_size
from app.services.media.uploading import storage_errors

MAX_DEPTH = 40
CHUNK = 256 * 1024

_STRIPPED = (
    "wp-content/uploads", "wp-content", "content/images", "content/media", "content/files",
    "content", "static", "assets", "public", "source", "src", "images", "files",
)  # fmt: skip
"""Paths in addresses that the given folder may stand for."""
_INSIDE = (
    "", "static", "public", "assets", "source", "src", "content", "images", "wp-content/uploads",
)  # fmt: skip
"""Folders of generators whose content is served at the root of the site."""


class Folders:
    """The folders of an import."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._roots = [path.resolve() for path in dict.fromkeys(paths)]  # may be symbolic links

    def copy(self, names: Sequence[str], target: Path, *, max_bytes: int) -> FetchedFile:
        """Copy the first file that exists to `target`. Raises NotFetched with the reason.

        `names` are paths that the file may have. A smaller version that WordPress made is replaced
        by the image itself if only that exists.
        """
        whole = [whole for name in names if (whole := without_size(name)) is not None]
        refused = ""
        for root in self._roots:
            for name in _candidates(root, [*names, *whole]):
                try:
                    return _copy(root, name, target, max_bytes=max_bytes)
                except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    continue
                except OSError as error:
                    refused = refused or f"{name} cannot be read ({error.strerror})"
        raise NotFetched(refused or "the file is not in the folder")

    def has(self, names: Sequence[str]) -> bool:
        """Return whether one of the files exists."""
        whole = [whole for name in names if (whole := without_size(name)) is not None]
        for root in self._roots:
            for name in _candidates(root, [*names, *whole]):
                with suppress(OSError):
                    os.close(open_below(root, name))
                    return True
        return False


def _candidates(root: Path, names: Sequence[str]) -> Iterator[str]:
    """Yield the paths below the folder that an address may mean."""
    found: dict[str, None] = {}
    for name in names:
        parts = [part for part in name.split("/") if part not in {"", "."}]
        if not parts or ".." in parts or len(parts) > MAX_DEPTH or "\0" in name:
            continue
        path = "/".join(parts)
        for inside in _INSIDE:
            found[f"{inside}/{path}" if inside else path] = None
        for prefix in _STRIPPED:
            if path.startswith(f"{prefix}/") and not (root / parts[0]).is_dir():
                found[path[len(prefix) + 1 :]] = None
        for count in range(1, min(len(parts), len(root.parts))):
            if list(root.parts[-count:]) == parts[:count]:
                found["/".join(parts[count:])] = None
    for path in found:  # macOS stores decomposed names
        yield from dict.fromkeys([path, *(normalize(form, path) for form in ("NFC", "NFD"))])


def _copy(root: Path, name: str, target: Path, *, max_bytes: int) -> FetchedFile:
    """Copy a file. Raises OSError if it cannot be read, and NotFetched if it is too large."""
    digest = sha256()
    with os.fdopen(open_below(root, name), "rb") as source:
        size = os.fstat(source.fileno()).st_size
        if size > max_bytes:
            raise NotFetched(f"it is larger than {max_bytes} bytes")
        with storage_errors():
            file = target.open("wb")
        with file:
            left = max_bytes
            while chunk := source.read(min(CHUNK, left + 1)):
                left -= len(chunk)
                if left < 0:
                    raise NotFetched(f"it is larger than {max_bytes} bytes")
                digest.update(chunk)
                with storage_errors():
                    file.write(chunk)
    return FetchedFile(target, digest.digest())
