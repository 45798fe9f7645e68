"""Opening files with untrusted names: regular files only, without following symbolic links."""

import codecs
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from app.services.bulk.records import MAX_RECORD_BYTES

SYMLINK_MESSAGE = "symbolic links are not followed"

# O_NONBLOCK: without it, opening a named pipe blocks until the other end is opened.
_OPEN_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def is_link(name: str, *, folder: int) -> bool:
    """Return whether a name in `folder` (a file descriptor) is a symbolic link."""
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:  # deleted after the folder was listed
        return False


def read(name: str, *, folder: int) -> bytes:
    """Return the content of a regular file in `folder` (a file descriptor).

    Raises OSError if it is not a regular file, for example a symbolic link, or if it is larger
    than MAX_RECORD_BYTES.
    """
    try:
        descriptor = os.open(name, os.O_RDONLY | _OPEN_FLAGS, dir_fd=folder)
    except OSError as error:
        raise _explain(error) from error
    with os.fdopen(descriptor, "rb") as file:
        _require_regular(descriptor, name)
        content = file.read(MAX_RECORD_BYTES + 1)
    if len(content) > MAX_RECORD_BYTES:
        raise OSError(errno.EFBIG, f"larger than {MAX_RECORD_BYTES} bytes")
    return content


def decode(raw: bytes) -> tuple[str, str]:
    """Return the text of a file, and a note if it is not UTF-8."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", errors="replace"), ""
    try:
        return raw.decode("utf-8-sig"), ""
    except UnicodeDecodeError:
        note = "bytes that are not UTF-8 were replaced by \ufffd"
        return raw.decode("utf-8-sig", errors="replace"), note


def open_folder(root: Path, name: str = "") -> int:
    """Open a folder below another one, and return its file descriptor.

    Raises OSError if it is not a folder, or if a folder on the way is a symbolic link. The name
    must not contain `..`. Links in the path of `root` are followed.
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for each in filter(None, name.split("/")):
        try:
            below = os.open(each, os.O_RDONLY | os.O_DIRECTORY | _OPEN_FLAGS, dir_fd=folder)
        except OSError as error:
            if error.errno == errno.ENOTDIR and is_link(each, folder=folder):
                raise OSError(errno.ELOOP, SYMLINK_MESSAGE, name) from error
            raise _explain(error) from error
        finally:
            os.close(folder)
        folder = below
    return folder


def open_below(root: Path, name: str) -> int:
    """Open a regular file below a folder, and return its file descriptor.

    Raises OSError if it is not a regular file, or if a folder on the way is a symbolic link. The
    name must not contain `..`.
    """
    above, _, last = name.rpartition("/")
    folder = open_folder(root, above)
    try:
        descriptor = os.open(last, os.O_RDONLY | _OPEN_FLAGS, dir_fd=folder)
    except OSError as error:
        raise _explain(error) from error
    finally:
        os.close(folder)
    try:
        _require_regular(descriptor, name)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def create(path: Path) -> BinaryIO:
    """Open a regular file for writing, and create or truncate it. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | _OPEN_FLAGS, 0o666)
    except OSError as error:
        raise _explain(error) from error
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
        raise OSError(errno.EINVAL, "not a regular file", str(name))


def _explain(error: OSError) -> OSError:
    if error.errno in {errno.ELOOP, errno.EMLINK}:  # EMLINK on FreeBSD
        return OSError(error.errno, SYMLINK_MESSAGE, error.filename)
    if error.errno in {errno.ENXIO, errno.EOPNOTSUPP}:  # a pipe without a reader, a socket
        return OSError(error.errno, "not a regular file", error.filename)
    return error
