"""Redirects from old addresses: served below REDIRECTS_PREFIX, and written as maps."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.config import Settings, SettingsError, get_settings
from app.core.enums import Role
from app.db.session import Database
from app.main import create_app
from app.models import Article, Redirect
from app.services.bulk.paths import old_path, spellings
from app.services.bulk.redirects import MapFormat, MapWriter, OldPage, map_files, write_maps
from tests.bulk.exports import wordpress_post, wxr
from tests.bulk.test_cli import ADA, Write, write
from tests.commands import run
from tests.databases import execute
from tests.factories import bearer, create_article, create_session, create_user

__all__ = ["write"]

PAGE = "http://localhost:8000/read/articles/"
NOW = clock.now()


@pytest.fixture
async def old_site(settings: Settings, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of an application that serves redirects below /old."""
    app = create_app(settings.model_copy(update={"redirects_prefix": "/old"}))
    app.state.database = database
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def add(
    session: AsyncSession,
    path: str,
    article: Article,
    *,
    source: str = "blog",
    is_served: bool = True,
    days: int = 0,
) -> None:
    redirect = Redirect(
        path=old_path(path),
        source=source,
        article_id=article.id,
        created_at=NOW - timedelta(days=days),
        is_served=is_served,
    )
    session.add(redirect)
    await session.flush()


class TestServing:
    @pytest.mark.parametrize(
        ("path", "address"),
        [
            ("/2020/01/name/", "/2020/01/name/"),
            ("/2020/01/name/", "/2020/01/name"),
            ("/2020/01/name/", "/2020//01/name/?utm_source=x&y"),
            ("/2020/01/name/", "/2020/01/name/index.html"),
            ("/2020/01/name/", "/index.php/2020/01/name/"),
            ("/2020/01/name/", "/2020/01/name/amp/"),
            ("/name.html", "/name.html"),
            ("/name.html", "/name"),
            ("/?p=17", "/?p=17"),
            ("/?p=17", "/?preview=1&p=17"),
            ("/café/", "/caf%c3%a9/"),
            ("/北京/", "/%E5%8C%97%E4%BA%AC"),
            ("/a b;c$d&e'f\"g/", "/a%20b;c$d&e'f%22g/"),
            ("/100%25/", "/100%25/"),
        ],
    )
    async def test_old_path_leads_to_the_article(
        self, old_site: httpx.AsyncClient, session: AsyncSession, path: str, address: str
    ) -> None:
        article = await create_article(session, author=await create_user(session))
        await add(session, path, article)
        response = await old_site.get(f"/old{address}")
        assert response.status_code == 301
        assert response.headers["Location"] == PAGE + article.slug
        assert response.headers["Cache-Control"] == "private, max-age=300"
        assert (await old_site.head(f"/old{address}")).status_code == 301

    @pytest.mark.parametrize("state", ["draft", "scheduled", "archived", "deleted"])
    async def test_articles_that_are_not_public_are_not_found(
        self, old_site: httpx.AsyncClient, session: AsyncSession, state: str
    ) -> None:
        article = await create_article(session, author=await create_user(session))
        values: dict[str, dict[str, Any]] = {
            "draft": {"published_at": None},
            "scheduled": {"published_at": NOW + timedelta(days=1)},
            "archived": {"archived_at": NOW},
            "deleted": {"deleted_at": NOW},
        }
        for name, value in values[state].items():
            setattr(article, name, value)
        await add(session, "/name/", article)
        response = await old_site.get("/old/name/")
        assert response.status_code == 404
        assert response.json()["code"] == "not_found"

    @pytest.mark.parametrize(
        "address",
        ["", "/", "/other/", "//evil.example/", "/https://evil.example/", "/..%2f..%2fname/",
         "/%00", "/%ff", "/?p=18", "/?p=x", "/" + "a" * 5000],
    )  # fmt: skip
    async def test_other_paths_are_not_found(
        self, old_site: httpx.AsyncClient, session: AsyncSession, address: str
    ) -> None:
        await add(
            session, "/name/", await create_article(session, author=await create_user(session))
        )
        response = await old_site.get(f"/old{address}")
        assert (response.status_code, response.json()["code"]) == (404, "not_found")

    async def test_oldest_redirect_counts(
        self, old_site: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author = await create_user(session)
        first, second, draft = [await create_article(session, author=author) for _ in range(3)]
        draft.published_at = None
        await add(session, "/name/", second, source="b", days=1)
        await add(session, "/name/", first, source="c", days=2)
        await add(session, "/name/", draft, source="d", days=3)
        await add(session, "/name/", second, source="user 1: a", is_served=False, days=4)
        response = await old_site.get("/old/name/")
        assert response.headers["Location"] == PAGE + first.slug

    @pytest.mark.parametrize(
        ("role", "status"), [(Role.AUTHOR, 404), (Role.EDITOR, 301), (Role.ADMIN, 301)]
    )
    async def test_imports_of_authors_do_not_redirect(
        self,
        old_site: httpx.AsyncClient,
        session: AsyncSession,
        role: Role,
        status: int,
    ) -> None:
        user = await create_user(session, role=role)
        record = {"title": "A", "content": "Text.", "published": True, "old_paths": ["/name/"]}
        headers = bearer(user, await create_session(session, user=user))
        response = await old_site.post(
            "/articles/import",
            content=json.dumps(record),
            headers={**headers, "Content-Type": "application/x-ndjson"},
        )
        assert response.json()["created"] == 1
        assert (await old_site.get("/old/name/")).status_code == status

    async def test_it_is_off_by_default(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        await add(
            session, "/name/", await create_article(session, author=await create_user(session))
        )
        assert get_settings().redirects_prefix == ""
        assert (await client.get("/old/name/")).status_code == 404

    @pytest.mark.parametrize("prefix", ["/articles", "/media/old", "/api", "/health"])
    def test_prefix_must_not_be_a_path_of_the_api(self, settings: Settings, prefix: str) -> None:
        with pytest.raises(SettingsError, match="is a path of the API"):
            create_app(settings.model_copy(update={"redirects_prefix": prefix}))

    @pytest.mark.parametrize(
        ("value", "prefix"),
        [("", ""), ("/old", "/old"), ("/old/", "/old"), ("/a/b-c", "/a/b-c"), ("old", None),
         ("/", None), ("/a b", None), ("/../x", None), ("/{x}", None), ("//x", None)],
    )  # fmt: skip
    def test_prefix_is_a_path(self, value: str, prefix: str | None) -> None:
        if prefix is None:
            with pytest.raises(ValueError, match="must be a path"):
                Settings(redirects_prefix=value)
        else:
            assert Settings(redirects_prefix=value).redirects_prefix == prefix


PAGES = [
    OldPage("/", "/a"),
    OldPage("/2020/01/name/", "/articles/name"),
    OldPage("/?p=17", "/articles/name"),
    OldPage("/Name/", "/articles/other"),
    OldPage("/blog/?page_id=3", "https://x.example/$a"),
    OldPage("/caf%C3%A9/", "/articles/cafe"),
    OldPage("/name", "/articles/name"),
    OldPage("/a%20b;c$d%22e%5C%7B:x/*", "/articles/odd"),
]


def written(form: MapFormat, pages: list[OldPage]) -> str:
    file = BytesIO()
    writer = MapWriter(file, form)
    for page in pages:
        writer.add(page)
    writer.close()
    return file.getvalue().decode()


class TestMaps:
    def test_json(self) -> None:
        assert json.loads(written(MapFormat.JSON, PAGES)) == dict(PAGES)
        assert json.loads(written(MapFormat.JSON, [])) == {}

    def test_netlify(self) -> None:
        lines = written(MapFormat.NETLIFY, PAGES).splitlines()
        assert lines == [
            "/ /a 301",
            "/2020/01/name/ /articles/name 301",
            "/ p=17 /articles/name 301",
            "/Name/ /articles/other 301",
            "/blog/ page_id=3 https://x.example/$a 301",
            "/caf%C3%A9/ /articles/cafe 301",
            "/name /articles/name 301",
            "/a%20b;c$d%22e%5C%7B%3Ax/%2A /articles/odd 301",
        ]
        assert all(len(line.split(" ")) in {3, 4} for line in lines)

    def test_nginx(self) -> None:
        text = written(MapFormat.NGINX, PAGES)
        entries = [line.strip() for line in text.splitlines() if line.startswith('  "/')]
        assert entries == [
            '"/" "/a";',
            '"/2020/01/name" "/articles/name";',
            '"/Name" "/articles/other";',
            '"/café" "/articles/cafe";',
            '"/a b;c$d\\"e\\\\{:x/*" "/articles/odd";',
            '"/?p=17" "/articles/name";',
            '"/blog?page_id=3" "https://x.example/%24a";',
        ]  # nginx ignores the case of keys: `/name` would be a second `/Name`
        assert "map_hash_bucket_size 128;" in text
        long = written(MapFormat.NGINX, [OldPage("/" + "a" * 900, "/a")] * 3000)
        assert "map_hash_bucket_size 1024;" in long

    @pytest.mark.parametrize(
        ("name", "files"),
        [
            ("map.json", {"map.json": MapFormat.JSON}),
            ("map.conf", {"map.conf": MapFormat.NGINX}),
            ("old.map", {"old.map": MapFormat.NGINX}),
            ("_redirects", {"_redirects": MapFormat.NETLIFY}),
            (
                "old",
                {
                    "old.conf": MapFormat.NGINX,
                    "old_redirects": MapFormat.NETLIFY,
                    "old.json": MapFormat.JSON,
                },
            ),
        ],
    )
    def test_name_decides_the_format(self, name: str, files: dict[str, MapFormat]) -> None:
        assert {path.name: form for path, form in map_files(Path(name)).items()} == files

    async def test_map_has_the_redirects_that_are_served(
        self, session: AsyncSession, database: Database
    ) -> None:
        author = await create_user(session)
        first, second, draft = [await create_article(session, author=author) for _ in range(3)]
        draft.published_at = None
        await add(session, "/both/", second, source="https://a.example", days=1)
        await add(session, "/both/", first, source="https://b.example", days=2)
        await add(session, "/own/", second, source="https://a.example")
        await add(session, "/draft/", draft, source="https://a.example")
        await add(session, "/user/", first, source="user 1: a", is_served=False)
        expected = {
            None: {"/both/": first, "/own/": second},
            "https://a.example": {"/both/": second, "/own/": second},
        }
        for source, targets in expected.items():
            file = BytesIO()
            sources = None if source is None else [source]
            count = await write_maps(database, {file: MapFormat.JSON}, sources=sources)
            pages = {path: f"/read/articles/{article.slug}" for path, article in targets.items()}
            assert (json.loads(file.getvalue()), count) == (pages, 2)

    @pytest.mark.parametrize(
        ("site", "start"),
        [
            ("", "/read/articles/"),
            ("http://www.localhost:8000/x", "/read/articles/"),
            ("https://a.b", PAGE),
        ],
    )
    async def test_target_is_complete_for_another_host(
        self, session: AsyncSession, database: Database, site: str, start: str
    ) -> None:
        article = await create_article(session, author=await create_user(session))
        await add(session, "/name/", article)
        file = BytesIO()
        await write_maps(database, {file: MapFormat.JSON}, site=site)
        assert json.loads(file.getvalue()) == {"/name/": start + article.slug}


@pytest.mark.usefixtures("restored_environment")
def test_commands_write_maps(
    own_database: str, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(own_database, ADA)
    path = write("wp.xml", wxr(wordpress_post(1) + wordpress_post(2, status="private")))
    arguments = ("import", str(path), "--author", "ada", "--source", "https://wp.example.com")
    target = tmp_path / "map.json"
    assert run(*arguments, "--redirects", str(target), "--dry-run") == 0
    assert not target.exists()
    capsys.readouterr()
    assert run(*arguments, "--redirects", str(target)) == 0
    assert "Redirects written: 2, to articles that are public\n" in capsys.readouterr().out
    expected = {"/?p=1": f"{PAGE}post-1", "/post-1/": f"{PAGE}post-1"}
    assert json.loads(target.read_text()) == expected
    for source in ((), ("--source", "http://www.wp.example.com/")):
        assert run("redirects", "export", str(tmp_path / "all"), *source) == 0
        assert capsys.readouterr().out == "Exported 2 redirects\n"
    assert json.loads((tmp_path / "all.json").read_text()) == expected
    assert (tmp_path / "all_redirects").read_text() == (
        f"/ p=1 {PAGE}post-1 301\n/post-1/ {PAGE}post-1 301\n"
    )
    assert run("redirects", "export", str(tmp_path / "no/map.json")) == 1


@pytest.mark.parametrize("path", ["/", "/a/", "/?p=1", "/index.php", "/a.html", "/amp", "//"])
def test_spellings_contain_the_path(path: str) -> None:
    assert path in spellings(path) or path in {"/", "//"}
