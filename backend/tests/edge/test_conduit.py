"""The RealWorld API through nginx: its contract, and nginx's own errors in its format."""

import httpx

from tests.conduit import scenarios
from tests.conduit.contract import ERROR, Conduit, validate
from tests.edge.stack import Stack


async def test_contract_with_two_users(stack: Stack) -> None:
    async with httpx.AsyncClient(base_url=stack.url, timeout=30) as client:
        conduit = Conduit(client)
        await scenarios.call_every_operation(conduit)
        assert not scenarios.expected() - conduit.validated
        await scenarios.run_with_two_users(conduit)


async def test_requests_with_a_token_bypass_the_cache(stack: Stack) -> None:
    async with httpx.AsyncClient(base_url=stack.url, timeout=30) as client:
        first = await client.get("/api/articles?limit=7")
        again = await client.get("/api/articles?limit=7")
        assert first.status_code == again.status_code == 200
        assert again.headers["X-Cache"] in {"HIT", "UPDATING", "STALE"}
        headers = {"Authorization": "Token not.a.token"}
        passed = await client.get("/api/articles?limit=7", headers=headers)
        assert passed.status_code == 200
        assert passed.headers["X-Cache"] == "BYPASS"
        headers = {"Authorization": "Bearer not.a.token"}
        assert (await client.get("/articles?limit=7", headers=headers)).status_code == 401


async def test_errors_of_nginx_have_the_realworld_format(stack: Stack) -> None:
    async with httpx.AsyncClient(base_url=stack.url, timeout=30) as client:
        large = await client.post(
            "/api/articles",
            content=b"x" * (5 * 1024 * 1024),
            headers={"Content-Type": "application/json"},
        )
        assert large.status_code == 413
        validate(large.json(), ERROR)
        assert large.json()["errors"] == {"request": ["The request body is too large"]}
        native = await client.post("/articles", content=b"x" * (5 * 1024 * 1024))
        assert native.json()["code"] == "content_too_large"
        unknown = await client.get("/api/articles", headers={"Host": "elsewhere.example"})
        assert unknown.status_code == 421
        validate(unknown.json(), ERROR)


async def test_allowed_origins_get_cors_headers(stack: Stack) -> None:
    async with httpx.AsyncClient(base_url=stack.url, timeout=30) as client:
        preflight = await client.options(
            "/api/articles",
            headers={
                "Origin": "https://www.example.com",
                "Access-Control-Request-Method": "PUT",
                "Access-Control-Request-Headers": "authorization,content-type,x-requested-with",
            },
        )
        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == "https://www.example.com"
