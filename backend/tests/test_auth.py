"""Logging in, and which tokens are believed."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from jose import jwt
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import security
from app.core import clock
from app.core.config import get_settings
from app.models import AuditEvent, User
from tests.factories import PASSWORD, bearer, create_user

Form = dict[str, str]


class TestLogin:
    @pytest.mark.parametrize("name", ["ada", "ADA", "ada@example.com", "Ada@Example.com"])
    async def test_takes_a_username_or_an_email(
        self, client: httpx.AsyncClient, session: AsyncSession, name: str
    ) -> None:
        user = await create_user(session, username="ada", email="ada@example.com")
        response = await client.post("/auth/login", data={"username": name, "password": PASSWORD})
        assert response.status_code == 200
        assert set(response.json()) == {"access_token", "token_type", "expires_in"}
        assert response.json()["expires_in"] == 30 * 60
        assert response.headers["Cache-Control"] == "no-store"
        headers = {"Authorization": f"Bearer {response.json()['access_token']}"}
        assert (await client.get("/auth/me", headers=headers)).json()["id"] == user.id

    async def test_takes_raw_utf_8(self, client: httpx.AsyncClient, session: AsyncSession) -> None:
        await create_user(session, username="ada", password="größere Größe")
        response = await client.post(
            "/auth/login",
            content="username=ada&password=größere Größe".encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert response.status_code == 200

    async def test_takes_an_international_email_in_either_form(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        await create_user(session, email="ada@exämple.com")
        for name in ("ada@exämple.com", "ada@xn--exmple-cua.com"):
            form = {"username": name, "password": PASSWORD}
            assert (await client.post("/auth/login", data=form)).status_code == 200

    async def test_takes_the_whole_oauth2_form(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        await create_user(session, username="ada")
        form = {
            "grant_type": "password",
            "username": "ada",
            "password": PASSWORD,
            "scope": "",
            "client_id": "app",
            "client_secret": "x",
        }
        assert (await client.post("/auth/login", data=form)).status_code == 200

    async def test_unknown_wrong_and_disabled_look_alike(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        await create_user(session, username="ada")
        await create_user(session, username="gone", is_active=False)
        answers = []
        for username, password in (
            ("nobody", PASSWORD),
            ("nobody@example.com", PASSWORD),
            ("ada", "wrong password"),
            ("gone", PASSWORD),
        ):
            form = {"username": username, "password": password}
            response = await client.post("/auth/login", data=form)
            body = {**response.json(), "request_id": None}
            headers = {
                name: value
                for name, value in response.headers.items()
                if name not in {"x-request-id", "x-process-time"}
            }
            answers.append((response.status_code, body, headers))
        assert all(answer == answers[0] for answer in answers)
        status, body, headers = answers[0]
        assert status == 401
        assert body["message"] == "Incorrect username or password"
        assert headers["www-authenticate"] == "Bearer"

    async def test_an_unknown_user_costs_a_hash_too(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compared: list[str] = []
        verify = security._password_context().verify
        context = type(security._password_context())

        def note(self: object, secret: str, hashed: str, **options: Any) -> Any:
            compared.append(hashed)
            return verify(secret, hashed, **options)

        monkeypatch.setattr(context, "verify", note)
        await client.post("/auth/login", data={"username": "nobody", "password": PASSWORD})
        assert [hashed.split("$")[1] for hashed in compared] == ["bcrypt-sha256"]

    async def test_success_and_failure_are_audited(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session, username="ada")
        await client.post("/auth/login", data={"username": "ada", "password": PASSWORD})
        await client.post("/auth/login", data={"username": "ada", "password": "wrong one"})
        await client.post("/auth/login", data={"username": "nobody", "password": "wrong one"})
        events = (await session.scalars(select(AuditEvent).order_by(AuditEvent.id))).all()
        assert [(e.action, e.actor_id, e.subject_id) for e in events] == [
            ("LOGIN", user.id, user.id),
            ("LOGIN_FAILED", None, user.id),
            ("LOGIN_FAILED", None, None),
        ]
        assert "nobody" not in events[-1].message  # it may be a password in the wrong field

    async def test_rehashes_when_the_cost_was_raised(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        user = await create_user(session, username="ada")
        stronger = security._password_context().copy(bcrypt_sha256__rounds=5)
        monkeypatch.setattr(security, "_password_context", lambda: stronger)
        form = {"username": "ada", "password": PASSWORD}
        assert (await client.post("/auth/login", data=form)).status_code == 200
        changed_at = user.updated_at
        await session.refresh(user)
        assert "r=5" in user.hashed_password
        assert user.updated_at == changed_at
        assert (await client.post("/auth/login", data=form)).status_code == 200

    @pytest.mark.parametrize(
        "form",
        [
            {},
            {"username": "ada"},
            {"password": PASSWORD},
            {"username": "", "password": PASSWORD},
            {"username": "ada", "password": "x" * 129},
            {"username": "ada\0", "password": PASSWORD},
            {"username": "ada", "password": PASSWORD + "\0"},
            {"username": "x" * 255, "password": PASSWORD},
            {"username": "ada", "password": PASSWORD, "grant_type": "implicit"},
            {"username": "ada", "password": PASSWORD, "role": "admin"},
        ],
    )
    async def test_invalid_form(self, client: httpx.AsyncClient, form: Form) -> None:
        response = await client.post("/auth/login", data=form)
        assert response.status_code == 422
        assert PASSWORD not in response.text

    async def test_a_megabyte_of_password_is_not_hashed(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def verify_password(password: str, hashed: str | None) -> bool:
            raise AssertionError("hashed")

        monkeypatch.setattr(security, "verify_password", verify_password)
        form = {"username": "ada", "password": "x" * 1_000_000}
        response = await client.post("/auth/login", data=form)
        assert response.status_code == 422

    async def test_json_is_not_a_form(self, client: httpx.AsyncClient) -> None:
        body = {"username": "ada", "password": PASSWORD}
        response = await client.post("/auth/login", json=body)
        assert response.status_code == 415
        assert response.json()["message"] == "Send the body as a form"


class TestIdentity:
    async def test_me(self, client: httpx.AsyncClient, session: AsyncSession) -> None:
        user = await create_user(session)
        response = await client.get("/auth/me", headers=bearer(user))
        assert response.status_code == 200
        assert response.json()["email"] == user.email

    async def test_a_disabled_user_is_out_at_the_next_request(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        assert (await client.get("/auth/me", headers=bearer(user))).status_code == 200
        user.is_active = False
        await session.flush()
        response = await client.get("/auth/me", headers=bearer(user))
        assert response.status_code == 401
        assert response.json()["code"] == "invalid_token"

    @pytest.mark.parametrize(
        "header", ["", "Bearer", "Basic YWRhOmFkYQ==", "Token abc", "bearer", "Bearerabc"]
    )
    async def test_without_a_bearer_token_nobody_is_known(
        self, client: httpx.AsyncClient, header: str
    ) -> None:
        response = await client.get("/auth/me", headers={"Authorization": header})
        assert response.status_code == 401
        assert response.json()["code"] in {"not_authenticated", "invalid_token"}

    async def test_an_expired_token_says_so(
        self, client: httpx.AsyncClient, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user = await create_user(session)
        past = datetime.now(UTC) - timedelta(minutes=31)
        with monkeypatch.context() as patch:
            patch.setattr(clock, "now", lambda: past)
            headers = bearer(user)
        response = await client.get("/auth/me", headers=headers)
        assert response.status_code == 401
        assert response.json()["code"] == "token_expired"
        assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'

    async def test_a_bad_token_is_refused_where_none_is_needed(
        self, client: httpx.AsyncClient
    ) -> None:
        response = await client.get("/articles", headers={"Authorization": "Bearer nonsense"})
        assert response.status_code == 401

    @pytest.mark.parametrize("parameter", ["access_token", "token"])
    async def test_a_token_in_the_query_is_refused(
        self, client: httpx.AsyncClient, session: AsyncSession, parameter: str
    ) -> None:
        token = security.create_access_token(user_id=(await create_user(session)).id)
        for path in ("/auth/me", "/articles", "/users/me", "/health/live", "/nowhere", "/docs"):
            response = await client.get(path, params={parameter: token.access_token})
            assert response.status_code == 400
            assert response.json()["code"] == "credentials_in_query"


def _encode(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def _claims(**changes: Any) -> dict[str, Any]:
    settings = get_settings()
    now = datetime.now(UTC)
    claims = {
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        "sub": "1",
        "iat": now,
        "nbf": now,
        "exp": now + timedelta(minutes=5),
        "jti": uuid4().hex,
    }
    claims |= changes
    return {name: value for name, value in claims.items() if value is not None}


def _header(**changes: Any) -> dict[str, Any]:
    header = {"typ": "at+jwt", "kid": security._key_id(get_settings().secret_key)} | changes
    return {name: value for name, value in header.items() if value is not None}


def _token(
    *,
    key: str | None = None,
    algorithm: str = "HS256",
    header: dict[str, Any] | None = None,
    **claims: Any,
) -> str:
    token: str = jwt.encode(
        _claims(**claims),
        get_settings().secret_key if key is None else key,
        algorithm=algorithm,
        headers=_header() if header is None else header,
    )
    return token


def _unsigned(**header: Any) -> str:
    claims = {k: int(v.timestamp()) if isinstance(v, datetime) else v for k, v in _claims().items()}
    return f"{_encode({'alg': 'none', **_header(), **header})}.{_encode(claims)}."


LATER = datetime.now(UTC) + timedelta(days=1)

FORGERIES: dict[str, Callable[[], str]] = {
    "another key": lambda: _token(key="x" * 32),
    "another algorithm of the same key": lambda: _token(algorithm="HS512"),
    "no algorithm": _unsigned,
    "no algorithm, capitals": lambda: _unsigned(alg="NONE"),
    "no signature": lambda: _token().rpartition(".")[0] + ".",
    "signature of another token": lambda: (
        _token(sub="2").rpartition(".")[0] + "." + _token().rpartition(".")[2]
    ),
    "unknown kid": lambda: _token(header=_header(kid="unknown")),
    "no kid": lambda: _token(header=_header(kid=None)),
    "kid of another type": lambda: _token(header=_header(kid=["a"])),
    "typ JWT": lambda: _token(header=_header(typ="JWT")),
    "wrong issuer": lambda: _token(iss="elsewhere"),
    "wrong audience": lambda: _token(aud="another-api"),
    "not yet valid": lambda: _token(nbf=LATER),
    "issued tomorrow": lambda: _token(iat=LATER, exp=LATER + timedelta(days=1)),
    "issued at no time": lambda: _token(iat="yesterday"),
    "subject is no number": lambda: _token(sub="ada"),
    "subject is huge": lambda: _token(sub="9" * 400),
    "subject is negative": lambda: _token(sub="-1"),
    "subject is not text": lambda: _token(sub=1),
    "subject in other digits": lambda: _token(sub="\uff11"),
    "subject with a sign": lambda: _token(sub="+1"),
    "expires never": lambda: _token(exp=float("inf")),
    "an extension that is critical": lambda: _token(header=_header(crit=["b64"])),
    "nobody's subject": lambda: _token(sub="999999"),
    "expiry is text": lambda: _token(exp="tomorrow"),
    "empty": lambda: "..",
    "one part": lambda: "abc",
    "binary": lambda: "\xff\xfe.\x00.\x00",
    "header is a list": lambda: f"{_encode([])}.{_encode({})}.{_encode('x')}",
    "deep header": lambda: (
        base64.urlsafe_b64encode(b"[" * 100_000 + b"]" * 100_000).decode() + ".e30.e30"
    ),
    **{
        f"no {claim}": lambda claim=claim: _token(**{claim: None})
        for claim in security.REQUIRED_CLAIMS
    },
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_token_is_refused(
    client: httpx.AsyncClient, session: AsyncSession, forgery: str
) -> None:
    user = await create_user(session)
    assert (await client.get("/auth/me", headers=bearer(user))).status_code == 200
    token = FORGERIES[forgery]().encode("latin-1")
    response = await client.get("/auth/me", headers=[(b"Authorization", b"Bearer " + token)])
    assert response.status_code == 401
    body = response.json()
    assert body["code"] == "invalid_token"
    assert body["message"] == "Could not validate credentials"
    assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


async def test_the_token_that_the_forgeries_start_from_is_good(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session)
    headers = {"Authorization": f"Bearer {_token(sub=str(user.id))}"}
    assert (await client.get("/auth/me", headers=headers)).status_code == 200


async def test_a_token_has_the_claims_of_rfc_9068(session: AsyncSession) -> None:
    user = await create_user(session)
    token = security.create_access_token(user_id=user.id).access_token
    header, claims = jwt.get_unverified_header(token), jwt.get_unverified_claims(token)
    assert header["alg"] == "HS256"
    assert header["typ"] == "at+jwt"
    assert set(claims) == {"iss", "aud", "sub", "iat", "nbf", "exp", "jti"}
    assert claims["sub"] == str(user.id)
    assert claims["exp"] - claims["iat"] == 30 * 60
    assert get_settings().secret_key not in token
    other = security.create_access_token(user_id=user.id).access_token
    assert jwt.get_unverified_claims(other)["jti"] != claims["jti"]


async def test_hashing_threads_yield_to_those_that_answer() -> None:
    import os
    import threading

    loop_priority = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    future = security._hashing_threads().submit(
        lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    )
    assert future.result() == security.LOWEST_PRIORITY
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == loop_priority


async def test_users_without_a_password_hash_of_ours_can_still_log_in(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    """Plain bcrypt, as other systems store it, is taken over and replaced at the first login."""
    from passlib.hash import bcrypt

    user = await create_user(session, username="ada")
    user.hashed_password = bcrypt.using(rounds=4).hash(PASSWORD)
    await session.flush()
    form = {"username": "ada", "password": PASSWORD}
    assert (await client.post("/auth/login", data=form)).status_code == 200
    hashed = await session.scalar(select(User.hashed_password).where(User.id == user.id))
    assert hashed is not None
    assert hashed.startswith("$bcrypt-sha256$")
