"""Streams and sockets through nginx: not buffered, not cached, and limited per address."""

import json
from contextlib import ExitStack

import httpx
from websockets.sync.client import connect

from tests.edge.stack import Stack, publish, register
from tests.processes import DEADLINE

PATH = "/changes/stream"


def test_stream_is_passed_on_at_once(stack: Stack, client: httpx.Client) -> None:
    author = register(client)
    with client.stream("GET", PATH, timeout=DEADLINE) as response:
        assert response.status_code == 200
        assert "X-Cache" not in response.headers
        lines = response.iter_lines()
        assert next(lines).startswith("retry: ")
        assert any(line.startswith("id: ") for line in lines)
        article = publish(client, author)
        data = next(line for line in lines if line.startswith("data: "))
    assert json.loads(data.removeprefix("data: "))["article_id"] == article["id"]


def test_socket_is_passed_on(stack: Stack, client: httpx.Client) -> None:
    author = register(client)
    token = author["Authorization"].removeprefix("Bearer ")
    url = f"{stack.url.replace('http', 'ws', 1)}/live"
    with connect(url, compression=None, open_timeout=DEADLINE) as socket:
        socket.send(json.dumps({"type": "authenticate", "token": token}))
        socket.send(json.dumps({"type": "subscribe", "topic": "changes", "id": 1}))
        messages = [json.loads(socket.recv(DEADLINE)) for _ in range(3)]
        assert [each["type"] for each in messages] == ["ready", "subscribed", "done"]
        article = publish(client, author)
        event = json.loads(socket.recv(DEADLINE))
    assert event["data"]["article_id"] == article["id"]


def test_one_address_has_a_limited_number_of_streams(stack: Stack) -> None:
    with (
        stack.additional_nginx(EDGE_STREAMS_PER_ADDRESS="3") as other,
        ExitStack() as opened,
        other.client() as client,
    ):
        for _ in range(3):
            response = opened.enter_context(client.stream("GET", PATH))
            assert response.status_code == 200
        refused = client.get(PATH)
        assert refused.status_code == 429
        assert refused.json()["code"] == "too_many_requests"
        assert client.get("/articles").status_code == 200
