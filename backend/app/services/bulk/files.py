"""Opening files whose names somebody else chose: regular files only, without following links."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from app.services.bulk.records import MAX_RECORD_BYTES

LINK = "It is a symbolic link, and links are not followed"

# O_NONBLOCK: otherwise opening a named pipe would wait for its other end.
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def is_link(name: str, *, folder: int) -> bool:
    """Whether a name in the folder, an open descriptor, is a symbolic link."""
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:  # gone since the folder was listed
        return False


def read(name: str, *, folder: int) -> bytes:
    """The content of a regular file in the folder, an open descriptor.

    Raises OSError for a symbolic link, for anything else that is no regular file, and for one
    larger than MAX_RECORD_BYTES.
    """
    try:
        descriptor = os.open(name, os.O_RDONLY | _SAFELY, dir_fd=folder)
    except OSError as error:
        raise _explained(error) from error
    with os.fdopen(descriptor, "rb") as file:
        _require_regular(descriptor, name)
        content = file.read(MAX_RECORD_BYTES + 1)
    if len(content) > MAX_RECORD_BYTES:
        raise OSError(errno.EFBIG, f"It is larger than {MAX_RECORD_BYTES} bytes")
    return content


def create(path: Path) -> BinaryIO:
    """Open a regular file for writing; creates or empties it. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | _SAFELY, 0o666)
    except OSError as error:
        raise _explained(error) from error
    file = os.fdopen(descriptor, "wb")
    try:
        _require_regular(descriptor, path)
        file.truncate()
    except OSError:
        file.close()
        raise
    return file


def _require_regular(descriptor: int, name: str | Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "It is not a regular file", str(name))


def _explained(error: OSError) -> OSError:
    if error.errno in {errno.ELOOP, errno.EMLINK}:  # FreeBSD says EMLINK
        return OSError(error.errno, LINK, error.filename)
    if error.errno in {errno.ENXIO, errno.EOPNOTSUPP}:  # a pipe without a reader, a socket
        return OSError(error.errno, "It is not a regular file", error.filename)
    return error
