"""Feeds, sitemaps and robots.txt: validity and conditional requests."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any

import feedparser
import httpx
import pytest
from lxml import etree
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.core.config import get_settings
from app.http.caching import public
from app.models import Article
from app.services.feeds.contents import MAX_HTML_BYTES, MAX_ITEMS
from app.services.feeds.sitemap import MAX_URLS
from tests.factories import create_article, create_articles, create_user
from tests.security.conftest import Install, install
from tests.test_lists import statements

__all__ = ["install"]

MEDIA_TYPES = {
    "feed.xml": "application/rss+xml; charset=utf-8",
    "atom.xml": "application/atom+xml; charset=utf-8",
    "feed.json": "application/feed+json",
}
HUGE = "Thu, 01 Jan 2026 00:00:00 +9999999999999999999999"
FORMATS = list(MEDIA_TYPES)
DOCUMENTS = [*(f"/{name}" for name in FORMATS), "/sitemap.xml"]
ATOM = "{http://www.w3.org/2005/Atom}"
SITEMAP = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
SPECIAL_TITLES = [
    "Less < more & ]]> than &amp; \"quoted\" 'twice'",
    "Emoji 🧑‍🚀 beyond the BMP 𒀀𒀁 𓂀",
    "עברית and العربية in one line",
    "<script>alert(1)</script>",
    "Spaces\u2003of\u00a0many kinds",
]


def parsed(response: httpx.Response) -> Any:
    """Parse an XML feed with feedparser, without warnings."""
    assert response.status_code == 200, response.text
    found = feedparser.parse(
        response.content, response_headers={"content-type": response.headers["Content-Type"]}
    )
    assert not found.bozo, found.get("bozo_exception")
    return found


async def titles(client: httpx.AsyncClient, path: str) -> list[str]:
    """Return the titles in a feed of any format."""
    response = await client.get(path)
    if path.endswith(".json"):
        return [item["title"] for item in response.json()["items"]]
    return [entry.title for entry in parsed(response).entries]


def addresses(response: httpx.Response) -> list[str]:
    """Return the URLs in a sitemap or an index, which must match the schema."""
    assert response.status_code == 200, response.text
    schema = etree.XMLSchema(etree.parse(Path(__file__).with_name("sitemap.xsd")))
    document = etree.fromstring(response.content)
    schema.assertValid(document)
    assert len(response.content) < 50 * 1024 * 1024
    return [element.text for element in document.iter(f"{SITEMAP}loc")]


@pytest.fixture
async def article(session: AsyncSession) -> Article:
    author = await create_user(session, name="Ada & <Lovelace>", username="ada.l")
    return await create_article(
        session,
        author=author,
        title=SPECIAL_TITLES[0],
        content="Words with **weight**, a [link](/elsewhere) & an entity: &copy; ]]> end.",
        slug="notes-on-engines",
        tags=["Engines & more", "mathematics"],
        published_at=datetime(2026, 5, 1, 12, 30, 15, 123456, UTC),
        updated_at=datetime(2026, 5, 2, 8, 0, tzinfo=UTC),
        language="de",
        cover_image_url="/media/a/b.webp?x=1&y=2",
    )


class TestContents:
    @pytest.mark.parametrize("name", ["feed.xml", "atom.xml"])
    async def test_xml_feeds_contain_the_article(
        self, client: httpx.AsyncClient, article: Article, name: str
    ) -> None:
        response = await client.get(f"/{name}")
        assert response.headers["Content-Type"] == MEDIA_TYPES[name]
        found = parsed(response)
        assert found.feed.title == get_settings().site_title
        assert found.feed.link == "http://localhost:8000/read/"
        assert found.feed.language == "en"
        (entry,) = found.entries
        assert entry.title == article.title
        assert entry.link == "http://localhost:8000/read/articles/notes-on-engines"
        assert entry.id == f"http://localhost:8000/articles/{article.id}"
        assert entry.author == "Ada & <Lovelace>"
        assert [tag.term for tag in entry.tags] == ["Engines & more", "mathematics"]
        assert entry.published_parsed[:6] == (2026, 5, 1, 12, 30, 15)
        assert entry.summary == article.excerpt
        assert "**" not in entry.content[0].value
        assert entry.content[0].type == "text/html"

    @pytest.mark.parametrize("name", ["feed.xml", "atom.xml"])
    async def test_html_is_unchanged(
        self, client: httpx.AsyncClient, article: Article, name: str
    ) -> None:
        """Read without feedparser, which sanitises HTML and resolves links."""
        document = etree.fromstring((await client.get(f"/{name}")).content)
        found = [
            element.text
            for element in document.iter()
            if etree.QName(element).localname in {"encoded", "content"} and element.text
        ]
        assert found == [article.html]

    async def test_json_feed_contains_the_article(
        self, client: httpx.AsyncClient, article: Article
    ) -> None:
        response = await client.get("/feed.json")
        assert response.headers["Content-Type"] == MEDIA_TYPES["feed.json"]
        assert response.json() == {
            "version": "https://jsonfeed.org/version/1.1",
            "title": get_settings().site_title,
            "home_page_url": "http://localhost:8000/read/",
            "feed_url": "http://localhost:8000/feed.json",
            "language": "en",
            "items": [
                {
                    "id": f"http://localhost:8000/articles/{article.id}",
                    "url": "http://localhost:8000/read/articles/notes-on-engines",
                    "title": article.title,
                    "content_html": article.html,
                    "summary": article.excerpt,
                    "image": "http://localhost:8000/media/a/b.webp?x=1&y=2",
                    "date_published": "2026-05-01T12:30:15.123456Z",
                    "date_modified": "2026-05-02T08:00:00Z",
                    "authors": [
                        {
                            "name": "Ada & <Lovelace>",
                            "url": "http://localhost:8000/read/authors/ada.l",
                        }
                    ],
                    "tags": ["Engines & more", "mathematics"],
                    "language": "de",
                }
            ],
        }

    async def test_rss_is_valid(self, client: httpx.AsyncClient, article: Article) -> None:
        """RSS 2.0, "Required channel elements", and the Advisory Board's profile."""
        root = etree.fromstring((await client.get("/feed.xml")).content)
        assert (root.tag, root.get("version")) == ("rss", "2.0")
        (channel,) = root
        for name in ("title", "link", "description"):
            assert channel.findtext(name)
        link = channel.find(f"{ATOM}link")
        assert link is not None
        assert dict(link.attrib) == {
            "href": "http://localhost:8000/feed.xml",
            "rel": "self",
            "type": "application/rss+xml",
        }
        (item,) = channel.findall("item")
        assert item.find("guid").get("isPermaLink") == "false"
        assert item.findtext("pubDate") == "Fri, 01 May 2026 12:30:15 GMT"
        assert item.findtext("{http://purl.org/dc/elements/1.1/}creator") == "Ada & <Lovelace>"
        cover = item.find("{http://search.yahoo.com/mrss/}content")
        assert cover.get("url") == "http://localhost:8000/media/a/b.webp?x=1&y=2"

    async def test_atom_is_valid(
        self, client: httpx.AsyncClient, article: Article, session: AsyncSession
    ) -> None:
        """RFC 4287 §4.1.1 and §4.1.2."""
        author = await create_user(session)
        await create_article(session, author=author)
        root = etree.fromstring((await client.get("/atom.xml")).content)
        moment = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
        ids = set()
        assert root.tag == f"{ATOM}feed"
        for element in (root, *root.findall(f"{ATOM}entry")):
            for name in ("id", "title", "updated"):
                assert len(element.findall(f"{ATOM}{name}")) == 1
            assert moment.fullmatch(element.findtext(f"{ATOM}updated"))
            assert len(element.findall(f"{ATOM}link[@rel='alternate']")) == 1
            ids.add(element.findtext(f"{ATOM}id"))
        assert len(ids) == 3
        own = root.find(f"{ATOM}link[@rel='self']").get("href")
        assert own == root.findtext(f"{ATOM}id") == "http://localhost:8000/atom.xml"
        entry = root.findall(f"{ATOM}entry")[1]
        xml = "{http://www.w3.org/XML/1998/namespace}"
        assert entry.get(f"{xml}lang") == "de"
        assert len(entry.findall(f"{ATOM}author/{ATOM}name")) == 1
        assert entry.findtext(f"{ATOM}updated") == "2026-05-02T08:00:00.000000Z"
        content = entry.find(f"{ATOM}content")
        assert content.get("type") == "html"
        assert content.get(f"{xml}base") == "http://localhost:8000/read/articles/notes-on-engines"

    @pytest.mark.parametrize("name", FORMATS)
    async def test_special_characters_in_titles(
        self, client: httpx.AsyncClient, session: AsyncSession, name: str
    ) -> None:
        author = await create_user(session)
        for title in SPECIAL_TITLES:
            await create_article(session, author=author, title=title)
        root = (await client.get(f"/{name}")).content
        if name == "feed.json":
            assert await titles(client, f"/{name}") == SPECIAL_TITLES[::-1]
        else:  # read from the document: feedparser strips spaces and tags
            parsed(await client.get(f"/{name}"))
            found = etree.fromstring(root).iter("{*}title")
            assert [each.text for each in found][1:] == SPECIAL_TITLES[::-1]

    @pytest.mark.parametrize("name", FORMATS)
    async def test_invalid_xml_characters_are_removed(
        self, client: httpx.AsyncClient, session: AsyncSession, name: str
    ) -> None:
        """The API rejects it, but an import or an older release may have stored it."""
        odd = "Bell\x07 escape\x1b end\x7f \ufffe\uffff\ufffd\x85\u2028 tab\tdone"
        await create_article(
            session,
            author=await create_user(session, name="A\x08da"),
            title=odd,
            html=f"<p>{odd}</p>",
            excerpt=odd,
            tags=["t\x02ag"],
        )
        response = await client.get(f"/{name}")
        if name == "feed.json":
            assert response.json()["items"][0]["title"] == odd
            return
        parsed(response)
        root = etree.fromstring(response.content)
        title = [each.text for each in root.iter("{*}title")][1]
        assert title == "Bell escape end\x7f \ufffd\x85\u2028 tab\tdone"

    @pytest.mark.parametrize("name", FORMATS)
    async def test_long_article_is_replaced_by_excerpt(
        self, client: httpx.AsyncClient, session: AsyncSession, name: str
    ) -> None:
        author = await create_user(session)
        long, longest = "é" * (MAX_HTML_BYTES // 2 + 1), "é" * (MAX_HTML_BYTES // 2)
        await create_article(session, author=author, html=longest, excerpt="Fits")
        await create_article(session, author=author, html=long, excerpt="Too long")
        response = await client.get(f"/{name}")
        assert response.text.count(longest) == 1
        if name == "feed.json":
            first, second = response.json()["items"]
            assert first["content_text"] == "Too long"
            assert "content_html" not in first
            assert "content_text" not in second
        else:
            first, second = parsed(response).entries
            assert first.summary == "Too long"
            assert "content" not in first
            assert second.content[0].value == longest

    @pytest.mark.parametrize("name", ["atom.xml", "feed.json"])
    async def test_publication_counts_as_change(
        self, client: httpx.AsyncClient, session: AsyncSession, name: str
    ) -> None:
        written, published = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 3, tzinfo=UTC)
        await create_article(
            session,
            author=await create_user(session),
            published_at=published,
            updated_at=written,
        )
        text = (await client.get(f"/{name}")).text
        assert "2026-05-03T00:00:00" in text
        assert "2026-05-01" not in text

    @pytest.mark.parametrize("name", FORMATS)
    async def test_feed_without_articles_has_no_entries(
        self, client: httpx.AsyncClient, name: str
    ) -> None:
        response = await client.get(f"/{name}")
        assert await titles(client, f"/{name}") == []
        if name != "feed.json":
            assert parsed(response).feed.title == get_settings().site_title


class TestSelection:
    @pytest.mark.parametrize("name", FORMATS)
    async def test_public_articles_newest_first(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
    ) -> None:
        author = await create_user(session)
        now = clock.now()
        rows = [
            {"title": f"Article {number:02}", "published_at": now - timedelta(minutes=number)}
            for number in range(MAX_ITEMS + 2)
        ]
        hidden: Sequence[dict[str, Any]] = (
            {"published": False},
            {"published_at": now + timedelta(minutes=5), "title": "Scheduled"},
            {"archived_at": now},
            {"deleted_at": now},
        )
        every = [{"tags": ["some"], **columns} for columns in (*rows, *hidden)]
        await create_articles(session, every, author=author)
        paths = (f"/{name}", f"/authors/{author.username}/{name}", f"/tags/some/{name}")
        newest = [f"Article {number:02}" for number in range(MAX_ITEMS)]
        for path in paths:
            assert await titles(client, path) == newest
        monkeypatch.setattr(clock, "now", lambda: now + timedelta(minutes=5))
        for path in paths:
            assert await titles(client, path) == ["Scheduled", *newest[:-1]]

    @pytest.mark.parametrize("name", FORMATS)
    async def test_tag_of_drafts_is_not_found(
        self, client: httpx.AsyncClient, session: AsyncSession, name: str
    ) -> None:
        author = await create_user(session)
        await create_article(session, author=author, tags=["Merger"], published=False)
        assert (await client.get(f"/tags/merger/{name}")).status_code == 404

    @pytest.mark.parametrize("name", FORMATS)
    async def test_author_and_tag_feeds(
        self, client: httpx.AsyncClient, session: AsyncSession, name: str
    ) -> None:
        ada = await create_user(session, username="Ada.1", name="Ada")
        bob = await create_user(session)
        await create_article(session, author=ada, title="By Ada", tags=["Größe"])
        await create_article(session, author=bob, title="By Bob", tags=["Größe", "Else"])
        await create_article(session, author=bob, title="Untagged")
        assert await titles(client, f"/authors/ada.1/{name}") == ["By Ada"]
        slug = await session.scalar(text("SELECT slug FROM tags WHERE name = 'Größe'"))
        assert await titles(client, f"/tags/{slug}/{name}") == ["By Bob", "By Ada"]
        for path, title, page in (
            ("/authors/Ada.1", "Ada · Pressroom", "http://localhost:8000/read/authors/Ada.1"),
            (f"/tags/{slug}", "Größe · Pressroom", f"http://localhost:8000/read/tags/{slug}"),
        ):
            response = await client.get(f"{path}/{name}")
            assert f"http://localhost:8000{path}/{name}" in response.text
            if name == "feed.json":
                feed = response.json()
                assert (feed["title"], feed["home_page_url"]) == (title, page)
            else:
                found = parsed(response).feed
                assert (found.title, found.link) == (title, page)

    @pytest.mark.parametrize("name", FORMATS)
    async def test_unknown_author_or_tag_is_not_found(
        self, client: httpx.AsyncClient, session: AsyncSession, name: str
    ) -> None:
        user = await create_user(session)
        for path, code in (
            ("/authors/nobody", "user_not_found"),
            ("/authors/%F0%9F%A7%91", "user_not_found"),
            ("/tags/nothing", "tag_not_found"),
        ):
            response = await client.get(f"{path}/{name}")
            assert response.status_code == 404
            assert response.json()["code"] == code
        for path in (f"/authors/{'a' * 101}", f"/tags/{'a' * 101}", "/tags/a%00b"):
            assert (await client.get(f"{path}/{name}")).status_code == 422
        assert await titles(client, f"/authors/{user.username}/{name}") == []

    async def test_configured_front_end_paths(
        self, client: httpx.AsyncClient, session: AsyncSession, install: Install
    ) -> None:
        install(
            SITE_TITLE="Ünter <Pressroom>",
            SITE_DESCRIPTION="All & more",
            DEFAULT_LANGUAGE="pt-BR",
            PUBLIC_URL="https://www.example.com/blog/",
            API_URL="https://api.example.com/v1",
            ARTICLE_PATH="/статьи?slug={slug}&from=feed",
            AUTHOR_PATH="/by/{username}.html",
        )
        author = await create_user(session, username="ada")
        cover = "https://cdn.example.com/a.png"
        await create_article(session, author=author, slug="one", cover_image_url=cover)
        page = (
            "https://www.example.com/blog/%D1%81%D1%82%D0%B0%D1%82%D1%8C%D0%B8?slug=one&from=feed"
        )
        feed = (await client.get("/authors/ada/feed.json")).json()
        assert feed["title"].endswith(" · Ünter <Pressroom>")
        assert feed["description"] == "All & more"
        assert feed["language"] == "pt-BR"
        assert feed["home_page_url"] == "https://www.example.com/blog/by/ada.html"
        assert feed["feed_url"] == "https://api.example.com/v1/authors/ada/feed.json"
        assert feed["items"][0]["url"] == page
        assert feed["items"][0]["image"] == cover
        for name in ("feed.xml", "atom.xml"):
            found = parsed(await client.get(f"/{name}"))
            assert found.entries[0].link == page
            assert found.feed.subtitle == "All & more"
            assert found.feed.language == "pt-BR"
        assert addresses(await client.get("/sitemap.xml")) == [page]
        robots = await client.get("/robots.txt")
        assert "Sitemap: https://api.example.com/v1/sitemap.xml" in robots.text


class TestConditional:
    @pytest.mark.parametrize("path", DOCUMENTS)
    async def test_if_none_match_returns_304(
        self, client: httpx.AsyncClient, session: AsyncSession, article: Article, path: str
    ) -> None:
        first = await client.get(path)
        tag = first.headers["ETag"]
        assert re.fullmatch(r'"[\w=-]+"', tag)
        assert first.headers["Cache-Control"] == public(300)
        assert first.headers.get("Vary", "Origin") == "Origin"  # the same for all clients
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = await client.get(path, headers={"If-None-Match": known})
            assert again.status_code == 304
            assert again.content == b""
            assert again.headers["ETag"] == tag
            assert again.headers["Cache-Control"] == public(300)
        assert (await client.get(path)).content == first.content
        head = await client.head(path)
        assert (head.status_code, head.content, head.headers["ETag"]) == (200, b"", tag)
        await create_article(session, author=await create_user(session))
        new = await client.get(path, headers={"If-None-Match": tag})
        assert new.status_code == 200
        assert new.headers["ETag"] != tag
        wrong = await client.get(path, headers={"If-Match": tag})
        assert wrong.status_code == 412

    @pytest.mark.parametrize("path", [*DOCUMENTS, "/authors/ada.l/atom.xml"])
    async def test_if_modified_since_is_evaluated(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        article: Article,
        monkeypatch: pytest.MonkeyPatch,
        path: str,
    ) -> None:
        other = await create_article(session, author=await create_user(session))
        await session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        changed_at = await session.scalar(text("SELECT max(occurred_at) FROM changes"))

        def at(**later: float) -> None:
            monkeypatch.setattr(clock, "now", lambda: changed_at + timedelta(**later))

        at(seconds=59)
        response = await client.get(path)
        assert "Last-Modified" not in response.headers
        known = {"If-Modified-Since": format_datetime(changed_at, usegmt=True)}
        assert (await client.get(path, headers=known)).status_code == 200

        at(seconds=60)
        response = await client.get(path)
        assert response.headers["Last-Modified"] == format_datetime(changed_at, usegmt=True)
        again = await client.get(path, headers=known)
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["ETag"] == response.headers["ETag"]
        later = {"If-Modified-Since": format_datetime(changed_at + timedelta(1), usegmt=True)}
        assert (await client.get(path, headers=later)).status_code == 304
        before = changed_at - timedelta(seconds=1)
        for header in (
            format_datetime(before, usegmt=True),
            "yesterday",
            "",
            "Fri, 99 May 2026",
            HUGE,
        ):
            response = await client.get(path, headers={"If-Modified-Since": header})
            assert response.status_code == 200
        # RFC 9110 §13.1.3: If-None-Match takes precedence.
        both = {**known, "If-None-Match": '"other"'}
        assert (await client.get(path, headers=both)).status_code == 200

        # A deletion leaves only older articles, but the change feed records it.
        await session.execute(
            text("UPDATE changes SET occurred_at = occurred_at - interval '1 hour'")
        )
        changed_at -= timedelta(hours=1)
        known = {"If-Modified-Since": format_datetime(changed_at, usegmt=True)}
        assert (await client.get(path, headers=known)).status_code == 304
        await session.execute(text("DELETE FROM articles WHERE id = :id"), {"id": other.id})
        at(hours=2)
        response = await client.get(path, headers=known)
        assert response.status_code == 200
        assert parsedate_to_datetime(response.headers["Last-Modified"]) > changed_at

    @pytest.mark.parametrize("name", FORMATS)
    async def test_due_article_changes_the_feed(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        article: Article,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
    ) -> None:
        """The article is due, but the change feed has not announced it."""
        await session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        now = clock.now()
        moment = now + timedelta(hours=1)
        await create_article(session, author=await create_user(session), published_at=moment)
        known = {"If-Modified-Since": format_datetime(now, usegmt=True)}
        monkeypatch.setattr(clock, "now", lambda: moment - timedelta(seconds=1))
        assert (await client.get(f"/{name}", headers=known)).status_code == 304
        monkeypatch.setattr(clock, "now", lambda: moment + timedelta(minutes=1))
        response = await client.get(f"/{name}", headers=known)
        assert response.status_code == 200
        assert response.headers["Last-Modified"] == format_datetime(moment, usegmt=True)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("of", ["", "/authors/{username}", "/tags/common"])
async def test_number_of_queries_is_constant(
    client: httpx.AsyncClient,
    session: AsyncSession,
    connection: AsyncConnection,
    of: str,
    name: str,
) -> None:
    author = await create_user(session)
    counts = []
    for _ in range(2):
        for _ in range(4):
            await create_article(session, author=author, tags=["common", "other"])
        with statements(connection) as executed:
            path = f"{of.format(username=author.username)}/{name}"
            counts.append((len(await titles(client, path)), len(executed)))
    assert counts == [(4, 2), (8, 2)]


class TestSitemap:
    async def test_sitemap_lists_public_articles(
        self, client: httpx.AsyncClient, session: AsyncSession, connection: AsyncConnection
    ) -> None:
        author = await create_user(session)
        now = clock.now()
        edited = now - timedelta(days=1)
        hidden: Sequence[dict[str, Any]] = (
            {"published": False},
            {"published_at": now + timedelta(minutes=5)},
            {"archived_at": now},
            {"deleted_at": now},
        )
        for columns in hidden:
            await create_article(session, author=author, **columns)
        assert addresses(await client.get("/sitemap.xml")) == ["http://localhost:8000/read/"]
        await create_article(session, author=author, slug="two", updated_at=edited)
        await create_article(
            session, author=author, slug="one", published_at=edited, updated_at=now
        )
        with statements(connection) as executed:
            response = await client.get("/sitemap.xml")
        assert len(executed) == 3
        assert response.headers["Content-Type"] == "application/xml; charset=utf-8"
        assert addresses(response) == [
            f"http://localhost:8000/read/articles/{slug}" for slug in ("two", "one")
        ]
        moments = re.findall("<lastmod>(.*?)</lastmod>", response.text)
        for moment in moments:  # also for the article published after its last change
            assert abs(datetime.fromisoformat(moment) - now) < timedelta(seconds=5)
        assert addresses(await client.get("/sitemaps/1.xml")) == addresses(response)

    async def test_sitemap_is_split_above_50_000_urls(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author = await create_user(session)

        async def add(first: int, last: int) -> None:
            await session.execute(
                text(
                    "INSERT INTO articles (id, title, slug, content, author_id, published_at,"
                    " dated_at) SELECT n, 'Title', repeat('x', 90) || '-' || n, 'Long enough.',"
                    " :author, now(), now() FROM"
                    " generate_series(cast(:first AS int), cast(:last AS int)) n"
                ),
                {"author": author.id, "first": first, "last": last},
            )

        # Disable triggers, for which the rows' derived columns do not matter.
        await session.execute(text("SET LOCAL session_replication_role = replica"))
        await add(1, 30_000)
        await add(70_001, 89_999)
        await add(250_001, 250_001)
        assert len(addresses(await client.get("/sitemap.xml"))) == MAX_URLS
        await add(100_000, 100_000)  # the last id of its part
        await add(200_000, 200_000)  # the only article of its part
        await session.execute(text("SET LOCAL session_replication_role = origin"))
        await create_article(session, author=author, id=150_000, published=False)

        index = await client.get("/sitemap.xml")
        assert b"<sitemapindex" in index.content
        parts = addresses(index)
        numbers = [1, 2, 4, 6]
        assert parts == [f"http://localhost:8000/sitemaps/{number}.xml" for number in numbers]
        before = [await client.get(httpx.URL(part).path) for part in parts]
        found = [address for response in before for address in addresses(response)]
        assert [int(address.rpartition("-")[2]) for address in found] == [
            *range(1, 30_001),
            *range(70_001, 90_000),
            100_000,
            200_000,
            250_001,
        ]
        # Adding or deleting an article changes one part only.
        await session.execute(text("DELETE FROM articles WHERE id = 70001"))
        after = [await client.get(httpx.URL(part).path) for part in parts]
        changed = [
            one.headers["ETag"] != two.headers["ETag"]
            for one, two in zip(before, after, strict=True)
        ]
        assert changed == [False, True, False, False]

    @pytest.mark.parametrize("number", [1, 3, 50_000])
    async def test_empty_part_is_not_found(self, client: httpx.AsyncClient, number: int) -> None:
        response = await client.get(f"/sitemaps/{number}.xml")
        assert response.status_code == 404
        assert response.json()["code"] == "not_found"

    @pytest.mark.parametrize("number", ["0", "-1", "01", "50001", "x", "1.0", "9" * 30])
    async def test_invalid_part_is_rejected(self, client: httpx.AsyncClient, number: str) -> None:
        assert (await client.get(f"/sitemaps/{number}.xml")).status_code == 422


async def test_robots_txt_allows_everything(client: httpx.AsyncClient) -> None:
    response = await client.get("/robots.txt")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.text == (
        "User-agent: *\nAllow: /\n\nSitemap: http://localhost:8000/sitemap.xml\n"
    )
