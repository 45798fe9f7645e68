"""Migrating the database from code: what `alembic upgrade head` does on the command line."""

from alembic import command
from alembic.config import Config

from app.core.config import BACKEND_DIR


def alembic_config(url: str | None = None) -> Config:
    """Alembic's configuration, for the database at `url` or for that of the settings."""
    config = Config(BACKEND_DIR / "alembic.ini")
    config.attributes["url"] = url
    return config


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database at `url` to `revision`. Not for use on an event loop: it runs its own."""
    command.upgrade(alembic_config(url), revision)
