"""Commands for signing and encryption keys: keys rotate, keys reseal."""

from pathlib import Path
from typing import Annotated

import typer

from app.auth import rotation
from app.cli.base import console, prepare_settings, run_with_database
from app.core.config import (
    EXAMPLE_SECRETS,
    PROJECT_DIR,
    Algorithm,
    environment_overrides,
    get_settings,
)
from app.core.plurals import counted
from app.db.session import Database
from app.services.accounts import second_factor
from app.services.integrations import webhooks

cli = typer.Typer(no_args_is_help=True, help="Manage signing and encryption keys.")


@cli.command()
def rotate(
    algorithm: Annotated[
        Algorithm | None, typer.Option(help="The new signature algorithm; unchanged by default.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(help="The folder of a new key pair; the current one by default.")
    ] = None,
    secret: Annotated[
        bool, typer.Option("--secret", help="Create a new SECRET_KEY although a key pair signs.")
    ] = False,
) -> None:
    """Create a new key, keep accepting the previous one, and print the settings to deploy.

    Only tokens of JWT_ALGORITHM are accepted. After a change of the algorithm, clients must refresh
    their tokens immediately.
    """
    settings = get_settings()
    algorithm = algorithm or settings.jwt_algorithm
    keeps_algorithm = algorithm is settings.jwt_algorithm
    if secret or algorithm is Algorithm.HS256:
        values = rotation.new_secret_settings(settings)
        if not secret and not keeps_algorithm:
            values["JWT_ALGORITHM"] = Algorithm.HS256.value
    else:
        current = settings.jwt_private_key_file
        folder = directory or PROJECT_DIR / (current.parent if current else "keys")
        values = rotation.new_key_pair_settings(settings, algorithm=algorithm, directory=folder)
    lines = [f"{name}={value}" for name, value in values.items()]
    file = PROJECT_DIR / ".env"
    overriding = environment_overrides(values)
    if file.exists():
        rotation.write_settings(file, values)
        lines = [f"Written to .env: {', '.join(values)}"]
        if overriding:
            names = ", ".join(overriding)
            lines += ["", f"The environment sets {names}: change it there, it overrides .env."]
    else:
        lines = ["Set these values for every replica:", "", *lines]
        lines += [
            f"\n{variable.removesuffix('_FILE')} is read from a file ({variable}): write it there."
            for variable in overriding
            if variable not in values
        ]
    minutes = settings.access_token_expire_minutes
    if settings.conduit_api:
        minutes = max(minutes, settings.conduit_token_expire_minutes)
    if settings.secret_key in EXAMPLE_SECRETS:
        lines += ["", "The example secret is no longer accepted: its tokens and data are invalid."]
    if "JWT_PRIVATE_KEY_FILE" in values:
        lines += ["", "Containers read the file as user 10001: run `chown 10001` on it."]
    lines += [
        "",
        "1. Restart all replicas with these settings. A replica with the previous settings rejects",
        "   new tokens; clients then refresh them.",
        f"2. Tokens of the previous key stay valid for {counted(minutes, 'minute')}."
        if keeps_algorithm
        else "2. Tokens of the previous algorithm are rejected from then on; clients refresh them.",
        "   Encrypt data of an older SECRET_KEY again: `pressroom keys reseal`.",
        "3. Then remove the previous key from the settings; its tokens are rejected from then on.",
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


@cli.command()
def reseal() -> None:
    """Encrypt second factors and secrets of webhooks with the current SECRET_KEY.

    An older one can then be removed.
    """

    async def reseal_all(database: Database) -> tuple[int, int]:
        async with database.unit_of_work() as session:
            return await second_factor.reseal_all(session), await webhooks.reseal_all(session)

    factors, hooks = run_with_database(prepare_settings(log_level="WARNING"), reseal_all)
    console.print(f"Resealed {counted(factors, 'second factor')}", highlight=False)
    console.print(f"Resealed {counted(hooks, 'webhook')}", highlight=False)
