"""Database migrations from code, equivalent to `alembic upgrade`."""

from alembic import command
from alembic.config import Config

from app.core.config import BACKEND_DIR, Settings


def alembic_config(url: str | None = None, application_url: str | None = None) -> Config:
    """Return the Alembic configuration for the database at `url`, or for the settings.

    `application_url` is DATABASE_URL if `url` is that of the owner.
    """
    config = Config(BACKEND_DIR / "alembic.ini")
    config.attributes |= {"url": url, "application_url": application_url}
    return config


def upgrade(url: str, revision: str = "head", *, application_url: str | None = None) -> None:
    """Upgrade the database at `url` to `revision`. Do not call it while an event loop runs.

    The role of `application_url` gets access to the tables (app.db.roles).
    """
    command.upgrade(alembic_config(url, application_url), revision)


def upgrade_as_owner(settings: Settings) -> None:
    """Upgrade the database of `settings`, and let the role of DATABASE_URL access it."""
    url = settings.database_url or ""
    upgrade(settings.database_owner_url or url, application_url=url)
