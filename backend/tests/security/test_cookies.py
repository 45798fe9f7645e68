"""The refresh token cookie is not readable by scripts and not usable by other sites."""

from http.cookies import Morsel, SimpleCookie

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import User
from tests.factories import PASSWORD, create_article, create_user
from tests.processes import PRODUCTION
from tests.security.conftest import Install

OWN, FRONT_END, ELSEWHERE = "http://testserver", "https://www.example.com", "https://evil.example"
THIRTY_DAYS = 30 * 24 * 60 * 60

Headers = dict[str, str]

REFUSED: dict[str, Headers] = {
    "another site": {"Origin": ELSEWHERE},
    "null, as from a sandbox": {"Origin": "null"},
    "empty": {"Origin": ""},
    "cross-site, without an origin": {"Sec-Fetch-Site": "cross-site"},
    "a sibling that CORS_ORIGINS does not name": {
        "Origin": "https://blog.example.com",
        "Sec-Fetch-Site": "same-site",
    },
    "another site that claims to be same-origin": {
        "Origin": ELSEWHERE,
        "Sec-Fetch-Site": "same-origin",
    },
    "ours as a prefix": {"Origin": f"{OWN}.evil.example"},
    "ours as a user": {"Origin": "http://testserver@evil.example"},
    "ours as a path": {"Origin": f"{ELSEWHERE}/{OWN}"},
    "ours on another port": {"Origin": f"{OWN}:8080"},
    "a front end's in another case": {"Origin": FRONT_END.upper()},
    "a front end's on another port": {"Origin": f"{FRONT_END}:8443"},
    "a front end's without its scheme": {"Origin": "www.example.com"},
    "a front end's over plain HTTP": {"Origin": FRONT_END.replace("https", "http")},
    "a front end's behind another's": {"Origin": f"{ELSEWHERE} {FRONT_END}"},
    "no URL": {"Origin": "http://[::1"},
    "a file": {"Origin": "file://"},
}
ACCEPTED: dict[str, Headers] = {
    "no browser": {},
    "the same origin": {"Origin": OWN, "Sec-Fetch-Site": "same-origin"},
    "a front end": {"Origin": FRONT_END, "Sec-Fetch-Site": "same-site"},
    "a front end of another site": {"Origin": FRONT_END, "Sec-Fetch-Site": "cross-site"},
    "typed by the user": {"Sec-Fetch-Site": "none"},
}


def cookie_of(response: httpx.Response) -> Morsel[str]:
    (header,) = response.headers.get_list("set-cookie")
    return SimpleCookie(header)["refresh_token"]


def flags(morsel: Morsel[str]) -> dict[str, object]:
    return {name: value for name, value in morsel.items() if value not in {"", False}}


FLAGS = {
    "path": "/auth",
    "httponly": True,
    "samesite": "strict",
    "secure": True,
}


@pytest.fixture(autouse=True)
def _front_end(install: Install) -> None:
    install(CORS_ORIGINS=FRONT_END)


@pytest.fixture
async def user(session: AsyncSession) -> User:
    return await create_user(session, username="ada")


async def log_in(client: httpx.AsyncClient, **headers: str) -> httpx.Response:
    form = {"username": "ada", "password": PASSWORD}
    return await client.post("/auth/login?cookie=true", data=form, headers=headers)


@pytest.fixture
async def cookie(client: httpx.AsyncClient, user: User) -> str:
    """Return the cookie value. httpx stores none, so each request sends it explicitly."""
    response = await log_in(client)
    assert response.status_code == 200, response.text
    client.cookies.clear()
    return f"refresh_token={cookie_of(response).value}"


class TestAttributes:
    @pytest.mark.usefixtures("user")
    async def test_cookie_is_http_only_same_site_and_limited_to_its_path(
        self, client: httpx.AsyncClient
    ) -> None:
        response = await log_in(client)
        assert flags(cookie_of(response)) == {**FLAGS, "max-age": str(THIRTY_DAYS)}
        assert response.json()["refresh_token"] is None
        assert cookie_of(response).value not in response.text

    @pytest.mark.usefixtures("user")
    @pytest.mark.parametrize("environment", ["development", "test", "production"])
    async def test_cookie_is_secure_outside_of_development(
        self, client: httpx.AsyncClient, install: Install, environment: str
    ) -> None:
        settings = PRODUCTION if environment == "production" else {}
        install(**{**settings, "ENVIRONMENT": environment})
        morsel = cookie_of(await log_in(client))
        assert bool(morsel["secure"]) is (environment != "development")

    async def test_no_cookie_without_request(self, client: httpx.AsyncClient, user: User) -> None:
        form = {"username": "ada", "password": PASSWORD}
        for query in ("", "?cookie=false"):
            response = await client.post(f"/auth/login{query}", data=form)
            assert "set-cookie" not in response.headers
            assert response.json()["refresh_token"]


class TestUse:
    async def test_refresh_rotates_the_cookie(self, client: httpx.AsyncClient, cookie: str) -> None:
        response = await client.post("/auth/refresh", headers={"Cookie": cookie})
        assert response.status_code == 200
        assert response.json()["refresh_token"] is None
        morsel = cookie_of(response)
        assert flags(morsel) == {**FLAGS, "max-age": str(THIRTY_DAYS)}
        assert morsel.value not in cookie
        headers = {"Authorization": f"Bearer {response.json()['access_token']}"}
        assert (await client.get("/auth/me", headers=headers)).status_code == 200

    async def test_logout_deletes_the_cookie_and_ends_the_session(
        self, client: httpx.AsyncClient, cookie: str
    ) -> None:
        response = await client.post("/auth/logout", headers={"Cookie": cookie})
        assert response.status_code == 204
        morsel = cookie_of(response)
        assert morsel.value == ""
        assert flags(morsel) == {**FLAGS, "max-age": "0", "expires": morsel["expires"]}
        refused = await client.post("/auth/refresh", headers={"Cookie": cookie})
        assert refused.status_code == 401

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/auth/me"),
            ("GET", "/users/me"),
            ("GET", "/auth/sessions"),
            ("PATCH", "/users/me"),
            ("POST", "/articles"),
            ("POST", "/auth/logout-all"),
            ("POST", "/users/me/api-keys"),
        ],
    )
    async def test_cookie_does_not_authenticate_requests(
        self, client: httpx.AsyncClient, cookie: str, method: str, path: str
    ) -> None:
        headers = {"Cookie": cookie, "Origin": OWN}
        body = {"name": "Mallory", "scopes": ["users:write"]} if method != "GET" else None
        response = await client.request(method, path, headers=headers, json=body)
        assert response.status_code == 401
        assert response.json()["code"] == "not_authenticated"

    async def test_cookie_does_not_show_drafts(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User, cookie: str
    ) -> None:
        draft = await create_article(session, author=user, published=False)
        headers = {"Cookie": cookie}
        assert (await client.get("/articles", headers=headers)).json() == []
        response = await client.get(f"/articles/{draft.id}", headers=headers)
        assert response.status_code == 404


@pytest.mark.parametrize("origin", REFUSED)
class TestCrossSite:
    """A page of another site, in a browser that ignores SameSite."""

    async def test_other_site_cannot_use_the_cookie(
        self, client: httpx.AsyncClient, cookie: str, origin: str
    ) -> None:
        for path in ("/auth/refresh", "/auth/logout"):
            response = await client.post(path, headers={"Cookie": cookie, **REFUSED[origin]})
            assert response.status_code == 403
            assert response.json()["code"] == "cross_site_request"
            assert "set-cookie" not in response.headers
        still = await client.post("/auth/refresh", headers={"Cookie": cookie})
        assert still.status_code == 200

    @pytest.mark.usefixtures("user")
    async def test_other_site_cannot_log_the_browser_in(
        self, client: httpx.AsyncClient, origin: str
    ) -> None:
        response = await log_in(client, **REFUSED[origin])
        assert response.status_code == 403
        assert response.json()["code"] == "cross_site_request"
        assert "set-cookie" not in response.headers


@pytest.mark.parametrize("origin", ACCEPTED)
async def test_own_pages_can_use_the_cookie(
    client: httpx.AsyncClient, user: User, origin: str
) -> None:
    response = await log_in(client, **ACCEPTED[origin])
    assert response.status_code == 200
    client.cookies.clear()
    headers = {"Cookie": f"refresh_token={cookie_of(response).value}", **ACCEPTED[origin]}
    assert (await client.post("/auth/refresh", headers=headers)).status_code == 200
    assert (await client.post("/auth/logout", headers=headers)).status_code == 204


async def test_wildcard_origin_does_not_allow_the_cookie(
    client: httpx.AsyncClient, cookie: str, install: Install
) -> None:
    install(CORS_ORIGINS="*")
    headers = {"Cookie": cookie, "Origin": ELSEWHERE}
    response = await client.post("/auth/refresh", headers=headers)
    assert response.status_code == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://localhost:5173", 200), ("http://localhost.evil.example:5173", 403)],
)
async def test_any_port_of_a_development_server_can_use_the_cookie(
    client: httpx.AsyncClient, cookie: str, install: Install, origin: str, status: int
) -> None:
    install(CORS_ORIGINS="http://localhost:*")
    headers = {"Cookie": cookie, "Origin": origin}
    assert (await client.post("/auth/refresh", headers=headers)).status_code == status
