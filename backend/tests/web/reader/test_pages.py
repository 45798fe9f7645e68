"""The readers' public pages: lists, articles, authors, topics, search and the archive."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from lxml import html
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.core.config import get_settings
from app.models import User
from tests.factories import create_article, create_comment, create_media, create_user
from tests.security.conftest import Install, install
from tests.test_lists import statements
from tests.web.pages import HOSTILE, Page, no_markup, visit

__all__ = ["install"]

API = "http://localhost:8000"
SITE = f"{API}/read"
HOME = "/read"
MAX_BYTES = 50_000


@pytest.fixture
async def author(session: AsyncSession) -> User:
    return await create_user(session, username="ada", name="Ada Lovelace")


def links(page: Page, expression: str = "//main//a") -> list[str]:
    return [each.get("href") for each in page.xpath(expression)]


def titles(page: Page) -> list[str]:
    found = page.xpath('//*[contains(@class, "entry-title")]')
    return [each.text_content().strip() for each in found]


def structured(page: Page) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(page.xpath('//script[@type="application/ld+json"]/text()')[0])
    return data


def meta(page: Page, name: str) -> str | None:
    found = page.xpath(f'//meta[@property="{name}" or @name="{name}"]/@content')
    return found[0] if found else None


class TestHome:
    async def test_empty_site(self, pages: httpx.AsyncClient) -> None:
        shown = await visit(pages, HOME)
        assert "Nothing is published yet" in shown.text
        assert shown.title == get_settings().site_title
        assert structured(shown)["@type"] == "WebSite"
        assert f"{SITE}/search?q=" in str(structured(shown)["potentialAction"])

    async def test_newest_article_leads_without_featured_ones(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        old = clock.now() - timedelta(days=1)
        await create_article(session, author=author, title="Older", published_at=old)
        await create_article(session, author=author, title="Newer", tags=["Engines"])
        await create_article(session, author=author, title="Draft", published=False)
        shown = await visit(pages, HOME)
        assert titles(shown) == ["Newer", "Older"]
        assert shown.xpath('//section[@class="featured"]//*[@class="entry lead"]')
        assert "/read/tags/engines" in links(shown)
        assert links(shown, '//link[@rel="canonical"]') == [f"{SITE}/"]
        feeds = links(shown, '//link[@rel="alternate"]')
        assert feeds == [f"{API}/feed.xml", f"{API}/atom.xml", f"{API}/feed.json"]

    async def test_featured_articles_lead(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        for number in range(4):
            moment = clock.now() - timedelta(days=9 - number)
            await create_article(
                session,
                author=author,
                title=f"Featured {number}",
                published_at=moment,
                tags=["featured"],
            )
        await create_article(session, author=author, title="Newest")
        shown = await visit(pages, HOME)
        names = ["Featured 3", "Featured 2", "Featured 1", "Newest", "Featured 0"]
        assert titles(shown) == names

    async def test_home_has_one_address(self, pages: httpx.AsyncClient) -> None:
        assert (await visit(pages, f"{HOME}/")).title == get_settings().site_title


class TestArticle:
    async def test_everything_of_an_article(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        media = await create_media(session, owner=author)
        media.alt = "An engine"
        url = f"{API}/media/{media.folder}/picture.jpg"
        await session.flush()
        article = await create_article(
            session,
            author=author,
            title="Notes on engines",
            slug="notes",
            content=f"## One\n\n![x]({url})\n\n![y](https://a.example/b.png)\n\n## Two",
            cover_image_url=url,
            language="en",
            tags=["Difference Engine", "Steam"],
        )
        shown = await visit(pages, "/read/articles/notes")
        assert shown.title == "Notes on engines \N{EN DASH} Pressroom"
        assert shown.xpath("//h1")[0].text == "Notes on engines"
        contents = shown.xpath('//details//a[starts-with(@href, "#h-")]')
        assert [each.text for each in contents] == ["One", "Two"]
        topics = links(shown, '//ul[@class="topics"]//a')
        assert topics == ["/read/tags/difference-engine", "/read/tags/steam"]
        assert "1 min read" in shown.text
        cover, first, remote = shown.xpath("//figure/img | //*[@class='prose']//img")
        for image in (cover, first):
            assert (image.get("width"), image.get("height")) == ("400", "300")
            srcset = f"{API}/media/{media.folder}/320.webp 320w, {url} 400w"
            assert image.get("srcset") == srcset
            assert image.get("sizes")
        assert (cover.get("loading"), cover.get("alt")) == (None, "An engine")
        assert cover.get("fetchpriority") == "high"
        assert (first.get("loading"), first.get("alt")) == ("lazy", "x")
        assert (remote.get("loading"), remote.get("srcset")) == ("lazy", None)
        canonical = f"{SITE}/articles/notes"
        assert links(shown, '//link[@rel="canonical"]') == [canonical]
        assert meta(shown, "og:url") == canonical
        assert meta(shown, "og:type") == "article"
        assert meta(shown, "og:image") == url
        assert meta(shown, "og:image:width") == "400"
        assert meta(shown, "description") == article.excerpt
        data = structured(shown)
        assert (data["@type"], data["headline"]) == ("BlogPosting", "Notes on engines")
        assert data["author"]["url"] == f"{SITE}/authors/ada"
        assert data["image"] == [url]

    async def test_images_of_all_hosts_are_allowed_for_articles_only(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        article = await create_article(session, author=author)

        async def sources(path: str) -> list[str]:
            policy = (await pages.get(path)).headers["content-security-policy"]
            (found,) = re.findall(r"img-src ([^;]+)", policy)
            return str(found).split()

        assert "https:" in await sources(f"/read/articles/{article.slug}")
        assert "https:" not in await sources("/read/archive")
        assert "http:" not in await sources(f"/read/articles/{article.slug}")

    async def test_cover_of_another_site_has_a_frame(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        article = await create_article(
            session, author=author, cover_image_url="https://cdn.example.com/a.png"
        )
        shown = await visit(pages, f"/read/articles/{article.slug}")
        assert shown.xpath('//figure[@class="cover unsized"]/img')
        assert meta(shown, "og:image") == "https://cdn.example.com/a.png"

    async def test_former_slug_redirects(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        from app.models.articles.article import FormerSlug

        article = await create_article(session, author=author, slug="now")
        session.add(FormerSlug(slug="before", article_id=article.id))
        await session.flush()
        response = await pages.get("/read/articles/before")
        assert (response.status_code, response.headers["location"]) == (301, "/read/articles/now")

    @pytest.mark.parametrize("columns", [{"published": False}, {"archived_at": datetime.now(UTC)}])
    async def test_hidden_article(
        self,
        pages: httpx.AsyncClient,
        session: AsyncSession,
        author: User,
        columns: dict[str, Any],
    ) -> None:
        article = await create_article(session, author=author, **columns)
        response = await pages.get(f"/read/articles/{article.slug}")
        assert response.status_code == 404
        # nginx then forgets the page that it has cached.
        assert response.headers["x-accel-expires"] == "1"
        shown = Page(response)
        assert shown.xpath("//h1")[0].text == "This page does not exist"
        assert shown.xpath('//form[@role="search"]')

    async def test_related_articles(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        one = await create_article(session, author=author, tags=["a"])
        await create_article(session, author=author, title="Related", tags=["a"])
        await create_article(session, author=author, title="Other", tags=["b"])
        assert titles(await visit(pages, f"/read/articles/{one.slug}")) == ["Related"]

    async def test_number_of_queries(
        self,
        pages: httpx.AsyncClient,
        session: AsyncSession,
        connection: AsyncConnection,
        author: User,
    ) -> None:
        article = await create_article(session, author=author, tags=["a", "b"])
        counts = []
        for _ in range(2):
            for _ in range(4):
                await create_comment(session, article=article, author=author)
                await create_article(session, author=author, tags=["a"])
            for path in (f"/read/articles/{article.slug}", HOME):
                with statements(connection) as executed:
                    await visit(pages, path)
                counts.append(len(executed))
        assert counts[:2] == counts[2:] == [5, 2]


class TestLists:
    async def test_pages_of_all_articles(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        now = clock.now()
        for number in range(15):
            moment = now - timedelta(minutes=number)
            await create_article(session, author=author, title=f"No {number}", published_at=moment)
        first = await visit(pages, "/read/articles")
        assert titles(first) == [f"No {number}" for number in range(12)]
        (older,) = links(first, '//a[@rel="next"]')
        second = await visit(pages, older)
        assert titles(second) == [f"No {number}" for number in range(12, 15)]
        (newer,) = links(second, '//a[@rel="prev"]')
        assert titles(await visit(pages, newer)) == titles(first)

    @pytest.mark.parametrize("path", ["articles", "authors/ada", "tags/steam"])
    async def test_unknown_cursor(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User, path: str
    ) -> None:
        await create_article(session, author=author, tags=["Steam"])
        shown = await visit(pages, f"/read/{path}?cursor=x", status=422)
        assert shown.xpath("//h1")[0].text == "This did not work"

    async def test_author(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        author.bio, author.image_url = "Mathematician", "https://a.example/ada.jpg"
        await create_article(session, author=author, title="Hers")
        await create_article(session, author=await create_user(session), title="Another's")
        shown = await visit(pages, "/read/authors/Ada")
        assert titles(shown) == ["Hers"]
        assert "Mathematician" in shown.text
        assert links(shown, '//link[@rel="canonical"]') == [f"{SITE}/authors/ada"]
        assert f"{API}/authors/ada/feed.xml" in links(shown, '//link[@rel="alternate"]')
        assert structured(shown)["mainEntity"]["name"] == "Ada Lovelace"
        await visit(pages, "/read/authors/unknown", status=404)

    async def test_topics(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        await create_article(session, author=author, title="Tagged", tags=["Größe", "C++", "C"])
        await create_article(session, author=author, tags=["Hidden"], published=False)
        index = await visit(pages, "/read/tags")
        found = links(index, '//ul[@class="topic-index"]//a')
        assert len(found) == 3
        for path in found:
            assert titles(await visit(pages, path)) == ["Tagged"]
        shown = await visit(pages, found[-1])
        assert shown.xpath("//h1")[0].text == "Größe"
        assert "1 article" in shown.text
        slug = found[-1].rpartition("/")[2]
        assert f"{API}/tags/{slug}/feed.xml" in links(shown, '//link[@rel="alternate"]')
        await visit(pages, "/read/tags/hidden", status=404)

    async def test_archive(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        for title, moment in {
            "Last second": datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC),
            "First second": datetime(2026, 1, 1, tzinfo=UTC),
            "Also January": datetime(2026, 1, 20, tzinfo=UTC),
            "Much older": datetime(2019, 2, 3, tzinfo=UTC),
        }.items():
            await create_article(session, author=author, title=title, published_at=moment)
        index = await visit(pages, "/read/archive")
        assert links(index, "//main//li/a") == [
            "/read/archive/2026/01",
            "/read/archive/2025/12",
            "/read/archive/2019/02",
        ]
        january = await visit(pages, "/read/archive/2026/01")
        assert titles(january) == ["Also January", "First second"]
        assert january.xpath("//h1")[0].text == "January 2026"
        assert titles(await visit(pages, "/read/archive/2025/12")) == ["Last second"]
        await visit(pages, "/read/archive/2024/12", status=404)
        for path in ("2024/13", "2024/0", "1969/12", "x/1", "10000/1"):
            await visit(pages, f"/read/archive/{path}", status=422)

    async def test_months_need_one_query(
        self,
        pages: httpx.AsyncClient,
        session: AsyncSession,
        connection: AsyncConnection,
        author: User,
    ) -> None:
        for month in range(1, 13):
            moment = datetime(2024, month, 1, tzinfo=UTC)
            await create_article(session, author=author, published_at=moment)
        with statements(connection) as executed:
            shown = await visit(pages, "/read/archive")
        assert len(executed) == 1
        assert len(links(shown, "//main//li/a")) == 12


class TestSearch:
    async def test_results_with_highlights(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        await create_article(
            session, author=author, title="Engines & <looms>", content="Two engines of steam"
        )
        shown = await visit(pages, "/read/search?q=engine")
        assert titles(shown) == ["Engines & <looms>"]
        marks = [each.text for each in shown.xpath("//main//mark")]
        assert marks == ["Engines", "engines"]
        assert meta(shown, "robots") == "noindex"

    async def test_no_results_suggest_titles(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        await create_article(session, author=author, title="Analytical engines", slug="ae")
        shown = await visit(pages, "/read/search?q=analy")
        assert "These titles are similar" in shown.text
        assert "/read/articles/ae" in links(shown)
        none = await visit(pages, "/read/search?q=zzzzz")
        assert "Try fewer or other words" in none.text

    async def test_suggestions(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        await create_article(session, author=author, title="Analytical engines", slug="ae")
        shown = await visit(pages, "/read/search/suggest?q=analyt")
        assert links(shown) == ["/read/articles/ae"]
        for query in ("", "?q=", f"?q={'x' * 101}", "?q=%00"):
            assert links(await visit(pages, f"/read/search/suggest{query}")) == []

    @pytest.mark.parametrize("words", ["x" * 501, "a\x00b"])
    async def test_invalid_words(self, pages: httpx.AsyncClient, words: str) -> None:
        response = await pages.get("/read/search", params={"q": words})
        assert response.status_code == 422
        shown = Page(response)
        assert list(shown.errors) == ["q"]
        assert "no-store" in response.headers["cache-control"]

    async def test_pages(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        for _ in range(13):
            await create_article(session, author=author, title="Same", content="steam")
        first = await visit(pages, "/read/search?q=steam")
        (following,) = links(first, '//a[@rel="next"]')
        second = await visit(pages, following)
        assert (len(titles(first)), len(titles(second))) == (12, 1)
        await visit(pages, "/read/search?q=steam&page=0", status=422)
        await visit(pages, "/read/search?q=steam&page=9999", status=422)


class TestSettings:
    async def test_language_of_the_site(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User, install: Install
    ) -> None:
        install(DEFAULT_LANGUAGE="de-AT")
        moment = datetime(2026, 3, 1, tzinfo=UTC)
        for _ in range(2):
            await create_article(session, author=author, language="en", published_at=moment)
        shown = await visit(pages, HOME)
        assert shown.html.get("lang") == "de"
        assert shown.xpath("//h2[@id='newest']")[0].text == "Neueste"
        assert "01.03.2026" in shown.text
        assert shown.xpath('//*[contains(@class, "entry-title")]')[0].get("lang") == "en"

    async def test_canonical_address_at_a_named_front_end(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User, install: Install
    ) -> None:
        install(PUBLIC_URL="https://www.example.com", ARTICLE_PATH="/posts/{slug}.html")
        article = await create_article(session, author=author)
        shown = await visit(pages, f"/read/articles/{article.slug}")
        canonical = f"https://www.example.com/posts/{article.slug}.html"
        assert links(shown, '//link[@rel="canonical"]') == [canonical]
        assert "/read/authors/ada" in links(shown)

    async def test_other_featured_tag(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User, install: Install
    ) -> None:
        install(WEB_FEATURED_TAG="Empfohlen")
        old = clock.now() - timedelta(days=1)
        for title, tag in (("Led", "Empfohlen"), ("Not", "Featured")):
            await create_article(session, author=author, title=title, tags=[tag], published_at=old)
        await create_article(session, author=author, title="New")
        assert titles(await visit(pages, HOME))[:2] == ["Led", "New"]


class TestHostileText:
    async def test_html_in_every_field_is_text(
        self, pages: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author = await create_user(session, username="eve", name=HOSTILE)
        author.bio = HOSTILE
        article = await create_article(
            session,
            author=author,
            title=HOSTILE,
            slug="hostile",
            content=f"## {HOSTILE}\n\n{HOSTILE}\n\n## Two",
            excerpt=HOSTILE,
            tags=[HOSTILE[:50]],
        )
        await create_comment(session, article=article, author=author, content=HOSTILE)
        for path in (
            "",
            "/articles",
            "/articles/hostile",
            "/authors/eve",
            "/articles/hostile/comments",
        ):
            shown = await visit(pages, f"/read{path}")
            for data in shown.xpath('//script[@type="application/ld+json"]'):
                data.drop_tree()  # it contains the text, but does not run
            no_markup(shown)
        (tag,) = links(await visit(pages, "/read/tags"), '//ul[@class="topic-index"]//a')
        no_markup(await visit(pages, tag))
        found = await visit(pages, "/read/search?q=alert")
        assert not found.xpath("//main//script | //*[@onerror]")
        assert structured(await visit(pages, "/read/articles/hostile"))["headline"] == HOSTILE
        asked = await pages.get("/read/search", params={"q": HOSTILE})
        no_markup(Page(asked))

    async def test_tags_in_attributes_are_text(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        """Completing the images changes no attribute of another element."""
        media = await create_media(session, owner=author)
        await session.flush()
        image = f"<img src=/media/{media.folder}/a.jpg><pre><table><input>"
        title = f"{image}<script>alert(1)</script>"
        # The sanitizer escapes these characters at present, but HTML does not require it.
        article = await create_article(
            session, author=author, html=f'<p><abbr title="{title}">x</abbr></p>'
        )
        shown = await visit(pages, f"/read/articles/{article.slug}")
        (abbreviation,) = shown.xpath("//abbr")
        assert abbreviation.get("title") == title
        assert not shown.xpath('//*[@class="prose"]//*[not(self::p or self::abbr)]')

    async def test_boxes_that_scroll_have_the_focus(
        self, pages: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        content = "|a|\n|-|\n|b|\n\n    code\n\n- [x] done"
        article = await create_article(session, author=author, content=content)
        shown = await visit(pages, f"/read/articles/{article.slug}")
        assert len(shown.xpath('//pre[@tabindex="0"] | //table[@tabindex="0"]')) == 2
        assert shown.xpath('//input[@aria-label="Task"]')


def public_paths(article: str) -> list[str]:
    return [
        HOME,
        "/read/articles",
        f"/read/articles/{article}",
        f"/read/articles/{article}/comments",
        "/read/tags",
        "/read/tags/steam",
        "/read/authors/ada",
        "/read/archive",
        f"/read/archive/{clock.now():%Y/%m}",
        "/read/search",
        "/read/search?q=steam",
        "/read/search/suggest?q=steam",
    ]


async def test_public_pages_are_cached_and_the_same_for_all(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    article = await create_article(session, author=author, tags=["Steam"])
    for path in public_paths(article.slug):
        response = await pages.get(path)
        assert response.status_code == 200, path
        assert response.headers["cache-control"].startswith("public, "), path
        assert "set-cookie" not in response.headers
        assert "csrf" not in response.text
        tag = response.headers["etag"]
        again = await pages.get(path, headers={"If-None-Match": tag, "Accept-Language": "de"})
        assert (again.status_code, again.content) == (304, b""), path
        assert again.headers["etag"] == tag


async def test_pages_are_small(
    pages: httpx.AsyncClient, session: AsyncSession, author: User, shared_app: FastAPI
) -> None:
    """HTML, styles, scripts and fonts of each page, uncompressed."""
    article = await create_article(
        session, author=author, tags=["Steam"], content="## A\n\nSome words. " * 30
    )
    for number in range(20):
        await create_article(session, author=author, tags=["Steam"])
        if number < 5:
            await create_comment(session, article=article, author=author)
    for path in public_paths(article.slug):
        response = await pages.get(path)
        shown = Page(response)
        files = set(links(shown, '//link[@rel="stylesheet"]'))
        scripts = [each.get("src") for each in shown.xpath("//script[@src]")]
        sizes = {path: len(response.content)}
        while scripts:
            name = scripts.pop()
            if name not in files:
                files.add(name)
                imported = re.findall(r'from "\./([^"]+)"', (await pages.get(name)).text)
                scripts += [f"/static/js/{each}" for each in imported]
        for file in files:
            response = await pages.get(file)
            assert response.status_code == 200
            assert "@import" not in response.text
            assert "@font-face" not in response.text
            sizes[file] = len(response.content)
        assert sum(sizes.values()) <= MAX_BYTES, sizes


async def test_pages_have_no_inline_scripts_or_styles(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    article = await create_article(session, author=author, tags=["Steam"])
    for path in public_paths(article.slug):
        shown = await visit(pages, path)
        assert not shown.xpath(
            '//script[not(@src) and @type!="application/ld+json"] | //style | //@style'
            " | //@*[starts-with(name(),'on')]"
        )


async def test_links_of_feeds_lead_to_pages(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    """No other front end is named."""
    article = await create_article(session, author=author, tags=["Steam"])
    feed = (await pages.get("/feed.json")).json()
    sitemap = html.fromstring((await pages.get("/sitemap.xml")).content)
    addresses = [
        feed["home_page_url"],
        feed["items"][0]["url"],
        feed["items"][0]["authors"][0]["url"],
        (await pages.get("/tags/steam/feed.json")).json()["home_page_url"],
        *sitemap.xpath("//loc/text()"),
    ]
    assert addresses[1] == f"{SITE}/articles/{article.slug}"
    for address in addresses:
        assert address.startswith(SITE)
        await visit(pages, address.removeprefix(API))
