"""Opaque tokens: random texts of which the database holds a SHA-256, and no more.

Refresh tokens, `prt_<session>_<secret><tag>`. The successor of one is computed from it and a key of
ours, so that a token that is sent twice is answered with the same successor although neither is
stored; and the tag says that a token was once ours, so that a used one can be told from a guess.

API keys, `prk_<secret><checksum>`. Prefix and checksum let scanners of source code recognise them.
So they do with the tokens of preview links, `prv_<secret><checksum>`.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from base64 import urlsafe_b64encode
from typing import NamedTuple

from app.auth.keys import derived_keys

SECRET_BYTES = 32
TAG_BYTES = 16
CHECKSUM_LENGTH = 6
API_KEY_PREFIX = "prk_"
PREVIEW_PREFIX = "prv_"
HINT_LENGTH = len(API_KEY_PREFIX) + 4

_BASE_62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE_62_LENGTH = 43
"""Characters that 32 bytes take."""
_REFRESH_TOKEN = re.compile(r"prt_([1-9][0-9]{0,17})_([A-Za-z0-9_-]{43})([A-Za-z0-9_-]{22})")
_CHECKED = re.compile(r"(prk_|prv_)([0-9A-Za-z]{43})([0-9A-Za-z]{6})")


def new_secret() -> str:
    """A random text of 256 bits."""
    return secrets.token_urlsafe(SECRET_BYTES)


def fingerprint(secret: str) -> bytes:
    """What is stored of a secret: it has 256 random bits, so a plain hash is all it takes."""
    return hashlib.sha256(secret.encode()).digest()


class RefreshToken(NamedTuple):
    """A refresh token in its parts."""

    session_id: int
    secret: str
    tag: str

    @classmethod
    def issue(cls, session_id: int, secret: str) -> "RefreshToken":
        """The token of a session, with our tag."""
        return cls(session_id, secret, _tags(session_id, secret)[0])

    @classmethod
    def parse(cls, text: str) -> "RefreshToken | None":
        """The token that `text` spells; None where it spells none."""
        match = _REFRESH_TOKEN.fullmatch(text)
        return match and cls(int(match[1]), match[2], match[3])

    def __str__(self) -> str:
        return f"prt_{self.session_id}_{self.secret}{self.tag}"

    @property
    def is_ours(self) -> bool:
        """Whether one of our keys made it."""
        tags = _tags(self.session_id, self.secret)
        return any(hmac.compare_digest(self.tag, tag) for tag in tags)

    def successors(self) -> tuple[str, ...]:
        """The secret that follows, by each of our keys; the current key's first."""
        return tuple(
            _encode(hmac.digest(key, self.secret.encode(), hashlib.sha256))
            for key in derived_keys("refresh token successor")
        )


def _tags(session_id: int, secret: str) -> list[str]:
    message = f"{session_id} {secret}".encode()
    return [
        _encode(hmac.digest(key, message, hashlib.sha256)[:TAG_BYTES])
        for key in derived_keys("refresh token tag")
    ]


def _encode(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def new_api_key() -> str:
    """A random API key of 256 bits."""
    return _checked(API_KEY_PREFIX)


def is_api_key(text: str) -> bool:
    """Whether `text` has an API key's form and a right checksum; one typed wrong costs no query."""
    return _is_checked(text, API_KEY_PREFIX)


def new_preview_token() -> str:
    """A random token of 256 bits, for a preview link."""
    return _checked(PREVIEW_PREFIX)


def is_preview_token(text: str) -> bool:
    """Whether `text` has the form of a preview link's token, and a right checksum."""
    return _is_checked(text, PREVIEW_PREFIX)


def _checked(prefix: str) -> str:
    secret = _base_62(int.from_bytes(secrets.token_bytes(SECRET_BYTES)), _BASE_62_LENGTH)
    return f"{prefix}{secret}{_checksum(secret)}"


def _is_checked(text: str, prefix: str) -> bool:
    match = _CHECKED.fullmatch(text)
    return match is not None and match[1] == prefix and _checksum(match[2]) == match[3]


def _checksum(secret: str) -> str:
    return _base_62(zlib.crc32(secret.encode()), CHECKSUM_LENGTH)


def _base_62(number: int, length: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = _BASE_62[digit] + digits
    return digits.rjust(length, "0")
