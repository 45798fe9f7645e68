"""Challenges: what the right password gets where a second factor is wanted too.

A JWT of its own type, signed with a key of its own: it can never pass for an access token. It is
bound to the password hash, so that a password that was changed meanwhile makes it worthless.
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
    """Whose password was right, and a fingerprint of its hash."""

    user_id: int
    password: str

    def fits(self, hashed_password: str) -> bool:
        """Whether the password is still the one that was right."""
        return self.password == _fingerprint(hashed_password)


def create_challenge(user_id: int, hashed_password: str) -> str:
    """A challenge for a user whose password was right."""
    claims = {
        "sub": str(user_id),
        "pwd": _fingerprint(hashed_password),
        "exp": clock.now() + LIFETIME,
    }
    key = derived_keys(PURPOSE)[0]
    return jwt.encode(claims, key.hex(), algorithm=ALGORITHM, headers={"typ": TYPE})


def read_challenge(text: str) -> Challenge:
    """Raises InvalidChallenge for one that is forged or expired."""
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
