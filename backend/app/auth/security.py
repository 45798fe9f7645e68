"""Password hashes and access tokens.

Passwords: bcrypt over HMAC-SHA-256 (`bcrypt_sha256`), which takes any length; hashing runs in a
small pool of threads at the lowest priority, so that a storm of logins cannot starve reads.
Tokens: JWT access tokens in the profile of RFC 9068.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from jose import JWTError, jwt
from passlib.context import CryptContext

from app.auth.keys import signing_keys
from app.core import clock
from app.core.config import get_settings
from app.core.errors import InvalidToken, TokenExpired
from app.core.threads import FairThreadPool
from app.schemas.types import MAX_ID

TOKEN_TYPE = "at+jwt"  # noqa: S105 - the media type of RFC 9068 §2.1, not a secret
LEEWAY_SECONDS = 10
REQUIRED_CLAIMS = ("iss", "aud", "sub", "jti")
"""Besides those that are read here: TIMES and `sid`."""
TIMES = ("iat", "nbf", "exp")
MAX_KNOWN_TOKENS = 4096
"""How many tokens are remembered to be genuine, a process: a signature costs as much as a query."""
MAX_WAITING = 100
"""Hashes that may wait for a thread, a process: those that came later would wait for too long."""

Result = TypeVar("Result")


@lru_cache(maxsize=1)
def _password_context() -> CryptContext:
    return CryptContext(
        schemes=["bcrypt_sha256", "bcrypt"],
        deprecated=["bcrypt"],
        bcrypt_sha256__rounds=get_settings().bcrypt_cost,
    )


@lru_cache(maxsize=1)
def _hashing_threads() -> FairThreadPool:
    return FairThreadPool(
        "bcrypt",
        size=get_settings().bcrypt_threads,
        what="logins",
        max_jobs=MAX_WAITING,
        low_priority=True,
    )


@lru_cache(maxsize=1)
def _unknown_users_hash() -> str:
    """What a password is compared with where there is no user, so that both take as long."""
    return str(_password_context().hash(uuid4().hex))


def prepare_hashing() -> None:
    """Make the unknown user's hash, in the background: the first who asks shall not wait for it."""
    _hashing_threads().submit(_unknown_users_hash)


async def hash_password(password: str) -> str:
    """The hash to store for `password`, of any length."""
    hashed: str = await _in_hashing_thread(lambda: _password_context().hash(password))
    return hashed


async def verify_password(password: str, hashed: str | None) -> bool:
    """Whether `password` is the one hashed.

    `hashed` is None where there is no such user: that takes as long, and is never right.
    """

    def verify() -> bool:
        right: bool = _password_context().verify(password, hashed or _unknown_users_hash())
        return right and hashed is not None

    return await _in_hashing_thread(verify)


async def _in_hashing_thread(work: Callable[[], Result]) -> Result:
    """Raises ServiceUnavailable where too many wait already."""
    return await _hashing_threads().run(work)


def is_outdated(hashed: str) -> bool:
    """Whether a hash was made with a lower cost, or by another scheme, than new ones are."""
    outdated: bool = _password_context().needs_update(hashed)
    return outdated


class AccessClaims(NamedTuple):
    """Whom an access token names, and in which of their sessions."""

    user_id: int
    session_id: int


def create_access_token(*, user_id: int, session_id: int, seconds: int | None = None) -> str:
    """A token that says `user_id` is asking, for `seconds`; else for `access_token_seconds`."""
    settings, keys = get_settings(), signing_keys()
    issued = clock.now()
    claims = {
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        "sub": str(user_id),
        "sid": str(session_id),
        "iat": issued,
        "nbf": issued,
        "exp": issued + timedelta(seconds=seconds or access_token_seconds()),
        "jti": uuid4().hex,
    }
    header = {"typ": TOKEN_TYPE, "kid": keys.current.id}
    assert keys.current.signs is not None  # noqa: S101 - the current key has its private half
    return jwt.encode(claims, keys.current.signs, algorithm=keys.algorithm, headers=header)


def access_token_seconds() -> int:
    """How long an access token is believed."""
    return get_settings().access_token_expire_minutes * 60


def read_access_token(token: str) -> AccessClaims:
    """Whom a valid access token names.

    The header may have nothing but `alg`, `typ` and `kid`: there is no place to look for a key but
    our own set (RFC 8725 §3.10), and the key says which algorithm is meant (§3.1).

    Raises TokenExpired, or InvalidToken for whatever else is wrong with it, without saying what.
    """
    settings = get_settings()
    believed = tuple(signing_keys().by_id)
    genuine = _genuine(token, believed, settings.jwt_issuer, settings.jwt_audience)
    now = int(clock.now().timestamp())
    if genuine.expires < now - LEEWAY_SECONDS:
        raise TokenExpired
    if max(genuine.issued, genuine.not_before) > now + LEEWAY_SECONDS:
        raise InvalidToken
    return genuine.claims


class _Genuine(NamedTuple):
    """What a token of ours says, whether its time has come or is over; times in seconds."""

    claims: AccessClaims
    issued: int
    not_before: int
    expires: int


@lru_cache(maxsize=MAX_KNOWN_TOKENS)
def _genuine(token: str, believed: tuple[str, ...], issuer: str, audience: str) -> _Genuine:
    """What is found each time that a token is read, by the same keys: `believed` names them."""
    keys = signing_keys()
    if not _is_canonical(token):
        raise InvalidToken
    try:
        header = jwt.get_unverified_header(token)
        if header.keys() != {"alg", "typ", "kid"} or header["typ"] != TOKEN_TYPE:
            raise InvalidToken
        if header["kid"] not in believed:
            raise InvalidToken
        claims: dict[str, Any] = jwt.decode(
            token,
            keys.by_id[header["kid"]].verifies,
            algorithms=[keys.algorithm],
            issuer=issuer,
            audience=audience,
            options={
                **{f"verify_{claim}": False for claim in TIMES},  # by read_access_token
                **{f"require_{claim}": True for claim in REQUIRED_CLAIMS},
            },
        )
        if any(type(claims[name]) not in {int, float} for name in TIMES):
            raise InvalidToken
        return _Genuine(
            AccessClaims(_id(claims["sub"]), _id(claims["sid"])),
            issued=int(claims["iat"]),
            not_before=int(claims["nbf"]),
            expires=int(claims["exp"]),
        )
    except (
        JWTError,
        ArithmeticError,
        KeyError,
        ValueError,
        TypeError,
        RecursionError,
    ) as error:
        raise InvalidToken from error


def _is_canonical(token: str) -> bool:
    """Whether each part is written in the one way there is: no padding, no spare bits (RFC 7515).

    python-jose reads others as well, and a token would have many spellings.
    """
    try:
        parts = token.encode("ascii").split(b".")
        decoded = [urlsafe_b64decode(part + b"=" * (-len(part) % 4)) for part in parts]
    except ValueError:
        return False
    return [urlsafe_b64encode(part).rstrip(b"=") for part in decoded] == parts


def _id(claim: str) -> int:
    if re.fullmatch(r"[1-9][0-9]{0,18}", claim, re.ASCII) is None or int(claim) > MAX_ID:
        raise InvalidToken
    return int(claim)
