"""What a link in a mail is for, which models, services and mails all speak of."""

from enum import StrEnum


class Purpose(StrEnum):
    """The one thing that an account token allows."""

    REGISTER = "register"
    VERIFY_EMAIL = "verify_email"
    CHANGE_EMAIL = "change_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105 - a purpose, not a password
