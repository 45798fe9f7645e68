"""Database migrations from code, equivalent to `alembic upgrade`."""

from alembic import command
from alembic.config import Config

from app.core.config import BACKEND_DIR


def alembic_config(url: str | None = None) -> Config:
    """Return the Alembic configuration for the database at `url`, or for DATABASE_URL."""
    config = Config(BACKEND_DIR / "alembic.ini")
    config.attributes["url"] = url
    return config


def upgrade(url: str, revision: str = "head") -> None:
    """Upgrade the database at `url` to `revision`. Do not call it while an event loop runs."""
    command.upgrade(alembic_config(url), revision)
