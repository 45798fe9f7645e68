"""Commands for the operation of a server: counters, mail and jobs."""

from functools import partial
from typing import Annotated

import typer

from app.auth.identity import COMMAND_LINE
from app.cli.base import console, prepare_settings, run_with_database
from app.core.plurals import counted
from app.db.session import Database
from app.jobs.background import create_jobs, work_by_name
from app.services import job_runs, outbox
from app.services.community import counters

counters_cli = typer.Typer(no_args_is_help=True, help="Counters of favorites, comments, follows.")
mail_cli = typer.Typer(no_args_is_help=True, help="The mail queue.")
jobs_cli = typer.Typer(no_args_is_help=True, help="Background jobs of the server.")

MAX_LISTED_MAILS = 1000


@counters_cli.command()
def recount() -> None:
    """Correct all counters, for example after rows were loaded without triggers."""
    work = partial(counters.recount, actor=COMMAND_LINE)
    corrected = run_with_database(prepare_settings(log_level="WARNING"), work)
    console.print(f"Corrected {counted(corrected, 'counter')}", highlight=False)


@counters_cli.callback()
def _counters() -> None:
    """Without a callback, typer would run the only command of a group without its name."""


@mail_cli.command("list")
def list_mail() -> None:
    """List mails that failed, were dropped, or are overdue."""

    async def fetch(database: Database) -> list[str]:
        unsent = await outbox.list_unsent(database.reader, limit=MAX_LISTED_MAILS)
        return [_describe(mail) for mail in unsent]

    lines = run_with_database(prepare_settings(log_level="WARNING"), fetch)
    console.print(
        "\n".join(lines) or "No mail has failed", markup=False, highlight=False, soft_wrap=True
    )


def _describe(mail: outbox.UnsentMail) -> str:
    state = "given up" if mail.next_attempt_at is None else f"next {mail.next_attempt_at:%F %T}"
    error = mail.error or "not attempted"
    return (
        f"{mail.id:>8}  {mail.created_at:%F %T}  {mail.kind:<16}  {mail.email}"
        f"  {counted(mail.attempts, 'attempt')}, {state}: {error}"
    )


@mail_cli.command()
def requeue(
    mails: Annotated[
        list[int] | None, typer.Argument(help="Ids of `mail list`; all by default.")
    ] = None,
) -> None:
    """Send failed mails of the last day again, at once."""

    async def run(database: Database) -> int:
        async with database.unit_of_work() as session:
            return await outbox.requeue(session, mail_ids=mails or None, actor=COMMAND_LINE)

    count = run_with_database(prepare_settings(log_level="WARNING"), run)
    console.print(f"Queued {counted(count, 'mail')} again", highlight=False)


@jobs_cli.command("list")
def list_jobs() -> None:
    """List the jobs of these settings, and how often the server runs them."""
    settings = prepare_settings(log_level="WARNING")

    async def fetch(database: Database) -> list[str]:
        return [
            f"{job.name:<16}  every {job.interval:g} s" for job in create_jobs(settings, database)
        ]

    for line in run_with_database(settings, fetch):
        console.print(line, highlight=False)


@jobs_cli.command()
def run(name: Annotated[str, typer.Argument(help="A name of `jobs list`.")]) -> None:
    """Run one job once, now, beside the server."""
    settings = prepare_settings(log_level="INFO")

    async def run_job(database: Database) -> job_runs.Outcome:
        jobs = work_by_name(create_jobs(settings, database))
        return await job_runs.run_now(database, name=name, jobs=jobs, actor=COMMAND_LINE)

    outcome = run_with_database(settings, run_job)
    rows = f": {counted(outcome.rows, 'row')}" if outcome.rows else ""
    console.print(f"The job {name} is done{rows}", markup=False, highlight=False)
