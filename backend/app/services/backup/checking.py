"""Verification of backups: everything is read, decrypted and compared with its checksum."""

import asyncio
import hashlib

from app.services.backup import listing
from app.services.backup.encryption import NoKey
from app.services.backup.errors import BackupError
from app.services.backup.listing import File, blob_path
from app.services.backup.manifest import DATABASE, Manifest, choose, part_name
from app.services.backup.progress import Progress, ignore_progress
from app.services.backup.targets import CHUNK_BYTES, Target


async def verify(
    target: Target,
    backup: str | None,
    *,
    key: NoKey,
    progress: Progress = ignore_progress,
) -> Manifest:
    """Read a whole backup, by default the newest.

    Raises BackupError for the first part that is missing or damaged.
    """
    return await asyncio.to_thread(_verify, target, backup, key, progress)


def _verify(target: Target, backup: str | None, key: NoKey, progress: Progress) -> Manifest:
    manifest = choose(target, backup, key)
    check_database(target, manifest, key)
    count = 0
    with listing.opened(target, manifest, key) as images:
        for image in images:
            for file in image.files:
                load_file(target, file, key)
            count += 1
            progress(count, manifest.images + manifest.withdrawn)
    return manifest


def check_database(target: Target, manifest: Manifest, key: NoKey) -> None:
    """Read the dump. Raises BackupError if it is missing or damaged."""
    reader = target.reader(part_name(manifest.id, DATABASE, key))
    while reader.read(CHUNK_BYTES):
        pass
    if (reader.bytes, reader.sha256) != (manifest.database.bytes, manifest.database.sha256):
        raise BackupError(f"The dump of {manifest.id} is damaged: use another backup")


def load_file(target: Target, file: File, key: NoKey) -> bytes:
    """Return the contents of a file of an image. Raises BackupError if it is damaged."""
    path = blob_path(file, key)
    data = target.get(path)
    if data is None:
        raise BackupError(f"{path} is missing in {target.name}: the next backup stores it again")
    contents = key.decrypt(data)
    if hashlib.sha256(contents).hexdigest() != file.sha256:
        raise BackupError(f"{path} in {target.name} is damaged: delete it, and make a new backup")
    return contents
