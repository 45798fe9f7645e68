"""Commands for accounts: create-admin."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from app.cli.base import console, prepare_settings, run_with_database
from app.core.config import SetupError
from app.core.enums import Role
from app.core.sources import read_secret
from app.db.session import Database
from app.schemas.accounts.user import UserCreate
from app.services.accounts import users


def create_admin(
    email: Annotated[str, typer.Option(prompt=True)],
    username: Annotated[str, typer.Option(prompt=True)],
    password: Annotated[
        str,
        typer.Option(envvar="PRESSROOM_ADMIN_PASSWORD", help="Prompted for if not given."),
    ] = "",
    password_file: Annotated[
        Path | None,
        typer.Option(
            envvar="PRESSROOM_ADMIN_PASSWORD_FILE", help="A file that contains only the password."
        ),
    ] = None,
    name: Annotated[str, typer.Option()] = "Administrator",
) -> None:
    """Create an administrator. The API cannot create the first one."""
    if password_file is not None:
        if password:
            raise SetupError("Pass either a password or a password file, not both")
        try:
            password = read_secret(password_file)
        except ValueError as error:
            raise SetupError(f"The password file {password_file} {error}") from error
    elif not password:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    new = UserCreate(email=email, username=username, name=name, password=SecretStr(password))

    async def create(database: Database) -> int:
        async with database.unit_of_work() as session:
            admin = await users.create_user(session, new=new, role=Role.ADMIN, email_verified=True)
            return admin.id

    user_id = run_with_database(prepare_settings(log_level="WARNING"), create)
    console.print(f"Created administrator {username} (id {user_id})", highlight=False)
