"""The list of the images of a backup: NDJSON, ordered by folder, one line for each image."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, NamedTuple, cast

from app.services.backup.encryption import NoKey
from app.services.backup.errors import BackupError
from app.services.backup.manifest import MEDIA_LIST, Manifest, part_name
from app.services.backup.targets import MEDIA, Reader, Target


class File(NamedTuple):
    """A file of an image: its name, its size, and the SHA-256 of its contents."""

    name: str
    bytes: int
    sha256: str


class Image(NamedTuple):
    """A folder of the media storage."""

    folder: str
    files: Sequence[File]
    withdrawn: bool = False
    """Whether it was deleted: its files were kept, but no longer served."""

    @property
    def size(self) -> int:
        """The total size of its files."""
        return sum(file.bytes for file in self.files)

    def encode(self) -> bytes:
        """Return its line."""
        return (
            json.dumps([self.folder, self.files, self.withdrawn], separators=(",", ":")).encode()
            + b"\n"
        )

    @classmethod
    def decode(cls, line: bytes) -> "Image":
        """Read a line that `encode` wrote."""
        folder, files, withdrawn = json.loads(line)
        return cls(folder, [File(*file) for file in files], withdrawn)


def image_of(folder: str, contents: Mapping[str, bytes], *, withdrawn: bool) -> Image:
    """Return the line of files that were read."""
    files = (
        File(name, len(data), hashlib.sha256(data).hexdigest())
        for name, data in sorted(contents.items())
    )
    return Image(folder, list(files), withdrawn)


def blob_path(file: File, key: NoKey) -> str:
    """Return the name of the object with the contents of a file."""
    name = key.blob_name(file.sha256)
    return f"{MEDIA}/{name[:2]}/{name}{key.suffix}"


@contextmanager
def opened(target: Target, manifest: Manifest, key: NoKey) -> Iterator[Iterator[Image]]:
    """Yield the images of a backup. The list is checked first. Raises BackupError."""
    with tempfile.TemporaryFile() as spool:
        reader = target.reader(part_name(manifest.id, MEDIA_LIST, key))
        copy(reader, cast("IO[bytes]", spool), key)
        if (reader.bytes, reader.sha256) != (manifest.media_list.bytes, manifest.media_list.sha256):
            raise BackupError(f"The list of images of {manifest.id} is damaged: use another backup")
        spool.seek(0)
        yield map(Image.decode, spool)


def copy(reader: Reader, file: "IO[bytes]", key: NoKey) -> None:
    """Decrypt a whole object into a file. Raises BackupError."""
    try:
        key.decrypt_stream(reader, file)
        while reader.read():  # what follows the encrypted contents
            pass
    except BackupError:
        raise reader.error or BackupError(
            "A part of the backup cannot be decrypted: it is damaged"
        ) from None
