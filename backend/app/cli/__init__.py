"""The `pressroom` command line interface for operators and developers.

base.py      settings, database and console for all commands
serving.py   serve, metrics, routes
accounts.py  create-admin, users …
articles.py  import, export, seed, redirects export
database.py  migrate
doctor.py    doctor
keys.py      keys rotate, keys reseal
operations.py counters …, mail …, jobs …, audit …, sessions …, stats, maintenance …
retention.py retention
webhooks.py  webhooks …
restoring.py after-restore
backup.py    backup create, list, verify, prune, restore, schedule, new-key

Only the module of the requested command is imported, because the services behind all commands take
more than a second to load.
"""

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup


class Command(NamedTuple):
    """A command or a group of commands."""

    module: str
    attribute: str
    help: str
    """The beginning of its own help, for `pressroom --help`."""


COMMANDS = {
    "serve": Command(
        "serving", "serve", "Serve the API, with an embedded PostgreSQL unless DATABASE_URL is set."
    ),
    "migrate": Command("database", "migrate", "Migrate the database to this release."),
    "seed": Command(
        "articles",
        "seed",
        "Add example authors and articles. An empty database always gets the same ones.",
    ),
    "create-admin": Command(
        "accounts",
        "create_admin",
        "Create an administrator. The API cannot create the first one.",
    ),
    "import": Command(
        "articles",
        "import_articles",
        "Import articles: NDJSON, Markdown (a file or a folder), a Ghost or WordPress export.",
    ),
    "export": Command(
        "articles",
        "export_articles",
        "Export all articles, including drafts: as NDJSON, a file for Ghost, or Markdown files.",
    ),
    "retention": Command(
        "retention",
        "retention",
        "Delete revisions and audit events that have expired according to the settings.",
    ),
    "after-restore": Command(
        "restoring",
        "after_restore",
        "End all sessions and drop queued mail after a restore, before the backend starts.",
    ),
    "backup": Command("backup", "cli", "Backups of the database and the images."),
    "doctor": Command(
        "doctor",
        "doctor",
        "Check settings, database, URLs, certificates, mail, storage and disk; say what to do.",
    ),
    "stats": Command("operations", "stats", "Write counts, sizes and growth as JSON."),
    "routes": Command(
        "serving",
        "routes",
        "List all routes: method, path, name, and whether authentication is required.",
    ),
    "metrics": Command(
        "serving",
        "metrics",
        "Serve the metrics on METRICS_PORT: what METRICS_DIR contains, and what the database"
        " shows.",
    ),
    "users": Command("accounts", "cli", "Manage accounts."),
    "mail": Command("operations", "mail_cli", "The mail queue."),
    "webhooks": Command("webhooks", "cli", "Webhooks of all users."),
    "jobs": Command("operations", "jobs_cli", "Background jobs of the server."),
    "audit": Command("operations", "audit_cli", "The audit trail."),
    "sessions": Command("operations", "sessions_cli", "Sessions of users."),
    "maintenance": Command(
        "operations",
        "maintenance_cli",
        "Maintenance mode: reading goes on, and writes are refused.",
    ),
    "counters": Command("operations", "counters_cli", "Counters of favorites, comments, follows."),
    "keys": Command("keys", "cli", "Manage signing and encryption keys."),
    "redirects": Command("articles", "redirects_cli", "Redirects from URLs of old sites."),
}


def load(name: str) -> Any:
    """Import a command, and return it as typer executes it."""
    command = COMMANDS[name]
    found = getattr(import_module(f"app.cli.{command.module}"), command.attribute)
    parent = typer.Typer(pretty_exceptions_enable=False)
    if isinstance(found, typer.Typer):
        parent.add_typer(found, name=name)
    else:
        parent.command(name)(found)
    return typer.main.get_group(parent).commands[name]


class LazyGroup(TyperGroup):
    """The group of all commands. It loads the command that it executes."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, known, rest = super().resolve_command(ctx, args)
        return name, known and load(name or ""), rest


cli = typer.Typer(
    cls=LazyGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


def _declare(name: str, text: str) -> None:
    @cli.command(name, help=text)
    def declared() -> None:
        """Never called: LazyGroup loads the command."""


for _name, _command in COMMANDS.items():
    _declare(_name, _command.help)


def main() -> None:
    """Run the command; print expected errors as a message, without a traceback."""
    try:
        cli()
    except Exception as error:
        message = _expected(error)
        if message is None:
            raise
        _exit_with(message)


def _expected(error: Exception) -> str | None:
    """Return the message of an error that a user can correct, or None for other errors."""
    # The help does not need these modules.
    from pydantic import ValidationError  # noqa: PLC0415

    from app.core.config import SetupError, describe  # noqa: PLC0415
    from app.core.errors import PressroomError  # noqa: PLC0415
    from app.core.job_states import StepsFailed  # noqa: PLC0415

    if isinstance(error, ValidationError):
        return "\n".join(map(describe, error.errors()))
    return str(error) if isinstance(error, PressroomError | SetupError | StepsFailed) else None


def _exit_with(message: str) -> None:
    from rich.console import Console  # noqa: PLC0415 - it takes a tenth of the time of the help

    Console(stderr=True).print(message, style="red", markup=False, soft_wrap=True)
    raise SystemExit(1)
