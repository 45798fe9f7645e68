"""GET /search and GET /search/suggest."""

from collections.abc import Callable
from datetime import datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.core.enums import Role
from app.db.session import Database
from app.models import Article, User
from app.services.articles import listing, matching
from app.services.articles.search import MATCH_START, MATCH_STOP, _search, highlight
from tests.factories import bearer, create_article, create_articles, create_user
from tests.test_lists import statements


@pytest.fixture
async def author(session: AsyncSession) -> User:
    return await create_user(session, username="ada")


@pytest.fixture
async def articles(session: AsyncSession, author: User) -> dict[str, Article]:
    """Articles by where they contain the word `loom`, if at all."""
    texts: dict[str, dict[str, Any]] = {
        "text": {"title": "Punched cards", "content": "Patterns were woven by looms before."},
        "excerpt": {
            "title": "Weaving",
            "content": "About patterns of all sorts.",
            "excerpt": "A loom, explained.",
            "own_excerpt": True,
        },
        "title": {"title": "The looms of Lyon", "content": "About silk, and how it is woven."},
        "none": {"title": "Steam", "content": "Engines that are driven by steam alone."},
    }
    rows = [
        {"published_at": clock.now() - timedelta(days=number + 1), **values}
        for number, values in enumerate(texts.values())
    ]
    return dict(zip(texts, await create_articles(session, rows, author=author), strict=True))


async def search(client: httpx.AsyncClient, q: str, **options: Any) -> list[dict[str, Any]]:
    headers = options.pop("headers", {})
    response = await client.get("/search", params={"q": q, **options}, headers=headers)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()
    return found


async def titles(client: httpx.AsyncClient, q: str, **options: Any) -> list[str]:
    return [result["title"] for result in await search(client, q, **options)]


async def suggestions(client: httpx.AsyncClient, q: str, **options: Any) -> list[str]:
    response = await client.get("/search/suggest", params={"q": q}, **options)
    assert response.status_code == 200, response.text
    return [suggestion["title"] for suggestion in response.json()]


# --- matching and ranking


@pytest.mark.usefixtures("articles")
async def test_rank_weighs_title_excerpt_and_content(client: httpx.AsyncClient) -> None:
    found = await search(client, "loom")
    assert [result["title"] for result in found] == [
        "The looms of Lyon",
        "Weaving",
        "Punched cards",
    ]
    ranks = [result["rank"] for result in found]
    assert ranks[0] > ranks[1] > ranks[2] > 0


@pytest.mark.usefixtures("articles")
async def test_exclusions_do_not_change_the_order(client: httpx.AsyncClient) -> None:
    without = await search(client, "loom")
    assert await search(client, "loom -electricity -electrons") == [
        {**result, "rank": pytest.approx(result["rank"])} for result in without
    ]


async def test_results_have_article_fields_and_snippets(
    client: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    article = await create_article(
        session,
        author=author,
        title="Jacquard's loom",
        content="It reads *cards*; looms before it did not.",
        tags=["Weaving", "cards"],
    )
    (result,) = await search(client, "looms")
    assert result.pop("rank") > 0
    assert datetime.fromisoformat(result.pop("published_at")) == article.published_at
    assert result.pop("author")["username"] == "ada"
    assert result == {
        "id": article.id,
        "title": "Jacquard's loom",
        "slug": article.slug,
        "excerpt": article.excerpt,
        "language": "en",
        "tags": ["cards", "Weaving"],
        "title_snippet": "Jacquard&#x27;s <mark>loom</mark>",
        "snippet": "It reads cards; <mark>looms</mark> before it did not",
    }


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("looms woven", {"The looms of Lyon", "Punched cards"}),
        ("woven -silk", {"Punched cards"}),
        ("silk or steam", {"The looms of Lyon", "Steam"}),
        ('"driven by steam"', {"Steam"}),
        ('"steam driven"', set()),
        ("LOOMS OF LYON", {"The looms of Lyon"}),
        ("the looms", {"The looms of Lyon", "Weaving", "Punched cards"}),
        ("qwertyuiop", set()),
    ],
)
@pytest.mark.usefixtures("articles")
async def test_words_phrases_alternatives_and_exclusions(
    client: httpx.AsyncClient, q: str, expected: set[str]
) -> None:
    assert set(await titles(client, q)) == expected


async def test_equal_ranks_are_sorted_by_date_and_paged(
    client: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    now = clock.now()
    expected = [
        (
            await create_article(
                session,
                author=author,
                title="Loom",
                content="The same text each time.",
                published_at=now - timedelta(hours=number // 2),
            )
        ).id
        for number in range(7)
    ]
    expected = [
        expected[number] for number in (1, 0, 3, 2, 5, 4, 6)
    ]  # between two of them, the higher id comes first
    assert [result["id"] for result in await search(client, "loom")] == expected
    pages = [
        [result["id"] for result in await search(client, "loom", skip=skip, limit=3)]
        for skip in (0, 3, 6, 9)
    ]
    assert pages == [expected[:3], expected[3:6], expected[6:], []]


# --- languages


@pytest.fixture
async def in_two_languages(session: AsyncSession, author: User) -> None:
    for language, title, content in (
        ("de", "Die Häuser am See", "In den alten Häusern wohnt niemand; the end."),
        ("en", "Running water", "They ran and are running along the river."),
        ("la", "Unknown tongue", "I run, in a language that has no stems."),
    ):
        await create_article(
            session, author=author, title=title, content=content, language=language
        )


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("haus", {"Die Häuser am See"}),
        ("häuser", {"Die Häuser am See"}),
        ("runs", {"Running water"}),  # English stemming; Latin has none here
        ("running", {"Running water"}),
        ("the", {"Die Häuser am See"}),  # a stop word in English only
        ("river -häuser", {"Running water"}),
        ("run -water", {"Unknown tongue"}),
        ("niemand or river", {"Die Häuser am See", "Running water"}),
    ],
)
@pytest.mark.usefixtures("in_two_languages")
async def test_article_language_determines_stemming(
    client: httpx.AsyncClient, q: str, expected: set[str]
) -> None:
    assert set(await titles(client, q)) == expected


@pytest.mark.usefixtures("in_two_languages")
async def test_language_filter_selects_one_language(client: httpx.AsyncClient) -> None:
    assert await titles(client, "running", language="en") == ["Running water"]
    assert await titles(client, "run", language="la") == ["Unknown tongue"]
    assert await titles(client, "running", language="fr") == []
    assert await titles(client, "the", language="en") == []


# --- visibility


@pytest.fixture
async def hidden(session: AsyncSession, author: User) -> None:
    now = clock.now()
    for title, columns in (
        ("Loom published", {}),
        ("Loom draft", {"published": False}),
        ("Loom scheduled", {"published_at": now + timedelta(hours=1)}),
        ("Loom archived", {"archived_at": now}),
        ("Loom trashed", {"deleted_at": now}),
    ):
        await create_article(session, author=author, title=title, **columns)


@pytest.mark.usefixtures("hidden")
@pytest.mark.parametrize("search", [titles, suggestions])
async def test_results_respect_visibility(
    client: httpx.AsyncClient,
    session: AsyncSession,
    author: User,
    search: Callable[..., Any],
) -> None:
    other_user = await create_user(session)
    editor = await create_user(session, role=Role.EDITOR)
    public, active = (
        {"Loom published"},
        {"Loom published", "Loom draft", "Loom scheduled"},
    )
    assert set(await search(client, "loom")) == public
    assert set(await search(client, "loom", headers=bearer(other_user))) == public
    assert set(await search(client, "loom", headers=bearer(author))) == active
    assert set(await search(client, "loom", headers=bearer(editor))) == active


@pytest.mark.usefixtures("hidden")
async def test_scheduled_article_is_found_once_due(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = clock.now() + timedelta(hours=2)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert set(await titles(client, "loom")) == {"Loom published", "Loom scheduled"}
    assert set(await suggestions(client, "loom")) == {"Loom published", "Loom scheduled"}


async def test_update_changes_the_index(
    client: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    article = await create_article(session, author=author, title="Loom")
    article.title = "Spindle"
    await session.flush()
    assert await titles(client, "loom") == []
    assert await titles(client, "spindles") == ["Spindle"]


# --- snippets


class Marks(HTMLParser):
    """Parses a snippet as a browser would."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = [
    'loom <script>alert("x")</script> and <img src=x onerror=alert(1)> looms',
    "`<script>loom</script>` & `</mark><b>loom</b>` \"quoted\" 'loom'",
    "&lt;script&gt; loom &#2;loom&#3; &#x02; loom &amp;lt;",
    "a < loom > b <!-- loom --> <loom attribute='loom'>",
]


@pytest.mark.parametrize("content", HOSTILE)
async def test_snippets_contain_no_active_markup(
    client: httpx.AsyncClient, session: AsyncSession, author: User, content: str
) -> None:
    await create_article(session, author=author, title=content[:150], content=content)
    (result,) = await search(client, "loom")
    for name in ("snippet", "title_snippet"):
        page = Marks(result[name])
        assert set(page.tags) <= {"mark"}
        assert MATCH_START not in page.text
        assert MATCH_STOP not in page.text
        assert result[name].count("<") == 2 * len(page.tags)
        assert result[name].count("<mark>") == result[name].count("</mark>") == len(page.tags)
    assert Marks(result["title_snippet"]).text == content[:150]
    assert "<mark>loom" in result["snippet"]


async def test_text_resembling_markup_is_escaped(
    client: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    tags = "Of `<script>` one says that `<loom spindle>` ends it, if 1 < 2."
    content = "So much that none of this is in the excerpt. " * 20 + tags
    await create_article(session, author=author, title="<b>Shuttles</b>", content=content)
    for word in ("script", "loom", "spindle", "ends", "shuttle"):
        assert await titles(client, word) == ["<b>Shuttles</b>"], word
    (result,) = await search(client, "spindles shuttles")
    assert result["title_snippet"] == "&lt;b&gt;<mark>Shuttles</mark>&lt;/b&gt;"
    assert "Of &lt;script&gt; one says" in result["snippet"]
    assert "that &lt;loom <mark>spindle</mark>&gt; ends it" in result["snippet"]


def test_unbalanced_markers_produce_no_tag() -> None:
    assert (
        highlight(f"a {MATCH_STOP}b{MATCH_START} c {MATCH_START}d{MATCH_STOP} <e> {MATCH_START}")
        == "a b c <mark>d</mark> &lt;e&gt; "
    )
    assert highlight(f"{MATCH_START}{MATCH_START}a{MATCH_STOP}{MATCH_STOP}") == "<mark>a</mark>"


async def test_snippet_contains_the_match(
    client: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    content = "Nothing here. " * 100 + "Then came the loom at last. " + "Nothing there. " * 100
    await create_article(session, author=author, title="Long", content=content)
    (result,) = await search(client, "loom")
    assert "<mark>loom</mark>" in result["snippet"]
    assert len(result["snippet"]) < 500


# --- invalid input


UNUSUAL_QUERIES = [
    "the and of", "-", "--", '"', '""', "'", "or", "OR or", "-the", "-loom", "-loom -steam",
    "loom or -steam", "!", "&", "|", "( ) | & !", "<->", ":*", "a:*", "\\", "\\'", "*", "%",
    "_", "...", "?", "\U0001f984", "\u200b", "\u202eloom", "\ufb01", "e\u0301", "ß", "İ",
    "\U0010ffff", "loom " * 99, "- " * 240, "-\u00a0" * 240, "-" * 500, '"' * 499 + "x",
    "( " * 250, "a" * 500, "or " * 166, "x-" * 250, "http://" * 70,
]  # fmt: skip


@pytest.mark.parametrize("path", ["/search", "/search/suggest"])
@pytest.mark.usefixtures("articles", "in_two_languages")
async def test_unusual_queries_are_accepted(client: httpx.AsyncClient, path: str) -> None:
    for q in UNUSUAL_QUERIES:
        response = await client.get(path, params={"q": q})
        may_be_refused = len(q) > 100 or not q.isprintable()
        assert response.status_code in ({200, 422} if may_be_refused else {200}), ascii(q[:40])


@pytest.mark.parametrize("q", ["the", "-", '"', "or", "-looms", "loom or -steam", "!", "?"])
@pytest.mark.usefixtures("articles")
async def test_query_without_words_has_no_results(client: httpx.AsyncClient, q: str) -> None:
    assert await search(client, q) == []


@pytest.mark.parametrize(
    "query",
    ["", "q=", "q=%20", "q=%00", "q=a%00b", "q=%0a", "q=" + "a" * 501, "q=" + "word%20" * 2000],
)
@pytest.mark.parametrize("path", ["/search", "/search/suggest"])
async def test_missing_and_too_long_queries_are_rejected(
    client: httpx.AsyncClient, path: str, query: str
) -> None:
    response = await client.get(f"{path}?{query}")
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["query", "q"]


async def test_error_names_the_maximum_length(client: httpx.AsyncClient) -> None:
    response = await client.get("/search", params={"q": "a" * 10_000})
    assert "500" in response.json()["detail"][0]["msg"]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "skip=-1", "language=english", "page=2"])
async def test_other_parameters_are_validated(client: httpx.AsyncClient, query: str) -> None:
    response = await client.get(f"/search?q=loom&{query}")
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["query", query.partition("=")[0]]


async def test_empty_database_has_no_results(client: httpx.AsyncClient) -> None:
    assert await search(client, "loom") == []
    assert await suggestions(client, "loom") == []


# --- search strategies


@pytest.fixture(params=["index", "index since", "walk", "walk anywhere"])
def strategy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set the limits so low that a few articles trigger each strategy."""
    strategy: str = request.param
    if strategy == "index":
        return strategy
    monkeypatch.setattr(matching, "SUFFICIENT_MATCHES", 2)
    monkeypatch.setattr(matching, "MIN_SAMPLE_HITS", 1)
    monkeypatch.setattr(matching, "CHECK_ARTICLE_COST", 1e9 if strategy == "index since" else 1e-9)
    monkeypatch.setattr(matching, "MAX_EXAMINED", 3)
    return strategy


async def test_each_strategy_finds_the_newest(
    client: httpx.AsyncClient,
    session: AsyncSession,
    database: Database,
    author: User,
    strategy: str,
) -> None:
    now = clock.now()
    rows = [
        {
            "title": f"Loom {number}",
            "content": "Von Häusern ist hier die Rede." if number % 2 else "It is about houses.",
            "language": "de" if number % 2 else "en",
            "published_at": now - timedelta(days=number),
        }
        for number in range(12)
    ]
    await create_articles(session, rows, author=author)
    await create_article(session, author=author, title="Loom", published=False)
    terms = await matching.parse_query(database.reader, q="loom", viewer=None)
    assert terms is not None
    terms = terms.without_since() if strategy == "walk anywhere" else terms
    assert (terms.since is not None) == (strategy in {"index since", "walk"})
    assert terms.is_common == strategy.startswith("walk")
    found = await titles(client, "loom")
    assert set(found) == {f"Loom {number}" for number in range(len(found))}
    assert 2 <= len(found) <= 12
    assert (len(found) == 12) == (strategy == "index")
    assert "Loom 0" in await titles(client, "loom house")
    assert "Loom 1" in await titles(client, "loom -houses -steam rede")
    assert await titles(client, '"loom loom"') == []


async def test_common_word_is_searched_among_the_articles_of_the_tag(
    client: httpx.AsyncClient,
    session: AsyncSession,
    author: User,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matching, "MAX_EXAMINED", 3)
    listing._page.cache_clear()
    now = clock.now()
    rows = [
        {
            "title": f"Loom {number}",
            "tags": ["Weaving"] if number % 3 == 2 else ["Silk", "Wool"],
            "published_at": now - timedelta(days=number),
        }
        for number in range(12)
    ]
    await create_articles(session, rows, author=author)
    await create_article(session, author=author, title="Loom", tags=["Weaving"], published=False)

    async def listed(query: str, **options: Any) -> list[str]:
        response = await client.get(f"/articles?q=loom&sort=newest&{query}", **options)
        return [each["title"] for each in response.json()]

    assert await listed("tag=weaving") == ["Loom 2", "Loom 5", "Loom 8"]
    assert await listed("tag=silk&tag=wool") == ["Loom 0", "Loom 1", "Loom 3"]
    assert await listed("tag=silk&tag=weaving") == []
    own = await listed("tag=weaving", headers=bearer(author))
    assert own == ["Loom", "Loom 2", "Loom 5"]
    listing._page.cache_clear()


async def test_search_runs_two_queries(
    client: httpx.AsyncClient, session: AsyncSession, connection: AsyncConnection, author: User
) -> None:
    counts = []
    for _ in range(2):
        for _ in range(4):
            await create_article(session, author=author, title="Loom", tags=["Weaving", "Silk"])
        with statements(connection) as executed:
            found = await search(client, "loom")
        counts.append((len(found), len(executed)))
    assert counts == [(4, 2), (8, 2)]
    with statements(connection) as executed:
        await suggestions(client, "loom")
    assert len(executed) == 1


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("MAX_CANDIDATES", ["Loom 1", "Weaving 0", "Weaving 2"]),
        ("RANKED_CANDIDATES", ["Loom 1", "Weaving 0", "Weaving 2", "Weaving 3", "Loom 4"]),
    ],
)
async def test_number_of_matches_and_ranks_is_limited(
    client: httpx.AsyncClient,
    session: AsyncSession,
    author: User,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    expected: list[str],
) -> None:
    """The oldest article is too old to be found, or to be ranked."""
    monkeypatch.setattr(matching, limit, 3)
    _search.cache_clear()
    now = clock.now()
    for number in range(5):
        await create_article(
            session,
            author=author,
            title=f"{'Loom' if number in {1, 4} else 'Weaving'} {number}",
            content="A loom, and another loom.",
            published_at=now - timedelta(days=number),
        )
    found = await search(client, "loom")
    assert [each["title"] for each in found] == expected
    assert [each["rank"] > 0 for each in found] == [True] * 3 + [False] * (len(expected) - 3)
    _search.cache_clear()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Shuttle, loom. " + "Many other words follow. " * 40, "<mark>loom</mark>"),
        ("Many other words follow. " * 40 + "A loom.", "A <mark>loom</mark>"),
        ("A loom. " + "Other words. " * 50 + "A shuttle.", "<mark>shuttle</mark>"),
        ("Other words. " * 38 + "A loom, worded so that it is cut after 500", "<mark>loom</mark>"),
        ("\u7ec7\u673a loom. " + "\u5b66\u4e60 Many words. " * 60, "<mark>loom</mark>"),
    ],
)
async def test_snippet_quotes_the_beginning_or_else_the_whole_text(
    client: httpx.AsyncClient, session: AsyncSession, author: User, text: str, expected: str
) -> None:
    await create_article(session, author=author, title="Of weaving", content=text)
    q = "loom shuttle" if "shuttle" in text else "loom"
    (found,) = await search(client, q)
    assert expected in found["snippet"]


# --- suggestions


@pytest.fixture
async def titles_in_database(session: AsyncSession, author: User) -> None:
    now = clock.now()
    for number, title in enumerate(
        [
            "Python for weavers",
            "A python's loom",
            "Pythagoras",
            "Node.js and TCP/IP",
            "Die Überraschung",
            "東京 の 織機",
            "The The and don't",
        ]
    ):
        await create_article(
            session, author=author, title=title, published_at=now - timedelta(days=number)
        )


SUGGESTIONS = [
    ("p", ["Python for weavers", "A python's loom", "Pythagoras"]),
    ("PYTH", ["Python for weavers", "A python's loom", "Pythagoras"]),
    ("python", ["Python for weavers", "A python's loom"]),
    ("python l", ["A python's loom"]),
    ("loom pyth", ["A python's loom"]),
    ("pyth loom", []),  # only the last word may be a prefix
    ("ython", []),
    ("node", ["Node.js and TCP/IP"]),
    ("node.j", ["Node.js and TCP/IP"]),
    ("ip", ["Node.js and TCP/IP"]),
    ("tcp/i", ["Node.js and TCP/IP"]),
    ("über", ["Die Überraschung"]),
    ("ÜB", ["Die Überraschung"]),
    ("die", ["Die Überraschung"]),  # suggestions keep stop words
    ("織", ["東京 の 織機"]),
    ("the the", ["The The and don't"]),
    ("don't", ["The The and don't"]),
    ("weaver", ["Python for weavers"]),  # and do no stemming
    ("weaving", []),
    (" pythag ", ["Pythagoras"]),
    ("...", []),
    ("'", []),
    ("\\", []),
]


@pytest.mark.usefixtures("titles_in_database")
async def test_titles_are_suggested(client: httpx.AsyncClient) -> None:
    for q, expected in SUGGESTIONS:
        assert await suggestions(client, q) == expected, q


async def test_suggestions_are_the_newest_ten(
    client: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    now = clock.now()
    rows = [
        {"title": f"Loom {number}", "published_at": now - timedelta(days=number)}
        for number in range(15)
    ]
    await create_articles(session, rows, author=author)
    assert await suggestions(client, "lo") == [f"Loom {number}" for number in range(10)]
    response = await client.get("/search/suggest?q=loom%2014")
    (suggestion,) = response.json()
    assert set(suggestion) == {"id", "title", "slug"}
