"""Commands for the operation of a server.

Counters, mail, jobs, the audit trail, sessions, statistics and maintenance mode.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import typer

from app.auth.identity import COMMAND_LINE
from app.cli.base import console, prepare_settings, run_with_database
from app.core.plurals import counted
from app.db.session import Database
from app.jobs.background import create_jobs, work_by_name
from app.schemas.accounts.session import SessionQuery, UserSessionResponse
from app.schemas.audit import AuditEventResponse, AuditFilter, AuditQuery
from app.schemas.job import JobResponse
from app.schemas.maintenance import MaintenanceUpdate
from app.schemas.page import MAX_LIMIT
from app.schemas.statistics import Statistics
from app.services import job_runs, maintenance, operations, outbox, statistics
from app.services.accounts import sessions
from app.services.community import counters

counters_cli = typer.Typer(no_args_is_help=True, help="Counters of favorites, comments, follows.")
mail_cli = typer.Typer(no_args_is_help=True, help="The mail queue.")
jobs_cli = typer.Typer(no_args_is_help=True, help="Background jobs of the server.")

audit_cli = typer.Typer(no_args_is_help=True, help="The audit trail.")
sessions_cli = typer.Typer(no_args_is_help=True, help="Sessions of users.")
maintenance_cli = typer.Typer(
    no_args_is_help=True, help="Maintenance mode: reading goes on, and writes are refused."
)

SinceOption = Annotated[
    str | None, typer.Option(help="Recorded at this time or later, as 2026-11-20T09:00:00Z.")
]
UntilOption = Annotated[
    str | None, typer.Option(help="Recorded before this time, as 2026-11-20T09:00:00Z.")
]

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


@mail_cli.command()
def cancel(mail_id: Annotated[int, typer.Argument(help="An id of `mail list`.")]) -> None:
    """Cancel a mail that waits for delivery."""

    async def run(database: Database) -> None:
        async with database.unit_of_work() as session:
            await outbox.cancel_mail(session, mail_id=mail_id, actor=COMMAND_LINE)

    run_with_database(prepare_settings(log_level="WARNING"), run)
    console.print(f"Mail {mail_id} is cancelled", highlight=False)


@jobs_cli.command("list")
def list_jobs() -> None:
    """List the jobs of these settings, how often the server runs them, and their last runs."""
    settings = prepare_settings(log_level="WARNING")

    async def fetch(database: Database) -> Sequence[JobResponse]:
        intervals = {job.name: job.interval for job in create_jobs(settings, database)}
        return await job_runs.list_jobs(database.reader, intervals=intervals, user=COMMAND_LINE)

    for job in run_with_database(settings, fetch):
        console.print(_describe_job(job), markup=False, highlight=False, soft_wrap=True)


def _describe_job(job: JobResponse) -> str:
    every = "not repeated" if job.interval_seconds is None else f"every {job.interval_seconds:g} s"
    success, run = job.last_success_at, job.last_run
    last = "no success recorded" if success is None else f"last success {success:%F %T}"
    failed = f", last run failed: {run.error}" if run is not None and run.error else ""
    return f"{job.name:<16}  {every:<13}  {last}{failed}"


@jobs_cli.command()
def run(name: Annotated[str, typer.Argument(help="A name of `jobs list`.")]) -> None:
    """Run one job once, now, beside the server."""
    settings = prepare_settings(log_level="INFO")

    async def run_job(database: Database) -> job_runs.Outcome:
        jobs = work_by_name(create_jobs(settings, database))
        return await job_runs.run_now(database, name=name, jobs=jobs, actor=COMMAND_LINE)

    run_with_database(settings, run_job)
    console.print(f"The job {name} is done", markup=False, highlight=False)


@audit_cli.command("list")
def list_events(
    *,
    action: Annotated[str | None, typer.Option(help="Such as LOGIN_FAILED.")] = None,
    actor: Annotated[int | None, typer.Option(help="The id of the user who acted.")] = None,
    subject: Annotated[str | None, typer.Option(help="Such as article.")] = None,
    subject_id: Annotated[int | None, typer.Option(help="The id of the subject.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT)] = 20,
) -> None:
    """List recorded actions, newest first."""
    query = AuditQuery.model_validate(
        {
            "action": action,
            "actor": actor,
            "subject": subject,
            "subject_id": subject_id,
            "since": since,
            "until": until,
            "limit": limit,
        }
    )

    async def fetch(database: Database) -> Sequence[AuditEventResponse]:
        found = await operations.list_events(database.reader, query=query, user=COMMAND_LINE)
        return found.items

    for event in run_with_database(prepare_settings(log_level="WARNING"), fetch):
        by = event.actor or (f"user {event.actor_id}" if event.actor_id else "-")
        line = f"{event.occurred_at:%F %T}  {event.action:<20}  {by}  {event.message}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@audit_cli.command("export")
def export_events(since: SinceOption = None, until: UntilOption = None) -> None:
    """Write recorded actions as NDJSON to the standard output, newest first."""
    query = AuditFilter.model_validate({"since": since, "until": until})

    async def write(database: Database) -> None:
        lines = await operations.export_events(database, query=query, user=COMMAND_LINE)
        async for part in lines:
            sys.stdout.write(part.decode())

    run_with_database(prepare_settings(log_level="WARNING"), write)


@sessions_cli.command("list")
def list_sessions(
    user: Annotated[int | None, typer.Option(help="The id of a user; all by default.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT)] = 20,
) -> None:
    """List active sessions, the last opened first."""
    query = SessionQuery(user=user, limit=limit)

    async def fetch(database: Database) -> Sequence[UserSessionResponse]:
        found = await sessions.list_all_sessions(database.reader, query=query, user=COMMAND_LINE)
        return found.items

    found = run_with_database(prepare_settings(log_level="WARNING"), fetch)
    for each in found:
        line = (
            f"{each.id:>8}  {each.username}  {each.kind:<9}  opened {each.created_at:%F %T}"
            f"  used {each.last_used_at:%F %T}  {each.ip or '-'}  {each.user_agent}"
        )
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not found:
        console.print("There is no active session")


@sessions_cli.command("end")
def end_session(
    session_id: Annotated[int, typer.Argument(help="An id of `sessions list`.")],
) -> None:
    """End a session. `pressroom users disable` ends all sessions of a user."""

    async def run(database: Database) -> None:
        async with database.unit_of_work() as session:
            await sessions.end_any_session(session, session_id=session_id, actor=COMMAND_LINE)

    run_with_database(prepare_settings(log_level="WARNING"), run)
    console.print(f"Session {session_id} has ended", highlight=False)


def stats() -> None:
    """Write counts, sizes and growth as JSON."""

    async def fetch(database: Database) -> Statistics:
        return await statistics.get_statistics(database.reader, user=COMMAND_LINE)

    found = run_with_database(prepare_settings(log_level="WARNING"), fetch)
    sys.stdout.write(f"{found.model_dump_json(indent=2)}\n")


@maintenance_cli.command("show")
def show_maintenance() -> None:
    """Show whether the server is in maintenance."""
    work = partial(maintenance.get_maintenance, user=COMMAND_LINE)
    found = run_with_database(prepare_settings(log_level="WARNING"), work)
    if found.since is None:
        console.print("The server is not in maintenance")
        return
    text = f"In maintenance since {found.since:%F %T} UTC: {found.message}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@maintenance_cli.command("begin")
def begin_maintenance(
    message: Annotated[str, typer.Argument(help="The sentence that refused writes get.")],
) -> None:
    """Refuse writes at all replicas, within two seconds. Reading goes on."""
    new = MaintenanceUpdate(message=message)

    async def run(database: Database) -> None:
        async with database.unit_of_work() as session:
            await maintenance.begin(session, new=new, actor=COMMAND_LINE)

    run_with_database(prepare_settings(log_level="WARNING"), run)
    console.print("The server is in maintenance. End it with: pressroom maintenance end")


@maintenance_cli.command("end")
def end_maintenance() -> None:
    """Accept writes again."""

    async def run(database: Database) -> None:
        async with database.unit_of_work() as session:
            await maintenance.end(session, actor=COMMAND_LINE)

    run_with_database(prepare_settings(log_level="WARNING"), run)
    console.print("The server accepts writes")
