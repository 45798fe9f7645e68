"""Password hashes and access tokens.

Passwords: bcrypt over HMAC-SHA-256 (`bcrypt_sha256`), which accepts any length. Hashing runs in a
small thread pool with a lower priority, so that many logins cannot starve reads.
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
from passlib.hash import bcrypt, bcrypt_sha256

from app.auth.keys import signing_keys
from app.core import clock
from app.core.config import get_settings
from app.core.errors import InvalidToken, TokenExpired
from app.core.threads import FairThreadPool
from app.schemas.types import MAX_ID

TOKEN_TYPE = "at+jwt"  # noqa: S105 - the media type of RFC 9068 §2.1, not a secret
LEEWAY_SECONDS = 10
REQUIRED_CLAIMS = ("iss", "aud", "sub", "jti")
"""Claims that python-jose requires. TIME_CLAIMS and `sid` are required by this module."""
TIME_CLAIMS = ("iat", "nbf", "exp")
TOKEN_CACHE_SIZE = 4096
"""Verified tokens cached per process. Verifying a signature costs as much as a query."""
HASHING_NICENESS = 10
"""Beside saturating reads, hashes get about a tenth of a processor each. See decision 0004."""
MAX_QUEUED_HASHES = 100
"""Hashes that may wait for a thread per process. Later ones would wait too long."""

Result = TypeVar("Result")


@lru_cache(maxsize=1)
def _password_context() -> CryptContext:
    return CryptContext(
        schemes=[bcrypt_sha256, bcrypt],
        deprecated=[bcrypt.name],
        bcrypt_sha256__rounds=get_settings().bcrypt_cost,
    )


@lru_cache(maxsize=1)
def _hashing_threads() -> FairThreadPool:
    return FairThreadPool(
        "hashing",
        size=get_settings().bcrypt_threads,
        what="logins",
        max_jobs=MAX_QUEUED_HASHES,
        niceness=HASHING_NICENESS,
    )


@lru_cache(maxsize=1)
def _dummy_hash() -> str:
    """Return the hash to compare with if the user does not exist, for equal response times."""
    return str(_password_context().hash(uuid4().hex))


def prepare_hashing() -> None:
    """Compute the dummy hash in the background, so that the first login does not wait for it."""
    _hashing_threads().submit(_dummy_hash)


async def hash_password(password: str) -> str:
    """Return the hash to store for a password of any length."""
    hashed: str = await _run_in_hashing_thread(lambda: _password_context().hash(password))
    return hashed


async def verify_password(password: str, hashed: str | None) -> bool:
    """Return whether `password` matches the hash.

    `hashed` is None if the user does not exist. That takes as long, and the result is False.
    """

    def verify() -> bool:
        correct: bool = _password_context().verify(password, hashed or _dummy_hash())
        return correct and hashed is not None

    return await _run_in_hashing_thread(verify)


async def _run_in_hashing_thread(work: Callable[[], Result]) -> Result:
    """Run `work` in the thread pool. Raises ServiceUnavailable if its queue is full."""
    return await _hashing_threads().run(work)


def is_outdated(hashed: str) -> bool:
    """Return whether a hash uses another scheme or a lower cost than new hashes."""
    outdated: bool = _password_context().needs_update(hashed)
    return outdated


class AccessClaims(NamedTuple):
    """The user and the session of an access token."""

    user_id: int
    session_id: int


def create_access_token(*, user_id: int, session_id: int, seconds: int | None = None) -> str:
    """Return an access token that is valid for `seconds`, or for `access_token_seconds`."""
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
    assert keys.current.signer is not None  # noqa: S101 - the current key has its private half
    return jwt.encode(claims, keys.current.signer, algorithm=keys.algorithm, headers=header)


def access_token_seconds() -> int:
    """Return the default lifetime of an access token in seconds."""
    return get_settings().access_token_expire_minutes * 60


def read_access_token(token: str) -> AccessClaims:
    """Return the user and the session of a valid access token.

    The header must contain exactly `alg`, `typ` and `kid`. Keys come only from the configured set
    (RFC 8725 §3.10), and the key determines the algorithm (§3.1).

    Raises TokenExpired, or InvalidToken without a reason for any other error.
    """
    settings = get_settings()
    key_ids = tuple(signing_keys().by_id)
    verified = _verify_token(token, key_ids, settings.jwt_issuer, settings.jwt_audience)
    now = int(clock.now().timestamp())
    if verified.expires < now - LEEWAY_SECONDS:
        raise TokenExpired
    if max(verified.issued, verified.not_before) > now + LEEWAY_SECONDS:
        raise InvalidToken
    return verified.claims


def access_token_end(token: str) -> int:
    """Return the Unix time at which an access token expires. Raises InvalidToken."""
    settings = get_settings()
    key_ids = tuple(signing_keys().by_id)
    return _verify_token(token, key_ids, settings.jwt_issuer, settings.jwt_audience).expires


class _VerifiedToken(NamedTuple):
    """Claims of a token with a valid signature. Times are Unix seconds and not yet checked."""

    claims: AccessClaims
    issued: int
    not_before: int
    expires: int


@lru_cache(maxsize=TOKEN_CACHE_SIZE)
def _verify_token(
    token: str, key_ids: tuple[str, ...], issuer: str, audience: str
) -> _VerifiedToken:
    """Verify the parts of a token that do not depend on the current time; results are cached.

    `key_ids` names the accepted keys, so that the cache does not outlive a change of keys.
    """
    keys = signing_keys()
    if not _is_canonical(token):
        raise InvalidToken
    try:
        header = jwt.get_unverified_header(token)
        if header.keys() != {"alg", "typ", "kid"} or header["typ"] != TOKEN_TYPE:
            raise InvalidToken
        if header["kid"] not in key_ids:
            raise InvalidToken
        claims: dict[str, Any] = jwt.decode(
            token,
            keys.by_id[header["kid"]].verifier,
            algorithms=[keys.algorithm],
            issuer=issuer,
            audience=audience,
            options={
                **{f"verify_{claim}": False for claim in TIME_CLAIMS},  # by read_access_token
                **{f"require_{claim}": True for claim in REQUIRED_CLAIMS},
            },
        )
        if any(type(claims[name]) not in {int, float} for name in TIME_CLAIMS):
            raise InvalidToken
        return _VerifiedToken(
            AccessClaims(_parse_id(claims["sub"]), _parse_id(claims["sid"])),
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
    """Return whether each part is canonical base64url: no padding, no unused bits (RFC 7515).

    python-jose also accepts other encodings, so that a token would have several spellings.
    """
    try:
        parts = token.encode("ascii").split(b".")
        decoded = [urlsafe_b64decode(part + b"=" * (-len(part) % 4)) for part in parts]
    except ValueError:
        return False
    return [urlsafe_b64encode(part).rstrip(b"=") for part in decoded] == parts


def _parse_id(claim: str) -> int:
    if re.fullmatch(r"[1-9][0-9]{0,18}", claim, re.ASCII) is None or int(claim) > MAX_ID:
        raise InvalidToken
    return int(claim)
