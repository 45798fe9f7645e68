"""Manifests: what a backup contains. A backup without one is incomplete."""

import hmac
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.services.backup.encryption import NoKey
from app.services.backup.errors import BackupError
from app.services.backup.targets import BACKUPS, Target

MANIFEST = "manifest.json"
DATABASE = "database.dump"
MEDIA_LIST = "media.ndjson"
_ID = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{8}")


class Part(BaseModel):
    """A stored object: its size and its SHA-256, both as it is stored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a backup contains. Its fields are written to the JSON output of commands, too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    id: str
    created_at: datetime
    """The time of the snapshot."""
    seconds: float
    version: str
    """The release of Pressroom."""
    revision: str
    """The newest migration of the database."""
    postgresql: int
    """The major version of the server."""
    key: str | None
    """The id of the key; None if the backup is not encrypted."""
    database: Part
    media_list: Part
    images: int
    withdrawn: int
    """The images that were deleted shortly before, and whose files were kept."""
    files: int
    media_bytes: int
    """The total size of the files, before encryption."""
    uploaded_bytes: int
    """The part of it that earlier backups did not contain."""
    missing: Sequence[str] = Field(default_factory=list)
    """Folders of images whose files did not exist."""
    counts: Mapping[str, int]
    """The number of rows by table."""
    checksums: Mapping[str, str]
    """The sum of the checksums of the rows by table."""


class Listed(NamedTuple):
    """A backup in a list; `problem` says why it cannot be used."""

    id: str
    manifest: Manifest | None
    problem: str | None


def part_name(backup: str, part: str, key: NoKey) -> str:
    """Return the name of the object of a part."""
    return f"{BACKUPS}/{backup}/{part}{key.suffix}"


def manifest_name(backup: str) -> str:
    """Return the name of the object of a manifest."""
    return f"{BACKUPS}/{backup}/{MANIFEST}"


def encode(manifest: Manifest, key: NoKey) -> bytes:
    """Return the signed manifest as JSON."""
    values = manifest.model_dump(mode="json")
    signed = values | {"signature": key.sign(_canonical(values))}
    return json.dumps(signed, indent=2, sort_keys=True).encode() + b"\n"


def decode(data: bytes, *, backup: str, key: NoKey) -> Manifest:
    """Return a manifest. Raises BackupError if it was changed, or was signed with another key."""
    try:
        values = json.loads(data)
        signature = values.pop("signature")
    except (ValueError, AttributeError, KeyError, TypeError):
        raise BackupError(f"The manifest of {backup} is damaged") from None
    if values.get("format") != 1:
        raise BackupError(f"{backup} was made by a newer release: use that release")
    if values.get("key") != key.id:
        raise BackupError(_explain_key(backup, values.get("key"), key))
    is_genuine = hmac.compare_digest(str(signature).encode(), key.sign(_canonical(values)).encode())
    if not is_genuine or values.get("id") != backup:
        raise BackupError(f"The manifest of {backup} was changed: use another backup")
    try:
        return Manifest.model_validate(values)
    except ValidationError:
        raise BackupError(f"The manifest of {backup} is damaged") from None


def read(target: Target, backup: str, key: NoKey) -> Manifest:
    """Return the manifest of a backup. Raises BackupError."""
    if not _ID.fullmatch(backup):
        raise BackupError(f"{backup} is not the id of a backup; see `pressroom backup list`")
    data = target.get(manifest_name(backup))
    if data is None:
        is_incomplete = backup in target.folders(BACKUPS)
        problem = "is incomplete: it has no manifest" if is_incomplete else "does not exist"
        raise BackupError(f"{backup} {problem}")
    return decode(data, backup=backup, key=key)


def list_backups(target: Target, key: NoKey) -> list[Listed]:
    """Return all backups, oldest first, also those that cannot be used."""
    backups = []
    for backup in filter(_ID.fullmatch, target.folders(BACKUPS)):
        try:
            backups.append(Listed(backup, read(target, backup, key), None))
        except BackupError as error:
            backups.append(Listed(backup, None, str(error)))
    return backups


def newest(target: Target, key: NoKey) -> Manifest | None:
    """Return the newest usable backup of this key."""
    return next(
        (each.manifest for each in reversed(list_backups(target, key)) if each.manifest), None
    )


def choose(target: Target, backup: str | None, key: NoKey) -> Manifest:
    """Return a backup, by default the newest usable one. Raises BackupError."""
    if backup is not None:
        return read(target, backup, key)
    manifest = newest(target, key)
    if manifest is None:
        raise BackupError(
            f"There is no usable backup in {target.name}; see `pressroom backup list`"
        )
    return manifest


def _canonical(values: Mapping[str, object]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


def _explain_key(backup: str, found: object, key: NoKey) -> str:
    if found is None:
        return f"{backup} is not encrypted: unset BACKUP_KEY and BACKUP_KEY_FILE to use it"
    if key.id is None:
        return f"{backup} is encrypted: set BACKUP_KEY_FILE to the file with its key {found}"
    return f"{backup} is encrypted with the key {found}, but BACKUP_KEY is the key {key.id}"
