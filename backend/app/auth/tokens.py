"""Opaque tokens: random strings. The database stores only their SHA-256.

Refresh tokens: `prt_<session>_<secret><tag>`. The successor is computed from the token and a
derived key. A token that is sent twice therefore gets the same successor, although neither is
stored. The tag proves that Pressroom issued the token, which distinguishes a used token from a
guess.

API keys: `prk_<secret><checksum>`. Preview link tokens: `prv_<secret><checksum>`. Prefix and
checksum let secret scanners recognize them.

Page session cookies: `pps_<session>_<secret>`. They are hashed with a prefix, so that the secret of
a page session is no refresh token, and the secret of a refresh token no page session.
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
"""Length of 32 bytes in base 62."""
_REFRESH_TOKEN = re.compile(r"prt_([1-9][0-9]{0,17})_([A-Za-z0-9_-]{43})([A-Za-z0-9_-]{22})")
_PAGE_TOKEN = re.compile(r"pps_([1-9][0-9]{0,17})_([A-Za-z0-9_-]{43})")
_CHECKSUMMED = re.compile(r"(prk_|prv_)([0-9A-Za-z]{43})([0-9A-Za-z]{6})")


def new_secret() -> str:
    """Return a random string of 256 bits."""
    return secrets.token_urlsafe(SECRET_BYTES)


def fingerprint(secret: str) -> bytes:
    """Return the SHA-256 to store. A plain hash is sufficient for 256 random bits."""
    return hashlib.sha256(secret.encode()).digest()


class RefreshToken(NamedTuple):
    """The parts of a refresh token."""

    session_id: int
    secret: str
    tag: str

    @classmethod
    def issue(cls, session_id: int, secret: str) -> "RefreshToken":
        """Return the token of a session, with its tag."""
        return cls(session_id, secret, _tags(session_id, secret)[0])

    @classmethod
    def parse(cls, text: str) -> "RefreshToken | None":
        """Parse a refresh token; return None if the format is invalid."""
        match = _REFRESH_TOKEN.fullmatch(text)
        return match and cls(int(match[1]), match[2], match[3])

    def __str__(self) -> str:
        return f"prt_{self.session_id}_{self.secret}{self.tag}"

    @property
    def has_valid_tag(self) -> bool:
        """Whether the tag was computed with one of the configured keys."""
        tags = _tags(self.session_id, self.secret)
        return any(hmac.compare_digest(self.tag, tag) for tag in tags)

    def successors(self) -> tuple[str, ...]:
        """Return the successor secret for each configured key, the current key first."""
        return tuple(
            _encode(hmac.digest(key, self.secret.encode(), hashlib.sha256))
            for key in derived_keys("refresh token successor")
        )


class PageToken(NamedTuple):
    """The value of a page session's cookie."""

    session_id: int
    secret: str

    @classmethod
    def parse(cls, text: str) -> "PageToken | None":
        """Parse the value of a cookie; return None if the format is invalid."""
        match = _PAGE_TOKEN.fullmatch(text)
        return match and cls(int(match[1]), match[2])

    def __str__(self) -> str:
        return f"pps_{self.session_id}_{self.secret}"


def page_fingerprint(secret: str) -> bytes:
    """Return the hash to store of a page session's secret."""
    return fingerprint(f"page session {secret}")


def _tags(session_id: int, secret: str) -> list[str]:
    message = f"{session_id} {secret}".encode()
    return [
        _encode(hmac.digest(key, message, hashlib.sha256)[:TAG_BYTES])
        for key in derived_keys("refresh token tag")
    ]


def _encode(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def new_api_key() -> str:
    """Return a random API key of 256 bits."""
    return _new_checksummed(API_KEY_PREFIX)


def is_api_key(text: str) -> bool:
    """Return whether `text` is a well-formed API key, so that a typing error costs no query."""
    return _has_valid_checksum(text, API_KEY_PREFIX)


def new_preview_token() -> str:
    """Return a random preview link token of 256 bits."""
    return _new_checksummed(PREVIEW_PREFIX)


def is_preview_token(text: str) -> bool:
    """Return whether `text` is a well-formed preview link token."""
    return _has_valid_checksum(text, PREVIEW_PREFIX)


def _new_checksummed(prefix: str) -> str:
    secret = _base_62(int.from_bytes(secrets.token_bytes(SECRET_BYTES)), _BASE_62_LENGTH)
    return f"{prefix}{secret}{_checksum(secret)}"


def _has_valid_checksum(text: str, prefix: str) -> bool:
    match = _CHECKSUMMED.fullmatch(text)
    return match is not None and match[1] == prefix and _checksum(match[2]) == match[3]


def _checksum(secret: str) -> str:
    return _base_62(zlib.crc32(secret.encode()), CHECKSUM_LENGTH)


def _base_62(number: int, length: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = _BASE_62[digit] + digits
    return digits.rjust(length, "0")
