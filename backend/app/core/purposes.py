"""Purposes of account tokens, shared by models, services and mail texts."""

from enum import StrEnum


class Purpose(StrEnum):
    """The only action that an account token allows."""

    REGISTER = "register"
    VERIFY_EMAIL = "verify_email"
    CHANGE_EMAIL = "change_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105 - a purpose, not a password
