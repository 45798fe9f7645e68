"""Every operation of the RealWorld API, held against its own description."""

import httpx
from fastapi import FastAPI

from tests.conduit import playing
from tests.conduit.contract import PREFIX, Conduit, operations


async def test_every_operation_gives_every_answer_that_the_description_has(
    client: httpx.AsyncClient,
) -> None:
    conduit = Conduit(client)
    await playing.drive(conduit)
    missing = playing.expected() - conduit.seen
    assert not missing


async def test_two_users_do_all_that_a_front_end_does(client: httpx.AsyncClient) -> None:
    await playing.play(Conduit(client))


async def test_our_own_description_has_the_same_operations(client: httpx.AsyncClient) -> None:
    document = (await client.get(f"{PREFIX}/openapi.json")).json()
    ours = [(method.upper(), path) for path, item in document["paths"].items() for method in item]
    assert len(ours) == len(operations()) == 19
    for method, path in ours:
        concrete = path.replace("{slug}", "s").replace("{username}", "u").replace("{id}", "1")
        assert any(
            each.method == method and each.path.fullmatch(concrete) for each in operations()
        ), (method, path)


async def test_it_can_be_switched_off(settings, database) -> None:  # type: ignore[no-untyped-def]  # fixtures
    from app.main import create_app

    app: FastAPI = create_app(settings.model_copy(update={"conduit_api": False}))
    app.state.database = database
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        response = await client.get(f"{PREFIX}/articles")
    assert response.status_code == 404
    assert response.json()["code"] == "not_found"
