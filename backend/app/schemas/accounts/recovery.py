"""Password reset, password change and verification of email addresses."""

from pydantic import ConfigDict

from app.schemas.accounts.login import Token
from app.schemas.accounts.passwords import NewPassword, Password
from app.schemas.types import Email, Input, Output


class Accepted(Output):
    """The request was accepted. The response does not reveal whether an account exists."""

    message: str = "If the request applies to this address, a mail will be sent"


class EmailRequest(Input):
    """The address to which a mail is sent."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"email": "ada@example.com"}]})

    email: Email


class PasswordReset(Input):
    """The token from the mail, and the new password."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"token": "Zq…", "password": "correct horse battery"}]}
    )

    token: Token
    password: NewPassword


class PasswordReplacement(Input):
    """The new password that an administrator sets for another user."""

    password: NewPassword


class EmailVerification(Input):
    """The token from the mail. Without a session of the account, also its password."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"token": "Zq…", "password": "correct horse battery"}]}
    )

    token: Token
    password: Password | None = None


class RegistrationConfirmation(Input):
    """The token from the mail, and the password of the registration."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"token": "Zq…", "password": "correct horse battery"}]}
    )

    token: Token
    password: Password


class PasswordChange(Input):
    """The current and the new password."""

    current_password: Password
    new_password: NewPassword


class EmailChange(Input):
    """The new address, and the password."""

    email: Email
    password: Password
