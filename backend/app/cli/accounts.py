"""Commands for accounts: create-admin, and the group users."""

from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import ip_address
from typing import Annotated

import typer

from app.auth.identity import COMMAND_LINE
from app.cli.base import (
    PasswordFileOption,
    PasswordOption,
    console,
    prepare_settings,
    read_password,
    run_with_database,
)
from app.core.conditional import Precondition
from app.core.config import Environment, SetupError, get_settings
from app.core.enums import Role
from app.core.plurals import counted
from app.db.session import Database
from app.schemas.accounts.recovery import PasswordReplacement
from app.schemas.accounts.user import UserCreate, UserPrivate
from app.services.accounts import recovery, second_factor, users

cli = typer.Typer(no_args_is_help=True, help="Manage accounts.")

PAGE_SIZE = 500

Name = Annotated[str, typer.Argument(metavar="USER", help="A username or an email.")]


def create_admin(
    email: Annotated[str, typer.Option(prompt=True)],
    username: Annotated[str, typer.Option(prompt=True)],
    password: PasswordOption = "",
    password_file: PasswordFileOption = None,
    name: Annotated[str, typer.Option()] = "Administrator",
) -> None:
    """Create an administrator. The API cannot create the first one."""
    secret = read_password(password, password_file)
    new = UserCreate(email=email, username=username, name=name, password=secret)

    async def create(database: Database) -> int:
        async with database.unit_of_work() as session:
            admin = await users.create_user(
                session, new=new, role=Role.ADMIN, email_verified=True, actor=COMMAND_LINE
            )
            return admin.id

    user_id = run_with_database(prepare_settings(log_level="WARNING"), create)
    console.print(f"Created administrator {username} (id {user_id})", highlight=False)


@cli.command("list")
def list_users(
    role: Annotated[Role | None, typer.Option(help="Only users with this role.")] = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Only disabled users.")] = False,
) -> None:
    """List users: id, username, email, role and state."""

    async def print_pages(database: Database) -> None:
        after = 0
        while True:
            page = await users.list_accounts(
                database.reader,
                after=after,
                limit=PAGE_SIZE,
                role=role,
                is_active=False if disabled else None,
            )
            for user in page:
                console.print(_describe(user), markup=False, highlight=False, soft_wrap=True)
            if len(page) < PAGE_SIZE:
                return
            after = page[-1].id

    run_with_database(prepare_settings(log_level="WARNING"), print_pages)


def _describe(user: UserPrivate) -> str:
    states = ["active" if user.is_active else "disabled"]
    if user.email_verified_at is None:
        states.append("email not verified")
    return f"{user.id:>8}  {user.username:<24}  {user.role:<6}  {user.email}  ({', '.join(states)})"


@cli.command()
def disable(user: Name) -> None:
    """Disable an account: its sessions end, and its API keys do not work."""
    _change(user, partial(users.disable_user, actor=COMMAND_LINE), "is disabled")


@cli.command()
def enable(user: Name) -> None:
    """Enable a disabled account."""
    _change(user, partial(users.enable_user, actor=COMMAND_LINE), "is enabled")


@cli.command()
def role(user: Name, new_role: Annotated[Role, typer.Argument(metavar="ROLE")]) -> None:
    """Change the role of a user: author, editor or admin."""
    change = partial(
        users.change_role, role=new_role, actor=COMMAND_LINE, precondition=Precondition()
    )
    _change(user, change, f"has the role {new_role}")


@cli.command()
def reset_password(
    user: Name,
    mail: Annotated[bool, typer.Option("--mail", help="Mail a link instead.")] = False,
    password: PasswordOption = "",
    password_file: PasswordFileOption = None,
) -> None:
    """Set a new password, or mail a link to set one. A new password ends all sessions.

    The second factor and API keys stay.
    """
    if mail:
        settings = get_settings()
        if settings.smtp_host is None and settings.environment is Environment.PRODUCTION:
            raise SetupError("SMTP_HOST is not set: no mail is sent")
        change = partial(recovery.mail_password_reset, actor=COMMAND_LINE)
        _change(user, change, "gets a mail with a link")
        return
    new = PasswordReplacement(password=read_password(password, password_file))
    _change(
        user,
        partial(recovery.replace_password, new=new, actor=COMMAND_LINE),
        "has a new password; all sessions have ended",
    )


@cli.command()
def reset_second_factor(user: Name) -> None:
    """Disable the second factor of a user who has lost it. Verify who asks for this."""
    change = partial(second_factor.remove_second_factor, actor=COMMAND_LINE)
    _change(user, change, "has no second factor")


@cli.command()
def reset_login_limits(
    user: Annotated[str | None, typer.Argument(help="A username or an email.")] = None,
    address: Annotated[
        str | None, typer.Option(help="A client address whose limits are reset too.")
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="For all users and addresses.")] = False,
) -> None:
    """Let a user log in again at once after too many wrong passwords or codes."""
    if everyone is (user is not None) or (everyone and address is not None):
        raise SetupError("Pass either a user or --all")
    if user is None:
        delete_limits = partial(recovery.delete_login_limits, actor=COMMAND_LINE)
        count = run_with_database(prepare_settings(log_level="WARNING"), delete_limits)
        console.print(f"Deleted {counted(count, 'login limit')}", highlight=False)
        return
    try:
        client_address = None if address is None else ip_address(address)
    except ValueError as error:
        raise SetupError(f"{address} is not an IP address") from error
    change = partial(recovery.reset_login_limits, address=client_address, actor=COMMAND_LINE)
    _change(user, change, "may log in again")


def _change(name: str, change: Callable[..., Awaitable[object]], result: str) -> None:
    """Call `change` with a session and the id of the user, and print the result."""

    async def run(database: Database) -> None:
        user_id = await users.find_user_id(database.reader, name=name)
        async with database.unit_of_work() as session:
            await change(session, user_id=user_id)

    run_with_database(prepare_settings(log_level="WARNING"), run)
    console.print(f"{name} {result}", markup=False, highlight=False, soft_wrap=True)
