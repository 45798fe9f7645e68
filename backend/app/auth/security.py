"""Password hashes and access tokens.

Passwords: bcrypt over HMAC-SHA-256 (`bcrypt_sha256`), which takes any length; hashing runs in a
small pool of threads at the lowest priority, so that a storm of logins cannot starve reads.
Tokens: JWT access tokens in the profile of RFC 9068, with the algorithm pinned (RFC 8725 §3.1).
"""

import asyncio
import hashlib
import os
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import lru_cache
from typing import Any
from uuid import uuid4

from jose import ExpiredSignatureError, JWTError, jwt
from passlib.context import CryptContext

from app.core import clock
from app.core.config import get_settings
from app.core.errors import InvalidToken, TokenExpired
from app.schemas.auth import AccessToken
from app.schemas.types import MAX_ID

ALGORITHM = "HS256"
TOKEN_TYPE = "at+jwt"  # noqa: S105 - the media type of RFC 9068 §2.1, not a secret
LEEWAY_SECONDS = 10
REQUIRED_CLAIMS = ("iss", "aud", "sub", "iat", "nbf", "exp", "jti")
LOWEST_PRIORITY = 19


@lru_cache(maxsize=1)
def _password_context() -> CryptContext:
    return CryptContext(
        schemes=["bcrypt_sha256", "bcrypt"],
        deprecated=["bcrypt"],
        bcrypt_sha256__rounds=get_settings().bcrypt_cost,
    )


@lru_cache(maxsize=1)
def _hashing_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(
        get_settings().bcrypt_threads, thread_name_prefix="bcrypt", initializer=_lower_priority
    )


def _lower_priority() -> None:
    """Make this thread yield to those that answer requests; on Linux, niceness is per thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)


@lru_cache(maxsize=1)
def _unknown_users_hash() -> str:
    """What a password is compared with where there is no user, so that both take as long."""
    return str(_password_context().hash(uuid4().hex))


def prepare_hashing() -> None:
    """Make the unknown user's hash, in the background: the first who asks shall not wait for it."""
    _hashing_threads().submit(_unknown_users_hash)


async def hash_password(password: str) -> str:
    """The hash to store for `password`, of any length."""
    loop = asyncio.get_running_loop()
    hashed: str = await loop.run_in_executor(_hashing_threads(), _password_context().hash, password)
    return hashed


async def verify_password(password: str, hashed: str | None) -> bool:
    """Whether `password` is the one hashed.

    `hashed` is None where there is no such user: that takes as long, and is never right.
    """

    def verify() -> bool:
        right: bool = _password_context().verify(password, hashed or _unknown_users_hash())
        return right and hashed is not None

    return await asyncio.get_running_loop().run_in_executor(_hashing_threads(), verify)


def is_outdated(hashed: str) -> bool:
    """Whether a hash was made with a lower cost, or by another scheme, than new ones are."""
    outdated: bool = _password_context().needs_update(hashed)
    return outdated


@lru_cache(maxsize=8)
def _key_id(secret: str) -> str:
    """A name for the key that tells nothing about it."""
    return hashlib.sha256(b"pressroom kid:" + secret.encode()).hexdigest()[:16]


def create_access_token(*, user_id: int) -> AccessToken:
    """A token that says `user_id` is asking, for the configured number of minutes."""
    settings = get_settings()
    lifetime = timedelta(minutes=settings.access_token_expire_minutes)
    issued = clock.now()
    claims = {
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        "sub": str(user_id),
        "iat": issued,
        "nbf": issued,
        "exp": issued + lifetime,
        "jti": uuid4().hex,
    }
    header = {"typ": TOKEN_TYPE, "kid": _key_id(settings.secret_key)}
    token = jwt.encode(claims, settings.secret_key, algorithm=ALGORITHM, headers=header)
    return AccessToken(access_token=token, expires_in=int(lifetime.total_seconds()))


def user_id_of(token: str) -> int:
    """The id of the user whom a valid access token names.

    Raises TokenExpired, or InvalidToken for whatever else is wrong with it, without saying what.
    """
    settings = get_settings()
    try:
        header = jwt.get_unverified_header(token)
        if header.get("typ") != TOKEN_TYPE or header.get("kid") != _key_id(settings.secret_key):
            raise InvalidToken
        if "crit" in header:  # RFC 7515 §4.1.11: we understand no extension
            raise InvalidToken
        claims: dict[str, Any] = jwt.decode(
            token,
            settings.secret_key,
            algorithms=[ALGORITHM],
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            options={
                "leeway": LEEWAY_SECONDS,
                **{f"require_{claim}": True for claim in REQUIRED_CLAIMS},
            },
        )
        if re.fullmatch(r"[1-9][0-9]{0,18}", claims["sub"], re.ASCII) is None:
            raise InvalidToken
        user_id, issued = int(claims["sub"]), int(claims["iat"])
    except ExpiredSignatureError as error:
        raise TokenExpired from error
    except (JWTError, ArithmeticError, ValueError, TypeError, RecursionError) as error:
        raise InvalidToken from error
    # python-jose wants `iat` to be there, but not to have been.
    if user_id > MAX_ID or issued > clock.now().timestamp() + LEEWAY_SECONDS:
        raise InvalidToken
    return user_id
