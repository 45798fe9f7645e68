"""Errors of backups."""

from app.core.config import SetupError


class BackupError(SetupError):
    """A backup cannot be made, read or restored. The message says what to change."""
