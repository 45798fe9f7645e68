"""The progress of long operations on backups."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the number of images that are done, and of all images."""


def ignore_progress(done: int, total: int) -> None:
    """Show nothing."""
