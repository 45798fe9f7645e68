"""The main path: register, log in, create a draft, publish it, list articles."""

import httpx


async def test_new_user_can_register_log_in_publish_and_list_articles(
    client: httpx.AsyncClient,
) -> None:
    account = {
        "email": "ada@example.com",
        "username": "ada",
        "name": "Ada Lovelace",
        "password": "correct horse battery",
    }
    registered = await client.post("/users", json=account)
    assert registered.status_code == 201
    assert registered.json()["username"] == "ada"

    form = {"username": "ada", "password": account["password"]}
    token = (await client.post("/auth/login", data=form)).json()
    assert token["token_type"] == "bearer"
    headers = {"Authorization": f"Bearer {token['access_token']}"}

    draft = {"title": "Notes", "content": "The engine weaves patterns."}
    article = (await client.post("/articles", json=draft, headers=headers)).json()
    assert article["published"] is False
    assert (await client.get("/articles")).json() == []

    url = f"/articles/{article['id']}"
    published = await client.patch(url, json={"published": True}, headers=headers)
    assert published.status_code == 200
    listed = (await client.get("/articles")).json()
    assert [entry["title"] for entry in listed] == ["Notes"]
    assert listed[0]["author"]["username"] == "ada"
