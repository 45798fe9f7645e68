"""Second factor challenges: proof of a correct password, valid for five minutes.

A challenge is a JWT with its own type and its own key. It can therefore never pass as an access
token. It contains a fingerprint of the password hash, so a password change invalidates it.
"""

import hashlib
from datetime import timedelta
from typing import NamedTuple

from jose import JWTError, jwt

from app.auth.keys import derived_keys
from app.core import clock
from app.core.errors import InvalidChallenge

LIFETIME = timedelta(minutes=5)
TYPE = "challenge+jwt"
PURPOSE = "second factor challenge"
ALGORITHM = "HS256"


class Challenge(NamedTuple):
    """The user whose password was correct, and a fingerprint of the password hash."""

    user_id: int
    password_fingerprint: str

    def matches(self, hashed_password: str) -> bool:
        """Return whether the password is unchanged since the challenge was issued."""
        return self.password_fingerprint == _fingerprint(hashed_password)


def create_challenge(user_id: int, hashed_password: str) -> str:
    """Return a challenge for a user whose password was correct."""
    claims = {
        "sub": str(user_id),
        "pwd": _fingerprint(hashed_password),
        "exp": clock.now() + LIFETIME,
    }
    key = derived_keys(PURPOSE)[0]
    return jwt.encode(claims, key.hex(), algorithm=ALGORITHM, headers={"typ": TYPE})


def read_challenge(text: str) -> Challenge:
    """Decode a challenge. Raises InvalidChallenge if it is forged or expired."""
    for key in derived_keys(PURPOSE):
        try:
            if jwt.get_unverified_header(text) != {"alg": ALGORITHM, "typ": TYPE}:
                break
            claims = jwt.decode(
                text, key.hex(), algorithms=[ALGORITHM], options={"require_exp": True}
            )
            return Challenge(int(claims["sub"]), str(claims["pwd"]))
        except (JWTError, ArithmeticError, KeyError, ValueError, TypeError, RecursionError):
            continue
    raise InvalidChallenge


def _fingerprint(hashed_password: str) -> str:
    return hashlib.sha256(hashed_password.encode()).hexdigest()[:32]
