"""Second factor: setup, login, recovery codes and challenges."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pyotp
import pytest
from fastapi import FastAPI
from jose import jwt
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import challenges, keys, sealing
from app.auth.challenges import create_challenge
from app.auth.security import create_access_token, hash_password
from app.core import clock
from app.core.config import get_settings
from app.models import ApiKey, AuditEvent, RecoveryCode, SecondFactor, User, UserSession
from app.services.accounts import second_factor
from tests.factories import PASSWORD, bearer, create_user

BASE = "/auth/second-factor"
LOGIN = "/auth/login/second-factor"
STEP = timedelta(seconds=30)
WRONG_PASSWORD = "not the password"

Rotate = Callable[..., None]


@dataclass
class Time:
    """A stopped clock that tests can advance."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def pass_(self, span: timedelta) -> None:
        self.now += span


@pytest.fixture(autouse=True)
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(clock, "now", lambda: time.now)
    return time


@pytest.fixture
def rotate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rotate]:
    """Return a function that replaces SECRET_KEY and SECRET_KEYS_PREVIOUS."""

    def rotate(current: str, *previous: str) -> None:
        changed = {"secret_key": current, "secret_keys_previous": list(previous)}
        settings = get_settings().model_copy(update=changed)
        monkeypatch.setattr(keys, "get_settings", lambda: settings)
        keys.derived_keys.cache_clear()

    yield rotate
    keys.derived_keys.cache_clear()


@dataclass
class Owner:
    """A user with an authenticator and an HTTP client."""

    client: httpx.AsyncClient
    user: User
    headers: dict[str, str]
    secret: str = ""
    recovery_codes: list[str] = field(default_factory=list)

    def code(self, steps: int = 0) -> str:
        """Return the authenticator code that is valid `steps` from now."""
        return pyotp.TOTP(self.secret).at(clock.now(), counter_offset=steps)

    def wrong_code(self) -> str:
        right = {self.code(steps) for steps in range(-2, 3)}
        return next(code for code in ("000000", "111111", "222222") if code not in right)

    async def post(self, path: str, **body: str) -> httpx.Response:
        return await self.client.post(f"{BASE}{path}", json=body, headers=self.headers)

    async def begin(self) -> httpx.Response:
        response = await self.post("", password=PASSWORD)
        if response.status_code == 201:
            self.secret = response.json()["secret"]
        return response

    async def enable(self) -> None:
        """Confirm with the code of the previous step, so that the current code stays unused."""
        await self.begin()
        response = await self.post("/confirm", code=self.code(-1))
        assert response.status_code == 200, response.text
        self.recovery_codes = response.json()["recovery_codes"]

    async def status(self) -> tuple[bool, int]:
        response = await self.client.get(BASE, headers=self.headers)
        assert response.status_code == 200
        body = response.json()
        assert set(body) == {"enabled", "recovery_codes_left"}
        return body["enabled"], body["recovery_codes_left"]

    async def challenge(self) -> str:
        """Log in with the password; return the challenge."""
        form = {"username": self.user.username, "password": PASSWORD}
        response = await self.client.post("/auth/login", data=form)
        assert response.status_code == 401
        body = response.json()
        assert body["code"] == "second_factor_required"
        assert set(body) == {"success", "message", "detail", "code", "request_id", "challenge"}
        challenge: str = body["challenge"]
        return challenge

    async def log_in(self, code: str, *, challenge: str | None = None) -> httpx.Response:
        body = {"challenge": challenge or await self.challenge(), "code": code}
        return await self.client.post(LOGIN, json=body)


@pytest.fixture
async def owner(client: httpx.AsyncClient, session: AsyncSession) -> Owner:
    user = await create_user(session)
    return Owner(client, user, bearer(user))


@pytest.fixture
async def enabled(owner: Owner) -> Owner:
    await owner.enable()
    return owner


async def actions(session: AsyncSession) -> list[str]:
    return list(await session.scalars(select(AuditEvent.action).order_by(AuditEvent.id)))


class TestSetup:
    async def test_setup_enables_second_factor(self, owner: Owner, session: AsyncSession) -> None:
        assert await owner.status() == (False, 0)
        begun = await owner.begin()
        assert begun.status_code == 201
        assert begun.headers["Cache-Control"] == "no-store"
        assert set(begun.json()) == {"secret", "uri"}
        assert re.fullmatch(r"[A-Z2-7]{32}", owner.secret)  # 160 bits: RFC 4226 §4
        uri = urlsplit(begun.json()["uri"])
        assert (uri.scheme, uri.netloc) == ("otpauth", "totp")
        assert uri.path == f"/Pressroom:{owner.user.username}"
        assert parse_qs(uri.query) == {"secret": [owner.secret], "issuer": ["Pressroom"]}
        assert await owner.status() == (False, 0)

        confirmed = await owner.post("/confirm", code=owner.code())
        assert confirmed.status_code == 200
        assert confirmed.headers["Cache-Control"] == "no-store"
        assert len(set(confirmed.json()["recovery_codes"])) == 10
        assert await owner.status() == (True, 10)
        assert await actions(session) == ["ENABLE_SECOND_FACTOR"]

    async def test_unconfirmed_factor_is_not_required_at_login(self, owner: Owner) -> None:
        await owner.begin()
        form = {"username": owner.user.username, "password": PASSWORD}
        assert (await owner.client.post("/auth/login", data=form)).status_code == 200

    async def test_second_setup_replaces_the_secret(self, owner: Owner) -> None:
        await owner.begin()
        first = owner.code()
        await owner.begin()
        assert first != owner.code()
        refused = await owner.post("/confirm", code=first)
        assert refused.status_code == 403
        assert refused.json()["code"] == "incorrect_code"
        assert (await owner.post("/confirm", code=owner.code())).status_code == 200

    async def test_setup_is_refused_when_enabled(self, enabled: Owner) -> None:
        for response in (
            await enabled.begin(),
            await enabled.post("/confirm", code=enabled.code()),
        ):
            assert response.status_code == 409
            assert response.json()["code"] == "second_factor_enabled"
        assert (await enabled.log_in(enabled.code())).status_code == 200

    async def test_confirmation_without_secret_is_refused(self, owner: Owner) -> None:
        response = await owner.post("/confirm", code="123456")
        assert response.status_code == 409
        assert response.json()["code"] == "second_factor_not_enabled"

    async def test_recovery_code_cannot_confirm_setup(
        self, enabled: Owner, session: AsyncSession
    ) -> None:
        await session.execute(text("UPDATE second_factors SET confirmed_at = NULL"))
        response = await enabled.post("/confirm", code=enabled.recovery_codes[0])
        assert response.status_code == 403

    async def test_confirmation_keeps_sessions(self, owner: Owner, session: AsyncSession) -> None:
        await owner.enable()
        assert await session.scalar(select(UserSession.revoked_at)) is None
        assert await owner.status() == (True, 10)

    async def test_wrong_password_gets_no_secret(self, owner: Owner, session: AsyncSession) -> None:
        response = await owner.post("", password=WRONG_PASSWORD)
        assert response.status_code == 403
        assert response.json()["code"] == "incorrect_password"
        assert await session.scalar(select(SecondFactor.user_id)) is None

    async def test_database_contains_neither_secret_nor_codes(
        self, enabled: Owner, session: AsyncSession
    ) -> None:
        rows = [
            *(await session.execute(text("SELECT * FROM second_factors"))).all(),
            *(await session.execute(text("SELECT * FROM recovery_codes"))).all(),
        ]
        assert len(rows) == 11
        for secret in (enabled.secret, *enabled.recovery_codes):
            assert secret not in str(rows)
            assert secret.replace("-", "") not in str(rows)

    async def test_secret_and_codes_are_not_logged(
        self, owner: Owner, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with caplog.at_level("DEBUG"):
            await owner.enable()
            challenge, code, wrong = await owner.challenge(), owner.code(), owner.wrong_code()
            await owner.log_in(wrong, challenge=challenge)
            await owner.log_in(code, challenge=challenge)
            await owner.log_in(owner.recovery_codes[0], challenge=challenge)
        logged = caplog.text + "".join(capfd.readouterr())
        assert "ENABLE_SECOND_FACTOR" in logged
        for secret in (owner.secret, code, wrong, challenge, *owner.recovery_codes):
            assert secret not in logged


class TestChange:
    @pytest.mark.parametrize("path", ["/recovery-codes", "/disable"])
    async def test_requires_password_and_code(
        self, enabled: Owner, session: AsyncSession, path: str
    ) -> None:
        for password, code, expected in (
            (WRONG_PASSWORD, enabled.code(), "incorrect_password"),
            (PASSWORD, enabled.wrong_code(), "incorrect_code"),
            (PASSWORD, "aaaa-bbbb-cccc-dddd", "incorrect_code"),
        ):
            response = await enabled.post(path, password=password, code=code)
            assert response.status_code == 403
            assert response.json()["code"] == expected
        assert await enabled.status() == (True, 10)
        response = await enabled.post(path, password=PASSWORD, code=enabled.code())
        assert response.is_success

    @pytest.mark.parametrize("path", ["/recovery-codes", "/disable"])
    @pytest.mark.parametrize("begun", [False, True])
    async def test_refused_when_not_enabled(self, owner: Owner, path: str, *, begun: bool) -> None:
        if begun:
            await owner.begin()
        code = owner.code() if begun else "123456"
        response = await owner.post(path, password=PASSWORD, code=code)
        assert response.status_code == 409
        assert response.json()["code"] == "second_factor_not_enabled"

    async def test_renewal_invalidates_old_codes(
        self, enabled: Owner, session: AsyncSession
    ) -> None:
        body = {"password": PASSWORD, "code": enabled.code()}
        response = await enabled.post("/recovery-codes", **body)
        assert response.status_code == 200
        assert response.headers["Cache-Control"] == "no-store"
        renewed = response.json()["recovery_codes"]
        assert len(set(renewed)) == 10
        assert not set(renewed) & set(enabled.recovery_codes)
        assert (await enabled.log_in(enabled.recovery_codes[0])).status_code == 401
        assert (await enabled.log_in(renewed[0])).status_code == 200
        assert (await actions(session))[1] == "RENEW_RECOVERY_CODES"

    @pytest.mark.parametrize("by", ["authenticator", "recovery code"])
    async def test_password_is_sufficient_after_disabling(
        self, enabled: Owner, session: AsyncSession, by: str
    ) -> None:
        code = enabled.code() if by == "authenticator" else enabled.recovery_codes[0]
        response = await enabled.post("/disable", password=PASSWORD, code=code)
        assert response.status_code == 204
        assert await enabled.status() == (False, 0)
        assert await session.scalar(select(SecondFactor.user_id)) is None
        assert await session.scalar(select(RecoveryCode.user_id)) is None
        form = {"username": enabled.user.username, "password": PASSWORD}
        assert (await enabled.client.post("/auth/login", data=form)).status_code == 200
        used = ["USE_RECOVERY_CODE"] if by == "recovery code" else []
        recorded = ["ENABLE_SECOND_FACTOR", *used, "DISABLE_SECOND_FACTOR", "LOGIN"]
        assert await actions(session) == recorded
        await enabled.enable()
        assert await enabled.status() == (True, 10)

    async def test_is_deleted_with_its_user(self, enabled: Owner, session: AsyncSession) -> None:
        await session.execute(text("DELETE FROM users"))
        assert await session.scalar(select(SecondFactor.user_id)) is None
        assert await session.scalar(select(RecoveryCode.user_id)) is None


class TestLogin:
    async def test_requires_challenge_and_code(self, enabled: Owner, session: AsyncSession) -> None:
        response = await enabled.log_in(enabled.code())
        assert response.status_code == 200
        assert response.headers["Cache-Control"] == "no-store"
        tokens = response.json()
        assert set(tokens) == {"access_token", "token_type", "expires_in", "refresh_token"}
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        me = await enabled.client.get("/auth/me", headers=headers)
        assert me.json()["id"] == enabled.user.id
        refreshed = await enabled.client.post(
            "/auth/refresh", json={"refresh_token": tokens["refresh_token"]}
        )
        assert refreshed.status_code == 200
        assert await actions(session) == ["ENABLE_SECOND_FACTOR", "LOGIN"]

    async def test_refresh_token_can_be_set_as_cookie(self, enabled: Owner) -> None:
        body = {"challenge": await enabled.challenge(), "code": enabled.code()}
        cross = {"Origin": "https://evil.example.com"}
        refused = await enabled.client.post(f"{LOGIN}?cookie=true", json=body, headers=cross)
        assert refused.status_code == 403
        assert refused.json()["code"] == "cross_site_request"
        response = await enabled.client.post(f"{LOGIN}?cookie=true", json=body)
        assert response.status_code == 200
        assert response.json()["refresh_token"] is None
        cookie = response.headers["Set-Cookie"]
        assert cookie.startswith("refresh_token=prt_")
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie

    async def test_wrong_code_is_recorded(self, enabled: Owner, session: AsyncSession) -> None:
        response = await enabled.log_in(enabled.wrong_code())
        assert response.status_code == 401
        assert response.json()["code"] == "invalid_code"
        assert response.headers["WWW-Authenticate"] == "Bearer"
        events = (await session.scalars(select(AuditEvent).order_by(AuditEvent.id))).all()
        last = events[-1]
        assert (last.action, last.actor_id, last.subject_id) == (
            "LOGIN_FAILED", None, enabled.user.id,
        )  # fmt: skip
        assert (await enabled.log_in(enabled.code())).status_code == 200

    @pytest.mark.parametrize(
        ("steps", "status"), [(-2, 401), (-1, 200), (0, 200), (1, 200), (2, 401)]
    )
    async def test_codes_are_accepted_within_the_window(
        self, enabled: Owner, time: Time, steps: int, status: int
    ) -> None:
        time.pass_(10 * STEP)  # past the code that was used for the confirmation
        assert (await enabled.log_in(enabled.code(steps))).status_code == status

    async def test_code_is_accepted_once(self, enabled: Owner, time: Time) -> None:
        time.pass_(10 * STEP)
        challenge, code = await enabled.challenge(), enabled.code()
        assert (await enabled.log_in(code, challenge=challenge)).status_code == 200
        for passed in (timedelta(0), STEP):  # the code is still within the window
            time.pass_(passed)
            again = await enabled.log_in(code, challenge=challenge)
            assert again.status_code == 401
            assert again.json()["code"] == "invalid_code"

    async def test_code_older_than_the_last_one_is_refused(
        self, enabled: Owner, time: Time
    ) -> None:
        time.pass_(10 * STEP)
        assert (await enabled.log_in(enabled.code(1))).status_code == 200
        assert (await enabled.log_in(enabled.code(0))).status_code == 401
        time.pass_(2 * STEP)
        assert (await enabled.log_in(enabled.code(0))).status_code == 200

    async def test_code_of_the_confirmation_is_consumed(self, owner: Owner) -> None:
        await owner.begin()
        code = owner.code()
        assert (await owner.post("/confirm", code=code)).status_code == 200
        assert (await owner.log_in(code)).status_code == 401

    async def test_code_of_a_login_cannot_disable_the_factor(self, enabled: Owner) -> None:
        code = enabled.code()
        assert (await enabled.log_in(code)).status_code == 200
        response = await enabled.post("/disable", password=PASSWORD, code=code)
        assert response.status_code == 403

    async def test_code_of_another_user_is_refused(
        self, enabled: Owner, session: AsyncSession, client: httpx.AsyncClient
    ) -> None:
        user = await create_user(session)
        other = Owner(client, user, bearer(user))
        await other.enable()
        for code in (other.code(), other.recovery_codes[0]):
            assert (await enabled.log_in(code)).status_code == 401
        assert (await enabled.log_in(enabled.code())).status_code == 200
        assert (await enabled.log_in(enabled.recovery_codes[0])).status_code == 200
        assert await other.status() == (True, 10)
        assert (await other.log_in(other.code())).status_code == 200

    async def test_malformed_code_is_not_echoed(self, enabled: Owner) -> None:
        challenge = await enabled.challenge()
        codes = [
            "", " ", "x" * 41, "12345\uff16", "12345\n6", "12345\0", "123.456", "'; --", "\ud800",
            123456,
        ]  # fmt: skip
        for code in codes:
            body = {"challenge": challenge, "code": code}
            response = await enabled.client.post(
                LOGIN, content=json.dumps(body), headers={"Content-Type": "application/json"}
            )
            assert response.status_code in {401, 422}, code
            if response.status_code == 422:
                assert response.json()["detail"][0]["loc"] == ["body", "code"]
            assert not str(code).strip() or str(code) not in response.text
            assert challenge not in response.text

    async def test_validation_error_echoes_no_secret(self, enabled: Owner) -> None:
        code = enabled.code()
        response = await enabled.post("/disable", password=PASSWORD, code=code, cod="x")
        assert response.status_code == 422
        assert PASSWORD not in response.text
        assert code not in response.text

    async def test_code_may_contain_a_space(self, enabled: Owner) -> None:
        code = enabled.code()
        assert (await enabled.log_in(f"{code[:3]} {code[3:]}")).status_code == 200


class TestRecoveryCodes:
    async def test_codes_are_long_and_readable(self, enabled: Owner) -> None:
        for code in enabled.recovery_codes:  # 16 letters of 5 bits
            assert re.fullmatch(r"[a-z2-7]{4}(-[a-z2-7]{4}){3}", code)

    async def test_each_code_is_valid_for_one_login(
        self, enabled: Owner, session: AsyncSession
    ) -> None:
        code = enabled.recovery_codes[3]
        assert (await enabled.log_in(code)).status_code == 200
        assert await enabled.status() == (True, 9)
        again = await enabled.log_in(code)
        assert again.status_code == 401
        assert again.json()["code"] == "invalid_code"
        assert await enabled.status() == (True, 9)
        recorded = ["ENABLE_SECOND_FACTOR", "USE_RECOVERY_CODE", "LOGIN", "LOGIN_FAILED"]
        assert await actions(session) == recorded

    @pytest.mark.parametrize(
        "spelling",
        [str.upper, lambda code: code.replace("-", ""), lambda code: code.replace("-", " ")],
    )
    async def test_case_and_separators_are_ignored(
        self, enabled: Owner, spelling: Callable[[str], str]
    ) -> None:
        assert (await enabled.log_in(spelling(enabled.recovery_codes[0]))).status_code == 200
        assert await enabled.status() == (True, 9)


class TestLimits:
    async def test_codes_are_limited(self, enabled: Owner, time: Time) -> None:
        challenge = await enabled.challenge()
        responses = [
            await enabled.log_in(enabled.wrong_code(), challenge=challenge) for _ in range(7)
        ]
        response = responses.pop()
        assert {response.status_code for response in responses} == {401}
        assert response.status_code == 429
        assert response.json()["code"] == "too_many_attempts"
        wait = int(response.headers["Retry-After"])
        assert 1 <= wait <= 15 * 60
        for code in (enabled.code(), enabled.recovery_codes[0]):
            assert (await enabled.log_in(code, challenge=challenge)).status_code == 429
        time.pass_(timedelta(seconds=wait))
        assert (await enabled.log_in(enabled.code(), challenge=challenge)).status_code == 200

    async def test_guesses_on_different_routes_share_a_limit(self, owner: Owner) -> None:
        await owner.begin()
        codes = [
            (await owner.post("/confirm", code=owner.wrong_code())).status_code for _ in range(7)
        ]
        assert codes == [403] * 6 + [429]
        assert (await owner.post("/confirm", code=owner.code())).status_code == 429

    @pytest.mark.parametrize("path", ["/recovery-codes", "/disable"])
    async def test_guesses_with_the_password_are_limited(self, enabled: Owner, path: str) -> None:
        body = {"password": PASSWORD, "code": enabled.wrong_code()}
        statuses = [(await enabled.post(path, **body)).status_code for _ in range(7)]
        assert statuses == [403] * 6 + [429]
        body["code"] = enabled.code()
        assert (await enabled.post(path, **body)).status_code == 429

    async def test_success_clears_the_failures(self, enabled: Owner, time: Time) -> None:
        challenge = await enabled.challenge()
        for _ in range(7):
            time.pass_(STEP)
            wrong = await enabled.log_in(enabled.wrong_code(), challenge=challenge)
            assert wrong.status_code == 401
            right = await enabled.log_in(enabled.code(), challenge=challenge)
            assert right.status_code == 200

    async def test_passwords_are_limited(self, owner: Owner) -> None:
        statuses = [(await owner.post("", password=WRONG_PASSWORD)).status_code for _ in range(7)]
        assert statuses == [403] * 6 + [429]
        assert (await owner.begin()).status_code == 429


async def _changed_password(owner: Owner, session: AsyncSession) -> None:
    owner.user.hashed_password = await hash_password("another password")
    await session.flush()


async def _disabled_user(owner: Owner, session: AsyncSession) -> None:
    owner.user.is_active = False
    await session.flush()


async def _deleted_user(owner: Owner, session: AsyncSession) -> None:
    await session.execute(text("DELETE FROM users"))


async def _disabled_factor(owner: Owner, session: AsyncSession) -> None:
    body = {"password": PASSWORD, "code": owner.recovery_codes[1]}
    assert (await owner.post("/disable", **body)).status_code == 204


async def _new_setup(owner: Owner, session: AsyncSession) -> None:
    await _disabled_factor(owner, session)
    await owner.begin()


CONCURRENT_CHANGES = [
    _changed_password,
    _disabled_user,
    _deleted_user,
    _disabled_factor,
    _new_setup,
]


class TestChallenges:
    @pytest.mark.parametrize("change", CONCURRENT_CHANGES)
    async def test_challenge_is_invalid_after_account_changes(
        self, enabled: Owner, session: AsyncSession, change: Callable[[Owner, AsyncSession], Any]
    ) -> None:
        challenge = await enabled.challenge()
        await change(enabled, session)
        response = await enabled.log_in(enabled.code(), challenge=challenge)
        assert response.status_code == 401
        assert response.json()["code"] == "invalid_challenge"
        assert await session.scalar(text("SELECT count(*) FROM user_sessions")) <= 1

    async def test_challenge_expires(self, enabled: Owner, time: Time) -> None:
        time.pass_(timedelta(minutes=-6))
        challenge = await enabled.challenge()
        time.pass_(timedelta(minutes=6))
        response = await enabled.log_in(enabled.code(), challenge=challenge)
        assert response.status_code == 401
        assert response.json()["code"] == "invalid_challenge"

    async def test_challenge_is_not_an_access_token(self, enabled: Owner) -> None:
        headers = {"Authorization": f"Bearer {await enabled.challenge()}"}
        response = await enabled.client.get("/auth/me", headers=headers)
        assert response.status_code == 401
        assert response.json()["code"] == "invalid_token"

    async def test_challenge_is_not_a_refresh_token(self, enabled: Owner) -> None:
        body = {"refresh_token": await enabled.challenge()}
        assert (await enabled.client.post("/auth/refresh", json=body)).status_code == 401

    async def test_other_tokens_are_not_challenges(
        self, enabled: Owner, session: AsyncSession, rotate: Rotate
    ) -> None:
        tokens = (await enabled.log_in(enabled.recovery_codes[0])).json()
        session_id = await session.scalar(select(UserSession.id).limit(1))
        assert session_id is not None
        genuine = await enabled.challenge()
        header, claims, signature = genuine.split(".")
        rotate("another secret of thirty-two bytes!")
        foreign = create_challenge(enabled.user.id, enabled.user.hashed_password)
        rotate(get_settings().secret_key)
        right = jwt.get_unverified_claims(genuine)
        key = keys.derived_keys(challenges.PURPOSE)[0].hex()
        endless = {name: claim for name, claim in right.items() if name != "exp"}
        own = {"typ": challenges.TYPE}
        for forged in (
            jwt.encode(right, key, headers={"typ": "JWT"}),
            jwt.encode(right, key, headers=own, algorithm="HS512"),
            jwt.encode(endless, key, headers=own),
            tokens["access_token"],
            tokens["refresh_token"],
            create_access_token(user_id=enabled.user.id, session_id=session_id),
            foreign,
            f"{header}.{claims}.",
            f"{header}.{claims}.{signature[::-1]}",
            "eyJhbGciOiJub25lIiwidHlwIjoiY2hhbGxlbmdlK2p3dCJ9." + claims + ".",
            "nonsense",
            "..",
        ):
            response = await enabled.log_in(enabled.code(), challenge=forged)
            assert response.status_code == 401
            assert response.json()["code"] == "invalid_challenge"
        assert (await enabled.log_in(enabled.code(), challenge=genuine)).status_code == 200


OLD, NEW = "the old secret of thirty-two bytes!!", "the new secret of thirty-two bytes!!"


class TestEncryption:
    def test_ciphertexts_differ_and_can_be_decrypted(self) -> None:
        sealed = {sealing.seal("secret") for _ in range(3)}
        assert len(sealed) == 3
        assert {sealing.unseal(each) for each in sealed} == {"secret"}
        assert len(sealing.seal(pyotp.random_base32())) <= 300

    def test_other_purpose_cannot_be_decrypted(self) -> None:
        secret, answer = sealing.seal("x"), sealing.seal("x", purpose=sealing.IDEMPOTENCY)
        assert sealing.unseal(secret, purpose=sealing.SECOND_FACTOR) == "x"
        assert sealing.unseal(answer, purpose=sealing.IDEMPOTENCY) == "x"
        assert sealing.needs_reseal(answer)
        assert not sealing.needs_reseal(answer, purpose=sealing.IDEMPOTENCY)
        with pytest.raises(sealing.UnsealError):
            sealing.unseal(answer)
        with pytest.raises(sealing.UnsealError):
            sealing.unseal(secret, purpose=sealing.IDEMPOTENCY)

    def test_modified_ciphertext_cannot_be_decrypted(self) -> None:
        sealed = sealing.seal("secret")
        for broken in (f"{sealed[:-5]}AAAA=", sealed[:20], "", "nonsense"):
            with pytest.raises(sealing.UnsealError):
                sealing.unseal(broken)

    async def test_use_of_a_code_encrypts_with_the_new_key(
        self, owner: Owner, session: AsyncSession, rotate: Rotate
    ) -> None:
        rotate(OLD)
        await owner.enable()
        before = await session.scalar(text("SELECT sealed_secret FROM second_factors"))
        rotate(NEW, OLD)
        assert sealing.needs_reseal(before)
        assert (await owner.log_in(owner.code())).status_code == 200
        after = await session.scalar(text("SELECT sealed_secret FROM second_factors"))
        assert not sealing.needs_reseal(after)
        rotate(NEW)
        assert (await owner.log_in(owner.code(1))).status_code == 200

    async def test_old_key_is_not_needed_after_reencryption(
        self, owner: Owner, session: AsyncSession, rotate: Rotate, client: httpx.AsyncClient
    ) -> None:
        rotate(OLD)
        await owner.enable()
        for _ in range(2):
            user = await create_user(session)
            await Owner(client, user, bearer(user)).begin()
        rotate(NEW, OLD)
        assert await second_factor.reseal_all(session) == 3
        await session.flush()
        assert await second_factor.reseal_all(session) == 0
        rotate(NEW)
        assert (await owner.log_in(owner.code())).status_code == 200

    async def test_recovery_codes_work_without_the_secret_key(
        self,
        owner: Owner,
        session: AsyncSession,
        rotate: Rotate,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        rotate(OLD)
        await owner.enable()
        rotate(NEW)
        assert await second_factor.reseal_all(session) == 0
        assert (await owner.log_in(owner.code())).status_code == 401
        assert "second factor cannot be decrypted" in caplog.text
        code = owner.recovery_codes[0]
        assert (await owner.log_in(code)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", BASE),
        ("POST", BASE),
        ("POST", f"{BASE}/confirm"),
        ("POST", f"{BASE}/recovery-codes"),
        ("POST", f"{BASE}/disable"),
    ],
)
async def test_api_keys_are_refused(
    owner: Owner, session: AsyncSession, method: str, path: str
) -> None:
    new = {"name": "All", "scopes": ["users:read", "users:write"], "password": PASSWORD}
    key = (await owner.client.post("/users/me/api-keys", json=new, headers=owner.headers)).json()
    body = {"password": PASSWORD, "code": "123456"}
    for headers, status, code in (
        ({"Authorization": f"Bearer {key['key']}"}, 403, "session_required"),
        ({}, 401, "not_authenticated"),
    ):
        sent = body if method == "POST" else None
        response = await owner.client.request(method, path, json=sent, headers=headers)
        assert response.status_code == status
        assert response.json()["code"] == code
    assert await session.scalar(select(ApiKey.last_used_at)) is None


def test_openapi_documents_the_challenge(app: FastAPI) -> None:
    document = app.openapi()
    described = document["components"]["schemas"]["SecondFactorRequired"]
    assert described["properties"]["challenge"]["type"] == "string"
    assert "challenge" in described["required"]
    assert described["examples"][0]["challenge"]
    assert "challenge" not in document["components"]["schemas"]["InvalidCredentials"]["properties"]
