"""The command doctor: check an installation, and say what to do."""

import asyncio
from collections.abc import Sequence

import typer

from app import diagnosis
from app.cli.base import console
from app.core.config import SettingsError, get_settings
from app.core.logging import configure_logging
from app.core.plurals import counted
from app.db.embedded import ensure_database_url
from app.db.session import Database
from app.diagnosis import Finding, Level

STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}


def doctor() -> None:
    """Check settings, database, URLs, certificates, mail, storage and disk; say what to do.

    It changes nothing, except for a file that it stores and deletes. The exit status is 1 if there
    is a problem.
    """
    try:
        settings = get_settings()
    except SettingsError as error:
        advice = "correct .env or the environment"
        _report([Finding(Level.PROBLEM, "settings", str(error), advice)])
        return
    configure_logging(settings.model_copy(update={"log_level": "CRITICAL"}))
    resolved = ensure_database_url(settings)

    async def examine() -> Sequence[Finding]:
        database = Database.from_settings(resolved)
        try:
            return await diagnosis.examine(settings, database)
        finally:
            await database.dispose()

    _report(asyncio.run(examine()))


def _report(findings: Sequence[Finding]) -> None:
    """Print the findings. Raises typer.Exit if there is a problem."""
    for level, subject, text, advice in findings:
        console.print(f"{level:<8}", style=STYLES[level], end="")
        console.print(f" {subject:<13} {text}", markup=False, highlight=False, soft_wrap=True)
        if advice:
            console.print(f"{'':<22} → {advice}", markup=False, highlight=False, soft_wrap=True)
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    summary = f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}"
    console.print(summary, highlight=False)
    if problems:
        raise typer.Exit(1)
