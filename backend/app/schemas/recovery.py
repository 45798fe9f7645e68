"""Forgotten passwords, and proofs of reading an address's mail."""

from pydantic import ConfigDict

from app.schemas.auth import Token
from app.schemas.passwords import NewPassword, Password
from app.schemas.types import Email, Input, Output


class Accepted(Output):
    """What comes next comes by mail; the answer is the same whether there is an account or not."""

    message: str = "If there is something to do for this address, a mail is on its way"


class EmailRequest(Input):
    """The address to send a mail to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"email": "ada@example.com"}]})

    email: Email


class PasswordReset(Input):
    """The token from the mail, and the password to have from now on."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"token": "Zq…", "password": "correct horse battery"}]}
    )

    token: Token
    password: NewPassword


class EmailVerification(Input):
    """The token from the mail, and the account's password where no session of it is sent."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"token": "Zq…", "password": "correct horse battery"}]}
    )

    token: Token
    password: Password | None = None


class RegistrationConfirmation(Input):
    """The token from the mail, and the password that one registered with."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"token": "Zq…", "password": "correct horse battery"}]}
    )

    token: Token
    password: Password


class PasswordChange(Input):
    """The password so far, and the one to have from now on."""

    current_password: Password
    new_password: NewPassword


class EmailChange(Input):
    """The address to have from now on, and the password."""

    email: Email
    password: Password
