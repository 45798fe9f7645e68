"""Second factor codes: time-based codes (TOTP, RFC 6238) and recovery codes.

Each time-based code belongs to a time step of 30 seconds. The caller stores the last accepted step,
and refuses a code that is sent a second time (RFC 6238 §5.2).
"""

import re
import secrets
from base64 import b32encode

import pyotp
from pyotp.exceptions import OTPVerificationError

from app.core import clock

ISSUER = "Pressroom"
WINDOW = 1
"""Time steps accepted before and after the current one, for clocks that differ."""
RECOVERY_CODES = 10
RECOVERY_CODE_BYTES = 10
"""80 random bits cannot be guessed, so a plain hash is sufficient for storage."""

_TIME_BASED = re.compile(r"[0-9]{6}")


def new_authenticator_secret() -> str:
    """Return a random secret of 160 bits in base32, the encoding that authenticators expect."""
    return pyotp.random_base32()


def authenticator_uri(secret: str, *, username: str) -> str:
    """Return the `otpauth://` URI to show as a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=username, issuer_name=ISSUER)


def normalize_code(code: str) -> str:
    """Return the code in lower case without spaces and dashes."""
    return re.sub(r"[\s-]", "", code).lower()


def is_time_based(code: str) -> bool:
    """Return whether a normalized code has the form of an authenticator code."""
    return _TIME_BASED.fullmatch(code) is not None


def find_time_step(code: str, *, secret: str) -> int | None:
    """Return the time step of a normalized code; None if no step around now has this code.

    Codes are compared in constant time.
    """
    try:
        return pyotp.TOTP(secret).verify_and_get_timecode(
            code, for_time=clock.now(), valid_window=WINDOW
        )
    except OTPVerificationError:
        return None


def new_recovery_codes() -> list[str]:
    """Return ten random codes such as `k3vq-7dpa-xw2m-hn5e`."""
    return [_new_recovery_code() for _ in range(RECOVERY_CODES)]


def _new_recovery_code() -> str:
    letters = b32encode(secrets.token_bytes(RECOVERY_CODE_BYTES)).decode().lower()
    return "-".join(letters[start : start + 4] for start in range(0, len(letters), 4))
