"""Accounts that no request can create."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from app.cli.base import console, start, with_database
from app.core.config import SetupError
from app.core.roles import Role
from app.core.sources import read_secret
from app.db.session import Database
from app.schemas.user import UserCreate
from app.services import users


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
            envvar="PRESSROOM_ADMIN_PASSWORD_FILE", help="A file whose only line is the password."
        ),
    ] = None,
    name: Annotated[str, typer.Option()] = "Administrator",
) -> None:
    """Create an administrator; the first one can come from nowhere else."""
    if password_file is not None:
        if password:
            raise SetupError("Give the password or a file with it, not both")
        try:
            password = read_secret(password_file)
        except ValueError as error:
            raise SetupError(f"The password file {password_file} {error}") from error
    elif not password:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    new = UserCreate(email=email, username=username, name=name, password=SecretStr(password))

    async def work(database: Database) -> int:
        async with database.unit_of_work() as session:
            admin = await users.create_user(session, new=new, role=Role.ADMIN, email_verified=True)
            return admin.id

    user_id = with_database(start(log_level="WARNING"), work)
    console.print(f"Created administrator {username} (id {user_id})", highlight=False)
