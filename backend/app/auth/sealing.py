"""Encryption of database values, such as the secrets of authenticators.

The format is Fernet (AES-128-CBC and HMAC-SHA-256). The keys are derived from SECRET_KEY, one per
purpose. The current key encrypts. It and the keys of SECRET_KEYS_PREVIOUS decrypt.
"""

from base64 import urlsafe_b64encode

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from app.auth.keys import derived_keys

SECOND_FACTOR = "second factor secret"
IDEMPOTENCY = "idempotent answer"
WEBHOOK = "webhook secret"


class UnsealError(Exception):
    """No configured key can decrypt the value, because its SECRET_KEY is no longer configured."""


def seal(secret: str, *, purpose: str = SECOND_FACTOR) -> str:
    """Encrypt a secret. The result is base64url text and differs on each call."""
    return _keys(purpose)[0].encrypt(secret.encode()).decode()


def unseal(sealed: str, *, purpose: str = SECOND_FACTOR) -> str:
    """Decrypt a secret that was encrypted for `purpose`. Raises UnsealError."""
    try:
        return MultiFernet(_keys(purpose)).decrypt(sealed).decode()
    except InvalidToken as error:
        raise UnsealError from error


def needs_reseal(sealed: str, *, purpose: str = SECOND_FACTOR) -> bool:
    """Return whether the value was not encrypted with the current key."""
    try:
        _keys(purpose)[0].decrypt(sealed)
    except InvalidToken:
        return True
    return False


def _keys(purpose: str) -> list[Fernet]:
    return [Fernet(urlsafe_b64encode(key)) for key in derived_keys(purpose)]
