"""Sealing: what the database keeps but must not be able to read, such as authenticators' secrets.

Fernet (AES-128-CBC and HMAC-SHA-256) under keys derived from SECRET_KEY, others for each purpose:
the current one seals, it and those of SECRET_KEYS_PREVIOUS unseal.
"""

from base64 import urlsafe_b64encode

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from app.auth.keys import derived_keys

SECOND_FACTOR = "second factor secret"
IDEMPOTENCY = "idempotent answer"


class UnsealError(Exception):
    """None of our keys sealed this: SECRET_KEY was changed, and the old one forgotten."""


def seal(secret: str, *, purpose: str = SECOND_FACTOR) -> str:
    """The secret as it is stored: base64url text, different each time."""
    return _keys(purpose)[0].encrypt(secret.encode()).decode()


def unseal(sealed: str, *, purpose: str = SECOND_FACTOR) -> str:
    """The secret that was sealed for `purpose`. Raises UnsealError."""
    try:
        return MultiFernet(_keys(purpose)).decrypt(sealed).decode()
    except InvalidToken as error:
        raise UnsealError from error


def needs_reseal(sealed: str, *, purpose: str = SECOND_FACTOR) -> bool:
    """Whether another than the current key sealed this."""
    try:
        _keys(purpose)[0].decrypt(sealed)
    except InvalidToken:
        return True
    return False


def _keys(purpose: str) -> list[Fernet]:
    return [Fernet(urlsafe_b64encode(key)) for key in derived_keys(purpose)]
