"""The token of a preview link is not logged, for all spellings of the URL."""

import pytest

from tests.processes import Api, wait_until

pytestmark = pytest.mark.e2e

DRAFT = {"title": "A secret", "content": "Not for everybody yet."}


def test_preview_token_is_not_logged(api: Api) -> None:
    headers = api.bearer("previewer")
    article = api.client.post("/articles", json=DRAFT, headers=headers).json()
    made = api.client.post(f"/articles/{article['id']}/preview-links", headers=headers)
    link = made.json()
    token = link["token"]
    encoded = "".join(f"%{ord(letter):02x}" for letter in token)
    for path, status in (
        (f"/previews/{token}", 200),
        (f"/previews/{encoded}", 200),
        (f"/previews/{token}/", 200),
        (f"/previews/{token}/revisions", 404),
        (f"/previews/{token[:-1]}", 404),
        (f"//previews/{token}", 404),
        (f"/preview/{token}", 404),
        (f"/articles/{token}", 422),
        (f"/previews/{token}?x={token}", 422),
    ):
        answer = api.client.get(api.url + path)
        assert answer.status_code == status, path
    marker = "the-last-request"
    api.client.get(f"/{marker}")
    wait_until(lambda: marker in api.process.log, "the requests are logged")
    assert token[4:-1] not in api.process.log
    assert encoded not in api.process.log
    assert "/previews/***" in api.process.log
