"""Articles and lists as Markdown documents, and /llms.txt."""

import re
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request

from app.core import clock
from app.core.config import PROJECT_DIR
from app.http.negotiation import prefers_markdown
from app.services.bulk import front_matter
from tests.factories import bearer, create_article, create_user

MARKDOWN = {"Accept": "text/markdown"}
TYPE = "text/markdown; charset=utf-8"


async def test_article_is_a_document_by_id_slug_and_file_name(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    author = await create_user(session, username="ada")
    article = await create_article(
        session,
        author=author,
        title="Engines: a *note*",
        content="# Hi\n\n---\n\nText",
        published=True,
    )
    paths = (f"/articles/{article.id}", f"/articles/by-slug/{article.slug}")
    responses = [await client.get(path, headers=MARKDOWN) for path in paths]
    responses.append(await client.get(f"/articles/{article.slug}.md"))
    for response in responses:
        assert response.status_code == 200
        assert response.headers["Content-Type"] == TYPE
        found = front_matter.split(response.text)
        assert found.content == "# Hi\n\n---\n\nText"
        assert found.values["title"] == "Engines: a *note*"
        assert found.values["slug"] == article.slug
        assert found.values["author"] == "ada"
        assert "imported" not in found.values
        assert response.content == responses[0].content


@pytest.mark.parametrize(
    ("accept", "is_markdown"),
    [
        ("text/markdown", True),
        ("Text/Markdown", True),
        ("text/markdown; charset=utf-8; variant=CommonMark", True),
        ("text/markdown, text/html, */*", True),
        ("text/markdown, */*;q=0.1", True),
        ("text/html, text/markdown;q=0.9", True),
        ("application/json;q=0.5, text/markdown;q=0.6", True),
        ("application/json, text/markdown", False),
        ("text/markdown;q=0.5, application/json", False),
        ("text/markdown;q=0.5, application/*", False),
        ("text/markdown;q=0.5, */*", False),
        ("text/markdown;q=0", False),
        ("text/markdown;q=nan", False),
        ("text/markdown;q=-1", False),
        ("text/markdown;q=", False),
        ("text/*", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        ("image/png", False),
        ("text/markdownish", False),
        ("", False),
        (",;,=", False),
    ],
)
async def test_accept_selects_the_representation(
    client: httpx.AsyncClient, session: AsyncSession, accept: str, is_markdown: bool
) -> None:
    article = await create_article(session, author=await create_user(session), published=True)
    for path in (f"/articles/{article.id}", f"/articles/by-slug/{article.slug}", "/articles"):
        response = await client.get(path, headers={"Accept": accept})
        assert response.status_code == 200
        expected = TYPE if is_markdown else "application/json"
        assert response.headers["Content-Type"] == expected
        assert response.headers["Vary"] == "Authorization, Accept, Origin"


@pytest.mark.checkout
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    "text/markdown",
                    "Text/MARKDOWN",
                    "text/markdown;q=0.5",
                    "text/markdown ;\tQ = 0",
                    "text/markdown;\x1cq=0",
                    "text/markdown\x0b",
                    "text/markdown;x=q",
                    'text/markdown;x="a',
                    "text/markdownish",
                    "text/html",
                    "application/json",
                    "application/json;q=0.1",
                    "application/*",
                    "*/*",
                    "*/*;q=0.9",
                    "markdown",
                ]
            ),
            st.text(alphabet=",;=q0.1/* \tmarkdown\x0b\xa0", max_size=12),
        ),
        max_size=4,
    ),
    st.sampled_from([",", ", ", " ,\t", ";"]),
)
@example(["text/markdown\x0b"], ",")
@example(["text/markdown;\x1cq=0"], ",")
def test_nginx_knows_the_representation(items: list[str], separator: str) -> None:
    """nginx stores both forms of a page, and must not mistake one for the other."""
    accept = separator.join(items)
    sent = Request({"type": "http", "headers": [(b"accept", accept.encode("latin-1"))]})
    form = next((form for pattern, form in edge_forms() if pattern.search(accept)), "")
    if form != "unclear":
        assert prefers_markdown(sent) == (form == "markdown")


@cache
def edge_forms() -> Sequence[tuple[re.Pattern[str], str]]:
    """Return the patterns of `$edge_form` in the configuration of nginx, in their order."""
    template = (PROJECT_DIR / "nginx" / "templates" / "edge.conf.template").read_text()
    block = template.partition("map $http_accept $edge_form {")[2].partition("\n}")[0]
    found = re.findall(r'"~\*(.+)" (\w+);', block)
    assert len(found) == 4
    return [(re.compile(pattern, re.ASCII | re.IGNORECASE), form) for pattern, form in found]


async def test_several_accept_headers_are_combined(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    article = await create_article(session, author=await create_user(session), published=True)
    lines = [("Accept", "application/json"), ("Accept", "text/markdown;q=0.1")]
    response = await client.get(f"/articles/{article.id}", headers=lines)
    assert response.headers["Content-Type"] == "application/json"


async def test_representations_have_own_entity_tags(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    article = await create_article(session, author=await create_user(session), published=True)
    path = f"/articles/{article.id}"
    as_json, as_markdown = await client.get(path), await client.get(path, headers=MARKDOWN)
    tag = as_markdown.headers["ETag"]
    assert as_json.headers["ETag"] != tag
    assert as_json.headers["Cache-Control"] == as_markdown.headers["Cache-Control"]
    known = await client.get(path, headers={**MARKDOWN, "If-None-Match": tag})
    assert (known.status_code, known.content, known.headers["ETag"]) == (304, b"", tag)
    assert "Accept" in known.headers["Vary"]
    other = await client.get(path, headers={"If-None-Match": tag})
    assert other.status_code == 200
    head = await client.head(path, headers=MARKDOWN)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == as_markdown.headers["Content-Length"]
    stale = await client.get(path, headers={**MARKDOWN, "If-Match": as_json.headers["ETag"]})
    assert stale.status_code == 412


async def test_errors_stay_json(client: httpx.AsyncClient) -> None:
    for path in ("/articles/1", "/articles/by-slug/nothing", "/articles/nothing.md"):
        response = await client.get(path, headers=MARKDOWN)
        assert response.status_code == 404
        assert response.json()["code"] == "article_not_found"


async def test_drafts_are_visible_to_their_author_only(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    author, other = await create_user(session), await create_user(session)
    draft = await create_article(session, author=author, title="Secret plan", published=False)
    for path in (f"/articles/{draft.id}", f"/articles/{draft.draft_slug or draft.slug}.md"):
        for caller in ({}, bearer(other)):
            response = await client.get(path, headers={**MARKDOWN, **caller})
            assert response.status_code == 404
        own = await client.get(path, headers={**MARKDOWN, **bearer(author)})
        assert own.headers["Cache-Control"] == "private, no-cache"
        assert front_matter.split(own.text).values["draft"] == "true"
    listed = await client.get("/articles", headers={**MARKDOWN, **bearer(author)})
    assert "Secret plan" in listed.text
    assert "(draft)" in listed.text
    assert "Secret plan" not in (await client.get("/articles", headers=MARKDOWN)).text
    assert "Secret plan" not in (await client.get("/llms.txt", headers=bearer(author))).text


async def test_former_slug_leads_to_the_document(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    author = await create_user(session)
    article = await create_article(session, author=author, published=True)
    former = article.slug
    changed = await client.patch(
        f"/articles/{article.id}", json={"slug": "newer"}, headers=bearer(author)
    )
    assert changed.status_code == 200
    moved = await client.get(f"/articles/by-slug/{former}", headers=MARKDOWN)
    assert moved.status_code == 301
    document = await client.get(f"/articles/{former}.md")
    assert front_matter.split(document.text).values["slug"] == "newer"


async def test_document_is_the_exported_one_and_can_be_imported(
    client: httpx.AsyncClient, session: AsyncSession, tmp_path: Path
) -> None:
    author = await create_user(session, username="ada")
    body = {
        "title": 'A: "quoted" title',
        "content": "Text with\n\n    code\n\nand — dashes\n",
        "excerpt": "Own excerpt",
        "tags": ["Zebra", "apple"],
        "language": "de",
        "published": True,
        "comment_policy": "held",
        "cover_image_url": "https://example.com/a.png",
    }
    created = await client.post("/articles", json=body, headers=bearer(author))
    slug = created.json()["slug"]
    document = (await client.get(f"/articles/{slug}.md")).content
    exported = await client.get(
        "/articles/export", params={"format": "markdown"}, headers=bearer(author)
    )
    assert document in _files(exported.content)
    trashed = await client.delete(f"/articles/{created.json()['id']}", headers=bearer(author))
    assert trashed.status_code == 204
    found = front_matter.split(document.decode())
    assert found.values["tags"] == ["Zebra", "apple"]
    assert found.values["description"] == "Own excerpt"
    assert found.content == body["content"]


def _files(archive: bytes) -> list[bytes]:
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return [opened.read(name) for name in opened.namelist()]


async def test_list_is_a_document_with_links_and_pages(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    author = await create_user(session)
    for number in range(3):
        await create_article(session, author=author, title=f"[{number}] <b>", published=True)
    first = await client.get("/articles?limit=2&count=true", headers=MARKDOWN)
    found = front_matter.split(first.text)
    assert found.values["total"] == "3"
    assert first.headers["X-Total-Count"] == "3"
    assert f'<{found.values["next"]}>; rel="next"' in first.headers["Link"]
    assert r"- [\[2\] \<b\>](" in found.content
    second = await client.get(found.values["next"], headers=MARKDOWN)
    assert r"\[0\]" in second.text
    assert "prev" in front_matter.split(second.text).values
    lines = [line for line in found.content.splitlines() if line]
    link = lines[0].partition("](")[2].partition(")")[0]
    assert (await client.get(httpx.URL(link).raw_path.decode())).headers["Content-Type"] == TYPE


async def test_feed_of_followed_authors_is_a_document(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    author, reader = await create_user(session, username="ada"), await create_user(session)
    await create_article(session, author=author, title="Followed", published=True)
    await client.put("/profiles/ada/follow", headers=bearer(reader))
    response = await client.get("/feed", headers={**MARKDOWN, **bearer(reader)})
    assert response.headers["Content-Type"] == TYPE
    assert "[Followed]" in response.text


async def test_llms_txt_has_the_format_and_only_what_is_public(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    author = await create_user(session)
    article = await create_article(session, author=author, title="Public", published=True)
    tagged = {"title": "Best", "content": "Text enough", "tags": ["Featured"], "published": True}
    await client.post("/articles", json=tagged, headers=bearer(author))
    await create_article(session, author=author, title="Draft", published=False)
    later = clock.now() + timedelta(days=1)
    await create_article(session, author=author, title="Scheduled article", published_at=later)
    response = await client.get("/llms.txt")
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["Cache-Control"].startswith("public, max-age=300")
    lines = response.text.splitlines()
    assert lines[0].startswith("# ")
    assert lines[2].startswith("> ")
    sections = [line for line in lines if line.startswith("## ")]
    assert sections == ["## Featured", "## Newest articles", "## API", "## Optional"]
    assert f"/articles/{article.slug}.md)" in response.text
    assert "Draft" not in response.text
    assert "Scheduled article" not in response.text
    again = await client.get("/llms.txt", headers={"If-None-Match": response.headers["ETag"]})
    assert again.status_code == 304
    assert (await client.head("/llms.txt")).status_code == 200


async def test_generated_clients_get_json_alone(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    for path in ("/articles", "/articles/{article_id}", "/articles/by-slug/{slug}", "/feed"):
        assert set(paths[path]["get"]["responses"]["200"]["content"]) == {"application/json"}
        assert "text/markdown" in paths[path]["get"]["description"]
    document = paths["/articles/{slug}.md"]["get"]["responses"]["200"]["content"]
    assert set(document) == {"text/markdown"}
