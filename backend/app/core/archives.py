"""ZIP files that are sent while they are written."""


class Parts:
    """A file that cannot seek. It collects what is written, for `zipfile.ZipFile`."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: ZipFile calls it."""

    def close(self) -> None:
        """Do nothing: what was written is taken later."""

    def take(self) -> bytes:
        """Return what was written since the last call."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data
