"""The key of backups. Contents are encrypted with age, and manifests are signed with HMAC.

Without a key, contents are stored as they are. Checksums then find damage, but not forgery.
"""

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from typing import Protocol

import pyrage
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pyrage.x25519 import Identity

from app.core.config import Settings
from app.services.backup.errors import BackupError

COPY_BYTES = 256 * 1024


class Readable(Protocol):
    """A source of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""


class Writable(Protocol):
    """A destination of bytes."""

    def write(self, data: bytes, /) -> int:
        """Write all bytes, and return their number."""

    def flush(self) -> None:
        """Do nothing, or write what is buffered."""


class NoKey:
    """Backups that are not encrypted."""

    id: str | None = None
    suffix = ""

    def sign(self, data: bytes) -> str:
        """Return a checksum of `data`."""
        return hashlib.sha256(data).hexdigest()

    def blob_name(self, checksum: str) -> str:
        """Return the name of an object by the SHA-256 of its contents."""
        return checksum

    def encrypt(self, data: bytes) -> bytes:
        """Return `data`."""
        return data

    def decrypt(self, data: bytes) -> bytes:
        """Return `data`."""
        return data

    def encrypt_stream(self, source: Readable, target: Writable) -> None:
        """Copy from `source` to `target`."""
        while chunk := source.read(COPY_BYTES):
            target.write(chunk)

    def decrypt_stream(self, source: Readable, target: Writable) -> None:
        """Copy from `source` to `target`."""
        self.encrypt_stream(source, target)


class Key(NoKey):
    """A secret key of age (X25519). Other keys are derived from it."""

    suffix = ".age"

    def __init__(self, secret: str) -> None:
        """Raise BackupError if `secret` is not a secret key of age."""
        try:
            self._identity = Identity.from_str(secret.strip())
        except pyrage.IdentityError:
            raise BackupError(
                "BACKUP_KEY is not a key: create one with `pressroom backup new-key`"
            ) from None
        self._recipient = self._identity.to_public()
        self._signing = _derive(secret.strip(), "manifests")
        self._naming = _derive(secret.strip(), "names")
        self.id = _derive(secret.strip(), "id")[:8].hex()

    def sign(self, data: bytes) -> str:
        """Return a signature of `data`."""
        return hmac.new(self._signing, data, "sha256").hexdigest()

    def blob_name(self, checksum: str) -> str:
        """Return a name that does not tell the checksum of the contents."""
        return hmac.new(self._naming, checksum.encode(), "sha256").hexdigest()

    def encrypt(self, data: bytes) -> bytes:
        """Return an age file."""
        return pyrage.encrypt(data, [self._recipient])

    def decrypt(self, data: bytes) -> bytes:
        """Return the contents of an age file. Raises BackupError."""
        with _decryption_errors():
            return pyrage.decrypt(data, [self._identity])

    def encrypt_stream(self, source: Readable, target: Writable) -> None:
        """Write an age file, chunk by chunk. Raises EncryptError also for errors of the streams."""
        pyrage.encrypt_io(_binary(source), _binary(target), [self._recipient])

    def decrypt_stream(self, source: Readable, target: Writable) -> None:
        """Write the contents of an age file; each chunk is authenticated. Raises BackupError."""
        with _decryption_errors():
            pyrage.decrypt_io(_binary(source), _binary(target), [self._identity])


def new_key() -> str:
    """Return a new secret key."""
    return str(Identity.generate())


def key_of(settings: Settings) -> NoKey:
    """Return the key of BACKUP_KEY. Raises BackupError."""
    return NoKey() if settings.backup_key is None else Key(settings.backup_key)


def _derive(secret: str, purpose: str) -> bytes:
    info = f"pressroom backup {purpose}".encode()
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret.encode())


def _binary(stream: object) -> BufferedIOBase:
    """Satisfy the stubs of pyrage, which calls only `read`, or `write` and `flush`."""
    return stream  # type: ignore[return-value]  # it need not be a whole file


@contextmanager
def _decryption_errors() -> Iterator[None]:
    try:
        yield
    except (pyrage.DecryptError, OSError) as error:
        raise BackupError(f"A part cannot be decrypted: {error}") from None
