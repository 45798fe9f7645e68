# ruff: noqa: RUF001 - letters of other scripts are what this is about
"""Search in many scripts: those written without spaces, and the others beside them."""

import asyncio
import re
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.content.markdown import RENDERER
from app.db.session import Database
from app.models import User
from app.services.articles.rendering import render_stale
from app.services.articles.search import _join_pairs
from tests.articles.test_search import Marks, search, suggestions, titles
from tests.databases import execute, temporary_database
from tests.factories import create_article, create_articles, create_user

TEXTS: dict[str, tuple[str, str, str]] = {
    "simplified": (
        "zh-Hans",
        "深度学习入门",
        "深度学习模型需要大量的训练数据。我们用PostgreSQL数据库保存结果，2024年开始。",
    ),
    "traditional": (
        "zh-Hant",
        "臺灣的圖書館",
        "圖書館收藏了許多歷史資料，學生們在這裡讀書。iPhone手機也可以借書。",
    ),
    "japanese": (
        "ja",
        "FastAPIで書くブログ",
        "地域住民が主体となる。データベースの設計と、プログラムの書き方を学ぶ。第3章はテスト。",
    ),
    "korean": (
        "ko",
        "한국어 번역 안내",
        "번역을 부탁해. 데이터베이스에서 검색하는 방법을 배운다.",
    ),
    "thai": ("th", "ภาษาไทย", "ภาษาไทยสวยงามที่สุด เราเรียนรู้การเขียนโปรแกรม"),
    "lao": ("lo", "ພາສາລາວ", "ພວກເຮົາຮຽນພາສາລາວຢູ່ໂຮງຮຽນ"),
    "khmer": ("km", "ភាសាខ្មែរ", "យើងរៀនភាសាខ្មែរនៅសាលារៀន"),
    "burmese": ("my", "မြန်မာဘာသာ", "ကျွန်တော်တို့မြန်မာဘာသာကိုလေ့လာသည်"),
    "cyrillic": ("ru", "Старые книги", "В библиотеке хранятся старые книги и ёмкие словари."),
    "arabic": ("ar", "المكتبة القديمة", "في المكتبة كتب كثيرة عن التاريخ."),
    "persian": ("fa", "کتابخانه", "در کتابخانه کتاب‌های قدیمی می‌خوانیم."),
    "french": ("fr", "Les élèves à l'école", "Les élèves écrivent des poèmes naïfs à Noël."),
    "devanagari": ("hi", "पुस्तकालय", "पुस्तकालय में किताबें हैं और लड़के पढ़ते हैं।"),
    "greek": ("el", "Η βιβλιοθήκη", "Στη βιβλιοθήκη υπάρχουν παλιά βιβλία."),
    "english": ("en", "Steam engines", "Engines weave patterns, and nobody writes 深 alone here."),
}

# A query, its results, and the highlighted parts of the first result's title and text.
QUERIES: list[tuple[str, set[str], str]] = [
    # Han, simplified
    ("深度学习", {"simplified"}, "深度学习"),
    ("学习", {"simplified"}, "学习"),
    ("度学", {"simplified"}, "度学"),
    ("训练数据", {"simplified"}, "训练数据"),
    ("数据", {"simplified"}, "数据"),
    ("数据库", {"simplified"}, "数据库"),
    ("深", {"simplified", "english"}, "深"),
    ("习", {"simplified"}, "习"),
    ("库", {"simplified"}, "库"),
    ("训据", set(), ""),
    ("学深", set(), ""),
    ("习学", set(), ""),
    ("模型 数据", {"simplified"}, "模型"),
    ('"学习模型"', {"simplified"}, "学习模型"),
    ('"模型数据"', set(), ""),
    ("数据 -模型", set(), ""),
    ("学习 -歷史", {"simplified"}, "学习"),
    ("-数据", set(), ""),
    ("歷史 or 数据", {"simplified", "traditional"}, "歷史"),
    ("PostgreSQL数据库", {"simplified"}, "PostgreSQL数据库"),
    ("postgresql 数据库", {"simplified"}, "PostgreSQL数据库"),
    ("数据库postgresql", {"simplified"}, "PostgreSQL数据库"),
    ('"PostgreSQL数据库"', {"simplified"}, "PostgreSQL数据库"),
    ('"数据库PostgreSQL"', set(), ""),
    ("postgresql", {"simplified"}, "PostgreSQL"),
    ("2024年", {"simplified"}, "2024年"),
    ("2023年", set(), ""),
    ("深度\u3000学习", {"simplified"}, "深度学习"),
    ("深度\u200b学\u200d习", {"simplified"}, "深度学习"),
    # Han, traditional
    ("圖書館", {"traditional"}, "圖書館"),
    ("图书馆", set(), ""),
    ("歷史資料", {"traditional"}, "歷史資料"),
    ("讀書", {"traditional"}, "讀書"),
    ("iPhone手機", {"traditional"}, "iPhone手機"),
    ("臺灣 圖書", {"traditional"}, "圖書"),
    # Japanese
    ("地域住民", {"japanese"}, "地域住民"),
    ("住民が", {"japanese"}, "住民が"),
    ("主体", {"japanese"}, "主体"),
    ("データベース", {"japanese"}, "データベース"),
    ("ﾃﾞｰﾀﾍﾞｰｽ", {"japanese"}, "データベース"),
    ("テ\u3099ータヘ\u3099ース", {"japanese"}, "データベース"),
    ("プログラム", {"japanese"}, "プログラム"),
    ("ログ", {"japanese"}, "ログ"),
    ("FastAPI で書く", {"japanese"}, "で書く"),
    ("FastAPIで書く", {"japanese"}, "で書く"),
    ("ＦａｓｔＡＰＩ", {"japanese"}, "FastAPI"),
    ("第3章", {"japanese"}, "第3章"),
    ("第４章", set(), ""),
    ("書き方", {"japanese"}, "書き方"),
    ("設計図", set(), ""),
    # Hangul
    ("번역", {"korean"}, "번역"),
    ("번역을", {"korean"}, "번역을"),
    ("데이터베이스", {"korean"}, "데이터베이스"),
    ("데이터", {"korean"}, "데이터"),
    ("검색", {"korean"}, "검색"),
    ("검색하는 방법", {"korean"}, "검색하는"),
    ("부", {"korean"}, "부"),
    ("역번", set(), ""),
    ("\u1107\u1165\u11ab\u110b\u1167\u11a8", {"korean"}, "번역"),
    # Thai, Lao, Khmer, Myanmar
    ("ภาษา", {"thai"}, "ภาษา"),
    ("ไทย", {"thai"}, "ไทย"),
    ("สวยงาม", {"thai"}, "สวยงาม"),
    ("เขียนโปรแกรม", {"thai"}, "เขียนโปรแกรม"),
    ("ที่สุด", {"thai"}, "ที่สุด"),
    ("งามสวย", set(), ""),
    ("ພາສາ", {"lao"}, "ພາສາ"),
    ("ໂຮງຮຽນ", {"lao"}, "ໂຮງຮຽນ"),
    ("ភាសា", {"khmer"}, "ភាសា"),
    ("សាលារៀន", {"khmer"}, "សាលារៀន"),
    ("ဘာသာ", {"burmese"}, "ဘာသာ"),
    # scripts with spaces
    ("книга", {"cyrillic"}, "книги"),
    ("библиотека", {"cyrillic"}, "библиотеке"),
    ("словарь -книги", set(), ""),
    ("مكتبة", {"arabic"}, "المكتبة"),
    ("کتابخانه", {"persian"}, "کتابخانه"),
    ("élève", {"french"}, "élèves"),
    ("e\u0301le\u0300ve", {"french"}, "élèves"),
    ("poème", {"french"}, "poèmes"),
    ("पुस्तकालय", {"devanagari"}, "पुस्तकालय"),
    ("किताब", {"devanagari"}, "किताबें"),
    ("βιβλιοθήκη", {"greek"}, "βιβλιοθήκη"),
    ("engine", {"english"}, "Engines"),
    ("ENGINES -深", set(), ""),
]


MARKED = re.compile("<mark>(.*?)</mark>")


@pytest.fixture
async def author(session: AsyncSession) -> User:
    return await create_user(session, username="ada")


@pytest.fixture
async def library(session: AsyncSession, author: User) -> dict[str, int]:
    """One article per language."""
    rows = [
        {"title": title, "content": content, "language": language}
        for language, title, content in TEXTS.values()
    ]
    articles = await create_articles(session, rows, author=author)
    return {name: article.id for name, article in zip(TEXTS, articles, strict=True)}


async def test_matches_are_highlighted_in_every_script(
    client: httpx.AsyncClient, library: dict[str, int]
) -> None:
    """The words of each query are found in these articles only, and marked."""
    names = {number: name for name, number in library.items()}
    wrong: dict[str, object] = {}
    for q, expected, marks in QUERIES:
        results = await search(client, q)
        if {names[result["id"]] for result in results} != expected:
            wrong[q] = results
            continue
        places = []
        for result in results:
            snippets = result["title_snippet"], result["snippet"]
            assert not {"\x05", "\x06"} & set("".join(snippets)), q
            assert Marks(snippets[0]).text == result["title"], q
            assert Marks(snippets[1]).text in TEXTS[names[result["id"]]][2], q
            found = [place for each in snippets for place in MARKED.findall(each)]
            assert found, q
            places += found
        if expected and not any(marks in place for place in places):
            wrong[q] = places
    assert wrong == {}


SUGGESTIONS = [
    ("学习", ["深度学习入门"]),
    ("深度", ["深度学习入门"]),
    ("入", ["深度学习入门"]),
    ("门", ["深度学习入门"]),
    ("深度入门", []),
    ("図書", []),
    ("圖書館", ["臺灣的圖書館"]),
    ("臺灣 圖", ["臺灣的圖書館"]),
    ("で書", ["FastAPIで書くブログ"]),
    ("fastapi", ["FastAPIで書くブログ"]),
    ("fastapiで", ["FastAPIで書くブログ"]),
    ("ブロ", ["FastAPIで書くブログ"]),
    ("ﾌﾞﾛｸﾞ", ["FastAPIで書くブログ"]),
    ("번역", ["한국어 번역 안내"]),
    ("국어", ["한국어 번역 안내"]),
    ("한국 안", ["한국어 번역 안내"]),
    ("ไทย", ["ภาษาไทย"]),
    ("ខ្មែរ", ["ភាសាខ្មែរ"]),
    ("книг", ["Старые книги"]),
    ("e\u0301l", ["Les élèves à l'école"]),
    ("or", []),
    ("-学习", ["深度学习入门"]),
    ('"学习', ["深度学习入门"]),
]


@pytest.mark.usefixtures("library")
async def test_titles_are_suggested_in_every_script(client: httpx.AsyncClient) -> None:
    for q, expected in SUGGESTIONS:
        assert await suggestions(client, q) == expected, q


CASE = {
    "title": "深度学习",
    "content": "深度学习模型需要大量训练数据。地域住民が主体となる。ภาษาไทยสวยงาม 번역을 부탁해",
    "language": "zh",
}


@pytest.mark.parametrize(
    "q", ["深度", "学习", "训练数据", "数据", "住民", "主体", "ไทย", "สวยงาม", "번역", "부탁"]
)
async def test_four_scripts_in_one_article(
    client: httpx.AsyncClient, session: AsyncSession, author: User, q: str
) -> None:
    await create_article(
        session,
        author=author,
        title=CASE["title"],
        content=CASE["content"],
        language=CASE["language"],
    )
    (result,) = await search(client, q)
    assert f"<mark>{q}</mark>" in result["snippet"] + result["title_snippet"]


async def test_title_matches_rank_first(
    client: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    for title, content in (
        ("其他", "这里只有一次提到机器学习，其余都是别的。"),
        ("机器学习", "这里没有别的内容，只有一句话。"),
        ("无关", "机器在工厂里，学习在学校里。"),
    ):
        await create_article(session, author=author, title=title, content=content, language="zh")
    assert await titles(client, "机器学习") == ["机器学习", "其他"]
    assert set(await titles(client, "机器 学习")) == {"机器学习", "其他", "无关"}


async def test_snippet_from_the_end_of_a_long_text(
    client: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    filler = "这是一段没有意义的文字，用来填充篇幅。" * 400
    content = f"{filler}然后出现了分析机，它编织代数图案。{filler}"
    await create_article(session, author=author, title="长文", content=content, language="zh")
    (result,) = await search(client, "分析机")
    assert "出现了<mark>分析机</mark>" in result["snippet"]
    assert len(result["snippet"]) < 500


@pytest.mark.parametrize(
    "content",
    [
        "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(20_000)) * 15,
        "".join(chr(0x20000 + number * 7919 % 40_000) for number in range(40_000)) * 5,
        "汉" * 300_000,
        "汉 " * 300_000,
        "ก็" * 150_000,
        "ﾃﾞ" * 150_000,
        "か\u3099" * 150_000,
        "汉" + "\u200b" * 300_000 + "字",
        "汉" + "\u0301" * 300_000,
        "ก" + "\u0e48" * 300_000,
        "汉a" * 200_000,
    ],
    ids=lambda content: ascii(content[:2]),
)
async def test_long_text_can_be_stored(connection: AsyncConnection, content: str) -> None:
    """50,000 pairs at most: a tsvector is limited to 1 MB."""
    statement = text(
        "SELECT length(vector), pg_column_size(vector)"
        " FROM (SELECT article_search_vector('zh', '题目', '', :body) AS vector) AS made"
    )
    lexemes, size = (await connection.execute(statement, {"body": content})).one()
    assert 0 < lexemes <= 100_001
    assert size < 2 * 1024 * 1024


@pytest.mark.parametrize(
    "body",
    [
        "Steam engines",
        "naïve café x² ﬁ № 100 % €5",
        "Старые книги",
        "کتاب\u200cهای",
        "पुस्तकालय",
        "\U0001f984\u200d\u2642",
    ],
)
async def test_other_texts_are_unchanged(connection: AsyncConnection, body: str) -> None:
    assert await connection.scalar(text("SELECT article_words(:body)"), {"body": body}) == body


@pytest.mark.parametrize(
    "q", ["loom", "spindle", "naïve", "don't", "don\u2019t", "\u201cloom\u201d"]
)
async def test_unicode_punctuation_separates_words(
    client: httpx.AsyncClient, session: AsyncSession, author: User, q: str
) -> None:
    content = "\u201cA loom\u2014or a spindle\u2026\u201d Is\u00abnaïve\u00bb? Don\u2019t."
    await create_article(session, author=author, title="Quoted", content=content, language="la")
    (result,) = await search(client, q)
    assert MARKED.search(result["snippet"])
    assert Marks(result["snippet"]).text in content


async def test_headline_of_overlapping_pairs_is_joined(connection: AsyncConnection) -> None:
    """For each character: none is lost or duplicated."""
    folded = {*range(0xFF10, 0xFF5B), *range(0xFF66, 0xFFA0)}
    ignored = {*range(0x200B, 0x200E), 0x2060, *range(0xFE00, 0xFE10), 0xFEFF}
    surrogates = range(0xD800, 0xE000)
    for start in range(0x20, 0x20800, 0x800):
        codes = {*range(start, start + 0x800)} - folded - ignored - {*surrogates}
        body, words = (
            await connection.execute(
                text(
                    "SELECT body, article_words(body, E'\\x06\\\\&\\x06') FROM"
                    " (SELECT normalize(:body, NFC) AS body) AS composed"
                ),
                {"body": "".join(f"深{chr(code)}度{chr(code)}a" for code in sorted(codes))},
            )
        ).one()
        assert _join_pairs(words) == body, hex(start)


QUERIES_IN_ATTACK = [
    "汉" * 500,
    "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(500)),
    "汉 " * 250,
    '"汉' * 250,
    "-汉" * 250,
    "汉-" * 250,
    "a汉" * 250,
    "汉1" * 250,
    "ก็" * 250,
    "\u0e48" * 500,
    "汉" + "\u200b" * 499,
    "\u200d" * 500,
    "\ufe0f\u20e3",
    "。，！？",
    "「」『』",
    "・",
    "\u3099",
    "ﾞ",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u202e汉字\u202c",
    "汉' | 'x",
    "'汉':*",
    "汉 <-> 字",
    "汉\\' & !字",
    "\U00020000\U00020001\U0003ffff",
    "or汉or",
    "汉 or",
    "or 汉",
    "한" * 500,
]


@pytest.mark.parametrize("path", ["/search", "/search/suggest"])
@pytest.mark.usefixtures("library")
async def test_unusual_queries_are_accepted(client: httpx.AsyncClient, path: str) -> None:
    for q in QUERIES_IN_ATTACK:
        response = await client.get(path, params={"q": q})
        is_too_long = path.endswith("suggest") and len(q) > 100
        assert response.status_code == (422 if is_too_long else 200), ascii(q[:4])


@pytest.mark.parametrize("path", ["/search", "/search/suggest", "/articles"])
@pytest.mark.parametrize("q", ["汉" * 7000, "a" * 43_000, "汉%00", "%ED%A0%80", "汉%0a字"])
async def test_queries_with_invalid_characters_are_rejected(
    client: httpx.AsyncClient, path: str, q: str
) -> None:
    response = await client.get(f"{path}?q={q}")
    assert response.status_code == (200 if q == "%ED%A0%80" else 422)  # read as U+FFFD


async def test_number_of_lexemes_is_bounded(connection: AsyncConnection) -> None:
    for q in QUERIES_IN_ATTACK:
        nodes = await connection.scalar(
            text("SELECT numnode(article_search_query('simple', :q))"), {"q": q[:500]}
        )
        assert nodes <= 2 * 500, q


# --- older articles, and the previous release


async def test_older_articles_are_indexed_when_rendered(
    database: Database, session: AsyncSession, author: User
) -> None:
    """A trigger does it, so the renderer's job of any release may run it."""
    article = await create_article(
        session, author=author, title="東京タワー", content="深度学习模型与数据。", language="zh"
    )
    await session.execute(
        text("UPDATE articles SET rendered_with = 1, search_vector = to_tsvector('simple', title)")
    )
    find = text("SELECT count(*) FROM articles WHERE search_vector @@ '学习'::tsquery")
    assert await session.scalar(find) == 0
    assert await render_stale(database) == 1
    assert await session.scalar(find) == 1
    await session.refresh(article, ["version", "rendered_with"])
    assert (article.version, article.rendered_with) == (1, RENDERER)
    assert await render_stale(database) == 0


def test_open_connections_use_the_new_title_function() -> None:
    """The previous release goes on writing, and the index finds its articles."""
    import asyncpg

    from app.db.migrate import upgrade
    from tests.databases import driver_url

    async def run(url: str) -> None:
        connection: Any = await asyncpg.connect(driver_url(url))
        insert = (
            "INSERT INTO articles (title, slug, content, published_at, author_id)"
            " VALUES ($1, $2, 'Long enough.', now(), 1)"
        )
        find = "SELECT title FROM articles WHERE article_title_words(title) @@ '''タワ'''::tsquery"
        try:
            await connection.execute("SET enable_seqscan = off; SET enable_indexscan = off")
            await connection.execute(insert, "東京タワー", "one")
            assert await connection.fetch(find) == []
            await asyncio.to_thread(upgrade, url, "0009")
            await connection.execute(insert, "横浜タワー", "two")
            found = [row["title"] for row in await connection.fetch(find)]
            assert found == ["横浜タワー"]  # the other article is indexed by the job
            plan = await connection.fetch(f"EXPLAIN {find}")
            assert any("ix_articles_title_words" in row[0] for row in plan)
        finally:
            await connection.close()

    with temporary_database() as url:
        upgrade(url, "0006")
        execute(
            url,
            "INSERT INTO users (email, username, name, hashed_password)"
            " VALUES ('ada@example.com', 'ada', 'Ada', 'x')",
        )
        asyncio.run(run(url))
