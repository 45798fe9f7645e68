"""The codes of a second factor: an authenticator's (TOTP, RFC 6238), and those for when it is lost.

A time-based code names its step, of 30 seconds, so that whoever keeps the last one taken can refuse
it a second time (RFC 6238 §5.2).
"""

import re
import secrets
from base64 import b32encode

import pyotp
from pyotp.exceptions import OTPVerificationError

from app.core import clock

ISSUER = "Pressroom"
WINDOW = 1
"""Steps before and after the current one that are taken too, for clocks that differ."""
RECOVERY_CODES = 10
RECOVERY_CODE_BYTES = 10
"""80 bits: too many to guess, so a plain hash is all that storing them takes."""

_TIME_BASED = re.compile(r"[0-9]{6}")


def new_authenticator_secret() -> str:
    """A random secret of 160 bits, in base32 as authenticators take it."""
    return pyotp.random_base32()


def authenticator_uri(secret: str, *, username: str) -> str:
    """The `otpauth://` address that a QR code for an authenticator spells."""
    return pyotp.TOTP(secret).provisioning_uri(name=username, issuer_name=ISSUER)


def bare(code: str) -> str:
    """A code without what people type for legibility: spaces, dashes, capitals."""
    return re.sub(r"[\s-]", "", code).lower()


def is_time_based(code: str) -> bool:
    """Whether a bare code has the form of an authenticator's."""
    return _TIME_BASED.fullmatch(code) is not None


def step_of(code: str, *, secret: str) -> int | None:
    """The step, of those around now, that a bare code belongs to; None for a wrong one.

    Compared in constant time.
    """
    try:
        return pyotp.TOTP(secret).verify_and_get_timecode(
            code, for_time=clock.now(), valid_window=WINDOW
        )
    except OTPVerificationError:
        return None


def new_recovery_codes() -> list[str]:
    """Ten random codes such as `k3vq-7dpa-xw2m-hn5e`."""
    return [_new_recovery_code() for _ in range(RECOVERY_CODES)]


def _new_recovery_code() -> str:
    letters = b32encode(secrets.token_bytes(RECOVERY_CODE_BYTES)).decode().lower()
    return "-".join(letters[start : start + 4] for start in range(0, len(letters), 4))
