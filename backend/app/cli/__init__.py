"""The `pressroom` command line interface for operators and developers.

base.py      settings, database and console for all commands
serving.py   serve, metrics, routes
accounts.py  create-admin, users …
articles.py  import, export, seed, redirects export
database.py  migrate
doctor.py    doctor
keys.py      keys rotate, keys reseal
operations.py counters recount, mail list, mail requeue, jobs list, jobs run
retention.py retention
restoring.py after-restore
"""

import typer
from pydantic import ValidationError
from rich.console import Console

from app.cli import (
    accounts,
    articles,
    database,
    doctor,
    keys,
    operations,
    restoring,
    retention,
    serving,
)
from app.core.config import SetupError, describe
from app.core.errors import PressroomError
from app.jobs.steps import StepsFailed

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (
    serving.serve,
    database.migrate,
    articles.seed,
    accounts.create_admin,
    articles.import_articles,
    articles.export_articles,
    retention.retention,
    restoring.after_restore,
    doctor.doctor,
    serving.routes,
    serving.metrics,
):
    cli.command(command.__name__.removesuffix("_articles").replace("_", "-"))(command)
cli.add_typer(accounts.cli, name="users")
cli.add_typer(operations.mail_cli, name="mail")
cli.add_typer(operations.jobs_cli, name="jobs")
cli.add_typer(operations.counters_cli, name="counters")
cli.add_typer(keys.cli, name="keys")
cli.add_typer(articles.redirects_cli, name="redirects")


def main() -> None:
    """Run the command; print expected errors as a message, without a traceback."""
    try:
        cli()
    except ValidationError as error:
        _exit_with("\n".join(map(describe, error.errors())))
    except (PressroomError, SetupError, StepsFailed) as error:
        _exit_with(str(error))


def _exit_with(message: str) -> None:
    Console(stderr=True).print(message, style="red", markup=False, soft_wrap=True)
    raise SystemExit(1)
