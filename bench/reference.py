"""The reference server: the measured endpoints of Pressroom with raw asyncpg, Starlette and orjson.

It has no validation, request id, logging, security headers, audit events or OpenAPI. It does only
what any Python server must do to return these bytes. run.py starts it with Pressroom's
gunicorn.conf.py, and compares the responses before it measures.
"""

import asyncio
import base64
import hashlib
import hmac
import os
import re
import secrets
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import asyncpg
import bcrypt
import orjson
from fastapi import FastAPI
from jose import JWTError, jwk, jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

TOKEN_SECONDS = int(os.environ["ACCESS_TOKEN_EXPIRE_MINUTES"]) * 60
SECRET_KEY = os.environ["SECRET_KEY"].encode()
SIGNING_KEY = jwk.construct(SECRET_KEY, "HS256")
ISSUER, AUDIENCE = "pressroom", "pressroom-api"
HASHING_THREADS = int(os.environ["BCRYPT_THREADS"])
# Pressroom has a pool for reading and one for writing. This pool has the size of both.
POOL_SIZE = 2 * int(os.environ["DATABASE_POOL_SIZE"])

STATUS = """CASE
  WHEN a.archived_at IS NOT NULL THEN 'archived' WHEN a.published_at IS NULL THEN 'draft'
  WHEN a.published_at > $1 THEN 'scheduled' ELSE 'published' END"""
NAMES = (
    "id", "title", "slug", "content", "excerpt", "cover_image_url", "language", "tags", "status",
    "published_at", "word_count", "reading_time", "comment_policy", "version", "author_id",
    "created_at", "updated_at",
)  # fmt: skip
EXPRESSIONS = {"tags": "a.tag_names", "status": STATUS}
COLUMNS = ", ".join(f"{EXPRESSIONS.get(name, f'a.{name}')} AS {name}" for name in NAMES)
AUTHOR_FIELDS = ("id", "username", "name", "created_at")
AUTHOR = ", ".join(f"u.{name} AS author__{name}" for name in AUTHOR_FIELDS)
FROM = "FROM articles a JOIN users u ON u.id = a.author_id"
PUBLIC = (
    "a.published_at IS NOT NULL AND a.archived_at IS NULL AND a.deleted_at IS NULL"
    " AND a.dated_at <= $1"
)
LIST = (
    f"SELECT {COLUMNS}, {AUTHOR} {FROM} WHERE {PUBLIC}"
    " ORDER BY a.dated_at DESC, a.id DESC LIMIT $2 OFFSET $3"
)
ONE = f"SELECT {COLUMNS}, {AUTHOR}, a.html, a.toc {FROM} WHERE a.id = $2"
ONE_FOR_ALL = f"{ONE} AND {PUBLIC}"
ONE_FOR_USER = f"{ONE} AND a.deleted_at IS NULL AND ({PUBLIC} OR a.author_id = $3)"
USER = "SELECT id, hashed_password FROM users WHERE lower(username) = lower($1) AND is_active"

OPEN_SESSION = """
INSERT INTO user_sessions
       (user_id, token_hash, created_at, last_used_at, expires_at, ip, user_agent)
VALUES ($1, $2, now(), now(), now() + interval '30 days', $3, $4)
RETURNING id
"""
IN_SESSION = """
SELECT u.id FROM users u JOIN user_sessions s ON s.user_id = u.id
WHERE s.id = $1 AND u.id = $2 AND s.revoked_at IS NULL AND s.expires_at > now() AND u.is_active
"""
ROTATE = """
UPDATE user_sessions s SET token_hash = $3, previous_hash = $2, last_used_at = now()
FROM users u
WHERE s.id = $1 AND s.token_hash = $2 AND s.last_used_at > now() - interval '14 days'
  AND s.revoked_at IS NULL AND s.expires_at > now() AND u.id = s.user_id AND u.is_active
RETURNING s.user_id
"""
REPEATED = """
SELECT s.user_id FROM user_sessions s JOIN users u ON u.id = s.user_id
WHERE s.id = $1 AND s.previous_hash = $2 AND s.token_hash = $3
  AND s.last_used_at > now() - interval '10 seconds'
  AND s.revoked_at IS NULL AND s.expires_at > now() AND u.is_active
"""

# passlib's bcrypt_sha256: bcrypt of the base64 of HMAC-SHA-256, keyed with the salt.
PASSWORD_HASH = re.compile(r"\$bcrypt-sha256\$v=2,t=2b,r=(\d+)\$(.{22})\$(.{31})")
REFRESH_TOKEN = re.compile(r"prt_([1-9][0-9]{0,17})_([A-Za-z0-9_-]{43})([A-Za-z0-9_-]{22})")

pool: "asyncpg.Pool[asyncpg.Record]"


async def _skip_reset(connection: Any) -> None:
    """Skip asyncpg's reset, a round trip per request that Pressroom's pool also avoids."""


async def _parse_json(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=orjson.dumps, decoder=orjson.loads
    )


@asynccontextmanager
async def lifespan(app: Starlette | FastAPI) -> AsyncIterator[None]:
    global pool
    async with asyncpg.create_pool(
        os.environ["DATABASE_URL"].replace("+asyncpg", "", 1),
        min_size=POOL_SIZE,
        max_size=POOL_SIZE,
        reset=_skip_reset,
        init=_parse_json,
        server_settings={"application_name": "reference", "timezone": "UTC", "jit": "off"},
    ) as pool:
        yield


def _json(content: Any) -> Response:
    body = orjson.dumps(content, option=orjson.OPT_UTC_Z)
    return Response(body, media_type="application/json")


def _article(row: asyncpg.Record) -> dict[str, Any]:
    article = {name: row[name] for name in NAMES}
    article["published"] = row["status"] == "published"
    article["author"] = {name: row[f"author__{name}"] for name in AUTHOR_FIELDS}
    return article


async def _list(limit: int, skip: int) -> list[dict[str, Any]]:
    # One more row, as in Pressroom, to find out whether there is a next page.
    rows = await pool.fetch(LIST, datetime.now(UTC), limit + 1, skip)
    return [_article(row) for row in rows[:limit]]


async def _one(number: int, user_id: int | None) -> dict[str, Any] | None:
    now = datetime.now(UTC)
    if user_id is None:
        row = await pool.fetchrow(ONE_FOR_ALL, now, number)
    else:
        row = await pool.fetchrow(ONE_FOR_USER, now, number, user_id)
    return {**_article(row), "html": row["html"], "toc": row["toc"]} if row else None


async def list_articles(request: Request) -> Response:
    query = request.query_params
    return _json(await _list(int(query.get("limit", 20)), int(query.get("skip", 0))))


async def read_article(request: Request) -> Response:
    user_id = None
    authorization = request.headers.get("authorization")
    if authorization is not None:
        user_id = await _user_of(authorization.removeprefix("Bearer "))
        if user_id is None:
            return Response(status_code=401)
    article = await _one(int(request.path_params["article_id"]), user_id)
    return Response(status_code=404) if article is None else _json(article)


def _lower_priority() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


threads = ThreadPoolExecutor(HASHING_THREADS, initializer=_lower_priority)


def _is_password(password: str, hashed: str) -> bool:
    match = PASSWORD_HASH.fullmatch(hashed)
    if match is None:
        raise ValueError("the stored hash is not bcrypt_sha256")
    cost, salt, checksum = match.groups()
    key = base64.b64encode(hmac.digest(salt.encode(), password.encode(), "sha256"))
    return bcrypt.checkpw(key, f"$2b${int(cost):02}${salt}{checksum}".encode())


async def login(request: Request) -> Response:
    form = parse_qs((await request.body()).decode())
    user = await pool.fetchrow(USER, form["username"][0])
    if user is None:
        return Response(status_code=401)
    valid = await asyncio.get_running_loop().run_in_executor(
        threads, _is_password, form["password"][0], user["hashed_password"]
    )
    if not valid:
        return Response(status_code=401)
    secret = secrets.token_urlsafe(32)
    ip = ip_address(request.client.host) if request.client else None
    agent = request.headers.get("user-agent", "")
    session_id = await pool.fetchval(OPEN_SESSION, user["id"], _fingerprint(secret), ip, agent)
    return _tokens(user["id"], session_id, secret)


async def refresh(request: Request) -> Response:
    token = REFRESH_TOKEN.fullmatch(orjson.loads(await request.body())["refresh_token"])
    if token is None:
        return Response(status_code=401)
    session_id, successor = int(token[1]), _digest("successor", token[2])
    hashes = _fingerprint(token[2]), _fingerprint(successor)
    user_id = await pool.fetchval(ROTATE, session_id, *hashes)
    if user_id is None:
        user_id = await pool.fetchval(REPEATED, session_id, *hashes)
    return Response(status_code=401) if user_id is None else _tokens(user_id, session_id, successor)


def _fingerprint(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _digest(purpose: str, text: str) -> str:
    digest = hmac.digest(SECRET_KEY, f"{purpose} {text}".encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _tokens(user_id: int, session_id: int, secret: str) -> Response:
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(user_id),
        "sid": str(session_id),
        "iat": now,
        "nbf": now,
        "exp": now + TOKEN_SECONDS,
        "jti": uuid4().hex,
    }
    header = {"typ": "at+jwt", "kid": "reference"}
    tag = _digest("tag", f"{session_id} {secret}")[:22]
    return _json(
        {
            "access_token": jwt.encode(claims, SIGNING_KEY, algorithm="HS256", headers=header),
            "token_type": "bearer",
            "expires_in": TOKEN_SECONDS,
            "refresh_token": f"prt_{session_id}_{secret}{tag}",
        }
    )


async def _user_of(token: str) -> int | None:
    """Return the id of the token's user if the session is active."""
    try:
        claims = jwt.decode(token, SIGNING_KEY, ["HS256"], audience=AUDIENCE, issuer=ISSUER)
    except JWTError:
        return None
    user_id: int | None = await pool.fetchval(IN_SESSION, int(claims["sid"]), int(claims["sub"]))
    return user_id


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/articles", list_articles),
        Route("/articles/{article_id}", read_article),
        Route("/auth/login", login, methods=["POST"]),
        Route("/auth/refresh", refresh, methods=["POST"]),
    ],
)


# --- further reference servers

fast_app = FastAPI(lifespan=lifespan)


@fast_app.get("/articles")
async def list_by_fastapi(limit: int = 20, skip: int = 0) -> Response:
    """Return the list through FastAPI, without a response model."""
    return _json(await _list(limit, skip))


@fast_app.get("/articles/{article_id}")
async def read_by_fastapi(article_id: int) -> Response:
    article = await _one(article_id, None)
    return Response(status_code=404) if article is None else _json(article)


cached: dict[str, bytes] = {}
"""Responses of `memory_app`. Each path is read from the database once."""


async def answer_from_memory(request: Request) -> Response:
    """Return the same bytes without the database."""
    path = f"{request.url.path}?{request.url.query}"
    if path not in cached:
        answer = await (read_article if "article_id" in request.path_params else list_articles)(
            request
        )
        cached[path] = bytes(answer.body)
    return Response(cached[path], media_type="application/json")


memory_app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/articles", answer_from_memory),
        Route("/articles/{article_id}", answer_from_memory),
    ],
)
