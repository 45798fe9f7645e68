"""Login and access tokens. Attacks on tokens are in tests/security."""

from typing import Any

import httpx
import pytest
from jose import jwt
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import security
from app.auth.keys import secret_id
from app.auth.security import create_access_token
from app.core.config import get_settings
from app.models import AuditEvent, User
from tests.factories import PASSWORD, bearer, create_session, create_user

Form = dict[str, str]


class TestLogin:
    @pytest.mark.parametrize("name", ["ada", "ADA", "ada@example.com", "Ada@Example.com"])
    async def test_accepts_username_or_email(
        self, client: httpx.AsyncClient, session: AsyncSession, name: str
    ) -> None:
        user = await create_user(session, username="ada", email="ada@example.com")
        response = await client.post("/auth/login", data={"username": name, "password": PASSWORD})
        assert response.status_code == 200
        assert set(response.json()) == {
            "access_token",
            "token_type",
            "expires_in",
            "refresh_token",
        }
        assert response.json()["token_type"] == "bearer"
        assert response.json()["expires_in"] == 15 * 60
        assert response.headers["Cache-Control"] == "no-store"
        headers = {"Authorization": f"Bearer {response.json()['access_token']}"}
        assert (await client.get("/auth/me", headers=headers)).json()["id"] == user.id

    async def test_accepts_raw_utf_8(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        await create_user(session, username="ada", password="größere Größe")
        response = await client.post(
            "/auth/login",
            content="username=ada&password=größere Größe".encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert response.status_code == 200

    async def test_accepts_international_email_in_both_forms(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        await create_user(session, email="ada@exämple.com")
        for name in ("ada@exämple.com", "ada@xn--exmple-cua.com"):
            form = {"username": name, "password": PASSWORD}
            assert (await client.post("/auth/login", data=form)).status_code == 200

    async def test_accepts_all_oauth2_form_fields(
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

    async def test_unknown_wrong_and_disabled_get_the_same_response(
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

    async def test_unknown_user_also_costs_a_hash(
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
        assert "nobody" not in events[-1].message  # users may type a password into the wrong field

    async def test_rehashes_password_after_cost_increase(
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
    async def test_invalid_form_is_rejected(self, client: httpx.AsyncClient, form: Form) -> None:
        response = await client.post("/auth/login", data=form)
        assert response.status_code == 422
        assert PASSWORD not in response.text

    async def test_oversized_password_is_not_hashed(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def verify_password(password: str, hashed: str | None) -> bool:
            raise AssertionError("hashed")

        monkeypatch.setattr(security, "verify_password", verify_password)
        form = {"username": "ada", "password": "x" * 1_000_000}
        response = await client.post("/auth/login", data=form)
        assert response.status_code == 422

    async def test_fields_may_be_sent_as_json(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        body = {"username": user.username, "password": PASSWORD, "client_id": None, "scope": ""}
        response = await client.post("/auth/login", json=body)
        assert response.status_code == 200
        assert response.json()["refresh_token"]

    @pytest.mark.parametrize(
        ("body", "location"),
        [
            ('{"username": "ada"}', ["body", "password"]),
            ('{"username": 5, "password": "x"}', ["body", "username"]),
            ('{"username": ["ada"], "password": "x"}', ["body", "username"]),
            ('{"username": "ada", "password": {"file": "x"}}', ["body", "password"]),
            ('{"username": "ada", "password": "x", "otp": "1"}', ["body", "otp"]),
            ('{"username": "ada", "username": "bob", "password": "x"}', ["body", 0]),
            ("{", ["body", 1]),
            ("", ["body", 0]),
        ],
    )
    async def test_invalid_json_is_rejected(
        self, client: httpx.AsyncClient, body: str, location: list[str | int]
    ) -> None:
        headers = {"Content-Type": "application/json"}
        response = await client.post("/auth/login", content=body, headers=headers)
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"] == location

    @pytest.mark.parametrize("body", ["[]", "null", '"ada"'])
    async def test_json_must_be_an_object(self, client: httpx.AsyncClient, body: str) -> None:
        headers = {"Content-Type": "application/json"}
        response = await client.post("/auth/login", content=body, headers=headers)
        assert response.status_code == 422
        assert response.json()["message"] == "The body must be a JSON object"

    async def test_other_media_types_are_rejected(self, client: httpx.AsyncClient) -> None:
        headers = {"Content-Type": "text/plain"}
        response = await client.post("/auth/login", content="username=ada", headers=headers)
        assert response.status_code == 415
        assert response.json()["message"] == "Send the body as a form or as JSON"


class TestIdentity:
    async def test_me_returns_the_authenticated_user(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        response = await client.get("/auth/me", headers=bearer(user))
        assert response.status_code == 200
        assert response.json()["email"] == user.email

    @pytest.mark.parametrize(
        "header", ["", "Bearer", "Basic YWRhOmFkYQ==", "Token abc", "bearer", "Bearerabc"]
    )
    async def test_without_bearer_token_is_anonymous(
        self, client: httpx.AsyncClient, header: str
    ) -> None:
        response = await client.get("/auth/me", headers={"Authorization": header})
        assert response.status_code == 401
        assert response.json()["code"] in {"not_authenticated", "invalid_token"}

    async def test_invalid_token_is_refused_on_public_routes(
        self, client: httpx.AsyncClient
    ) -> None:
        response = await client.get("/articles", headers={"Authorization": "Bearer nonsense"})
        assert response.status_code == 401

    @pytest.mark.parametrize("parameter", ["access_token", "token"])
    async def test_token_in_query_is_refused(
        self, client: httpx.AsyncClient, session: AsyncSession, parameter: str
    ) -> None:
        headers = bearer(await create_user(session))
        token = headers["Authorization"].removeprefix("Bearer ")
        for path in ("/auth/me", "/articles", "/users/me", "/health/live", "/nowhere", "/docs"):
            response = await client.get(path, params={parameter: token})
            assert response.status_code == 400
            assert response.json()["code"] == "credentials_in_query"


async def test_token_has_the_claims_of_rfc_9068(session: AsyncSession) -> None:
    user = await create_user(session)
    login = await create_session(session, user=user)
    token = create_access_token(user_id=user.id, session_id=login.id)
    header, claims = jwt.get_unverified_header(token), jwt.get_unverified_claims(token)
    secret = get_settings().secret_key
    assert header == {"alg": "HS256", "typ": "at+jwt", "kid": secret_id(secret)}
    assert set(claims) == {"iss", "aud", "sub", "sid", "iat", "nbf", "exp", "jti"}
    assert (claims["iss"], claims["aud"]) == ("pressroom", "pressroom-api")
    assert (claims["sub"], claims["sid"]) == (str(user.id), str(login.id))
    assert claims["exp"] - claims["iat"] == 15 * 60
    assert secret not in token
    another = jwt.get_unverified_claims(create_access_token(user_id=user.id, session_id=login.id))
    assert another["jti"] != claims["jti"]


async def test_hashing_threads_have_lower_priority() -> None:
    import os
    import threading

    loop_priority = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    priority = await security._run_in_hashing_thread(
        lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    )
    assert priority == security.HASHING_NICENESS > 0
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == loop_priority


async def test_users_with_imported_bcrypt_hash_can_log_in(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    """Plain bcrypt hashes from other systems are accepted, and replaced at the first login."""
    from passlib.hash import bcrypt

    user = await create_user(session, username="ada")
    user.hashed_password = bcrypt.using(rounds=4).hash(PASSWORD)
    await session.flush()
    form = {"username": "ada", "password": PASSWORD}
    assert (await client.post("/auth/login", data=form)).status_code == 200
    hashed = await session.scalar(select(User.hashed_password).where(User.id == user.id))
    assert hashed is not None
    assert hashed.startswith("$bcrypt-sha256$")
