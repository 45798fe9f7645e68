"""The keys that sign and seal."""

from pathlib import Path
from typing import Annotated

import typer

from app.auth import rotation
from app.cli.base import console, start, with_database
from app.core.config import (
    EXAMPLE_SECRETS,
    PROJECT_DIR,
    Algorithm,
    get_settings,
    set_outside_of_dotenv,
)
from app.db.session import Database
from app.services import second_factor

cli = typer.Typer(no_args_is_help=True, help="The keys that sign and seal.")


@cli.command()
def rotate(
    algorithm: Annotated[
        Algorithm | None, typer.Option(help="How to sign from now on; as before where not given.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Where a new pair of keys goes; beside the one before.")
    ] = None,
    secret: Annotated[
        bool, typer.Option("--secret", help="Make a new SECRET_KEY, where a pair of keys signs.")
    ] = False,
) -> None:
    """Make a new key, go on believing the one before, and say what to deploy.

    Tokens of another algorithm than JWT_ALGORITHM are not believed: where that changes, clients
    refresh at once.
    """
    settings = get_settings()
    algorithm = algorithm or settings.jwt_algorithm
    same = algorithm is settings.jwt_algorithm
    if secret or algorithm is Algorithm.HS256:
        values = rotation.new_secret_settings(settings)
        if not secret and not same:
            values["JWT_ALGORITHM"] = Algorithm.HS256.value
    else:
        before = settings.jwt_private_key_file
        folder = directory or PROJECT_DIR / (before.parent if before else "keys")
        values = rotation.new_key_pair_settings(settings, algorithm=algorithm, directory=folder)
    lines = [f"{name}={value}" for name, value in values.items()]
    file = PROJECT_DIR / ".env"
    if file.exists():
        rotation.write_settings(file, values)
        lines = [f"Written to .env: {', '.join(values)}"]
    else:
        lines = ["Set these, for every replica:", "", *lines]
    if elsewhere := set_outside_of_dotenv(values):
        lines += [
            "",
            f"The environment sets {', '.join(elsewhere)}: change that, it overrules .env.",
        ]
    minutes = settings.access_token_expire_minutes
    if settings.secret_key in EXAMPLE_SECRETS:
        lines += ["", "The example secret is not believed any more, with all it signed and sealed."]
    if "JWT_PRIVATE_KEY_FILE" in values:
        lines += ["", "Containers read the file as user 10001: `chown 10001` it."]
    lines += [
        "",
        "1. Restart all replicas with these settings. One that still has those before refuses new",
        "   tokens; clients then refresh.",
        f"2. Tokens of the key before live {minutes} minutes more."
        if same
        else "2. Tokens of the algorithm before are refused from then on; clients refresh.",
        "   What is sealed with an older SECRET_KEY: `pressroom keys reseal`.",
        "3. Then take the key before out of the settings; what it signed is refused from there on.",
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


@cli.command()
def reseal() -> None:
    """Encrypt second factors anew with the current SECRET_KEY, before an older one goes."""

    async def work(database: Database) -> int:
        async with database.unit_of_work() as session:
            return await second_factor.reseal_all(session)

    count = with_database(start(log_level="WARNING"), work)
    console.print(f"Resealed {count} second factors", highlight=False)
