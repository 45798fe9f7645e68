"""Accounts that no request can create."""

from typing import Annotated

import typer
from pydantic import SecretStr

from app.cli.base import console, start, with_database
from app.core.roles import Role
from app.db.session import Database
from app.schemas.user import UserCreate
from app.services import users


def create_admin(
    email: Annotated[str, typer.Option(prompt=True)],
    username: Annotated[str, typer.Option(prompt=True)],
    password: Annotated[
        str,
        typer.Option(
            prompt=True,
            hide_input=True,
            confirmation_prompt=True,
            envvar="PRESSROOM_ADMIN_PASSWORD",
        ),
    ],
    name: Annotated[str, typer.Option()] = "Administrator",
) -> None:
    """Create an administrator; the first one can come from nowhere else."""
    new = UserCreate(email=email, username=username, name=name, password=SecretStr(password))

    async def work(database: Database) -> int:
        async with database.unit_of_work() as session:
            admin = await users.create_user(session, new=new, role=Role.ADMIN, vouched_for=True)
            return admin.id

    user_id = with_database(start(log_level="WARNING"), work)
    console.print(f"Created administrator {username} (id {user_id})", highlight=False)
