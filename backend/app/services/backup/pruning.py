"""Deletion of old backups, and of files that no backup needs."""

import asyncio
from datetime import timedelta
from typing import NamedTuple

from app.core import clock
from app.services.backup import listing
from app.services.backup.encryption import NoKey
from app.services.backup.errors import BackupError
from app.services.backup.listing import blob_path
from app.services.backup.manifest import Manifest, list_backups, manifest_name
from app.services.backup.targets import BACKUPS, MEDIA, Target, locked


class Pruned(NamedTuple):
    """What was deleted."""

    deleted: list[str]
    """The ids of the backups."""
    kept: int
    freed_bytes: int


async def prune(target: Target, *, key: NoKey, keep: int, keep_days: int) -> Pruned:
    """Keep the newest `keep` backups, and all of the last `keep_days` days; delete the others.

    Incomplete backups are deleted, too. Raises BackupError, also if a complete backup cannot be
    read: nothing is deleted then, because its files are not known.
    """
    async with locked(target):
        return await asyncio.to_thread(_prune, target, key, keep, keep_days)


def _prune(target: Target, key: NoKey, keep: int, keep_days: int) -> Pruned:
    complete: list[Manifest] = []
    incomplete: list[str] = []
    for each in list_backups(target, key):
        if each.manifest is not None:
            complete.append(each.manifest)
        elif target.size(manifest_name(each.id)) is None:
            incomplete.append(each.id)
        else:
            raise BackupError(f"Nothing is deleted: {each.problem}")
    oldest = clock.now() - timedelta(days=keep_days)
    newest = complete[-keep:]
    kept = [each for each in complete if each in newest or each.created_at >= oldest]
    needed = _files_of(target, kept, key)
    deleted = [each.id for each in complete if each not in kept]
    freed = 0
    for backup in deleted + incomplete:
        # The manifest goes first: what is left of an interrupted deletion is incomplete.
        target.delete(manifest_name(backup))
        parts = list(target.objects(f"{BACKUPS}/{backup}"))
        target.delete(*(part.name for part in parts))
        freed += sum(part.bytes for part in parts)
    for file in target.objects(MEDIA):
        if file.name not in needed:
            target.delete(file.name)
            freed += file.bytes
    return Pruned(deleted + incomplete, len(kept), freed)


def _files_of(target: Target, backups: list[Manifest], key: NoKey) -> set[str]:
    needed: set[str] = set()
    for manifest in backups:
        with listing.opened(target, manifest, key) as images:
            needed.update(blob_path(file, key) for image in images for file in image.files)
    return needed
