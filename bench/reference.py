"""The bare reference: the answers of Pressroom that are measured, with nothing around them.

Raw asyncpg, Starlette and orjson. No validation, no request id, no log line, no security headers,
no audit row, no OpenAPI: what remains is what any Python server must do to give these bytes.
run.py starts it with Pressroom's own gunicorn.conf.py, and compares the answers before it measures.
"""

import asyncio
import base64
import hmac
import os
import re
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import asyncpg
import bcrypt
import orjson
from jose import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

TOKEN_SECONDS = 30 * 60
SECRET_KEY = os.environ["SECRET_KEY"]
HASHING_THREADS = int(os.environ["BCRYPT_THREADS"])
# Pressroom has a pool for reading and one for writing; here one of both sizes does both.
POOL_SIZE = 2 * int(os.environ["DATABASE_POOL_SIZE"])

ARTICLES = """
SELECT a.id, a.title, a.content, a.published, a.author_id, a.created_at, a.updated_at,
       u.id, u.username, u.name, u.created_at
FROM articles a JOIN users u ON u.id = a.author_id
WHERE a.published
"""
LIST = f"{ARTICLES} ORDER BY a.created_at DESC, a.id DESC LIMIT $1 OFFSET $2"
ONE = f"{ARTICLES} AND a.id = $1"
USER = "SELECT id, hashed_password FROM users WHERE lower(username) = lower($1) AND is_active"

# passlib's bcrypt_sha256: bcrypt of the base64 of HMAC-SHA-256, keyed with the salt.
PASSWORD_HASH = re.compile(r"\$bcrypt-sha256\$v=2,t=2b,r=(\d+)\$(.{22})\$(.{31})")

pool: "asyncpg.Pool[asyncpg.Record]"


async def _leave_as_it_is(connection: Any) -> None:
    """Instead of asyncpg's reset, a round trip per request that Pressroom's pool does not make."""


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    global pool
    async with asyncpg.create_pool(
        os.environ["DATABASE_URL"].replace("+asyncpg", "", 1),
        min_size=POOL_SIZE,
        max_size=POOL_SIZE,
        reset=_leave_as_it_is,
        server_settings={"application_name": "reference", "timezone": "UTC", "jit": "off"},
    ) as pool:
        yield


def _json(content: Any) -> Response:
    body = orjson.dumps(content, option=orjson.OPT_UTC_Z)
    return Response(body, media_type="application/json")


def _article(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "id": row[0],
        "title": row[1],
        "content": row[2],
        "published": row[3],
        "author_id": row[4],
        "created_at": row[5],
        "updated_at": row[6],
        "author": {"id": row[7], "username": row[8], "name": row[9], "created_at": row[10]},
    }


async def list_articles(request: Request) -> Response:
    query = request.query_params
    rows = await pool.fetch(LIST, int(query.get("limit", 20)), int(query.get("skip", 0)))
    return _json([_article(row) for row in rows])


async def read_article(request: Request) -> Response:
    row = await pool.fetchrow(ONE, int(request.path_params["article_id"]))
    return Response(status_code=404) if row is None else _json(_article(row))


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
    now = int(time.time())
    claims = {
        "iss": "pressroom",
        "aud": "pressroom-api",
        "sub": str(user["id"]),
        "iat": now,
        "nbf": now,
        "exp": now + TOKEN_SECONDS,
        "jti": uuid4().hex,
    }
    headers = {"typ": "at+jwt", "kid": "reference"}
    token = jwt.encode(claims, SECRET_KEY, algorithm="HS256", headers=headers)
    return _json({"access_token": token, "token_type": "bearer", "expires_in": TOKEN_SECONDS})


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/articles", list_articles),
        Route("/articles/{article_id}", read_article),
        Route("/auth/login", login, methods=["POST"]),
    ],
)
