"""Search: articles by their words, and titles that go on like what somebody types."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    and_,
    bindparam,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from app.auth.identity import Identity
from app.db.reading import Reader
from app.db.session import paged
from app.models.article import SEARCH_CONFIG, TITLE_WORDS, Article
from app.schemas.search import SearchQuery, SearchResult, Suggestion, SuggestionQuery
from app.services.articles.matching import (
    MAX_FOUND,
    Shape,
    any_word,
    candidates,
    interpret,
    positive_text,
    query_of_article,
)
from app.services.articles.rows import NOW, SHOWN_SLUG, VISIBLE, Sight, part, selected, sight_of

FIELDS = ("id", "title", "slug", "excerpt", "language", "tags", "published_at", "author")
START, STOP, LESS = "\x02", "\x03", "\x04"
"""Around what matches, and in place of `<`, which PostgreSQL would take for a tag's beginning and
leave out: characters that no article can have."""
_MARKS = f'StartSel="{START}", StopSel="{STOP}"'
QUOTE = f'{_MARKS}, MinWords=15, MaxWords=35, ShortWord=0, MaxFragments=2, FragmentDelimiter=" … "'
WHOLE = f"{_MARKS}, HighlightAll=true"
_MARKED = re.compile(f"{START}([^{START}{STOP}]*){STOP}")
OVERLAP, BORDER = "\x05", "\x06"
"""Between pairs of characters that share one, and around such pairs: see `article_words`."""
_CHARACTER = r"\S[{marks}]{{0,32}}+".format(
    marks="".join(
        chr(code) for code in range(0x10000) if unicodedata.category(chr(code)) in {"Mn", "Mc"}
    )
)
_SAME_MARK = re.compile(f"{STOP}{OVERLAP}{START}{_CHARACTER}")
_MARK_BEGINS = re.compile(f"{_CHARACTER}{OVERLAP}(?={START})")
_OVERLAP = re.compile(f"{OVERLAP}{_CHARACTER}")

RECENT = 500
SUGGESTIONS = 10

_NEWEST_FIRST = Article.dated_at.desc(), Article.id.desc()
_KEPT = and_(Article.deleted_at.is_(None), Article.archived_at.is_(None))
_PUBLISHED = Article.published_at <= NOW
# The same twice. Along an index by date, what is scheduled is left out at once; where the index of
# words finds articles, PostgreSQL must not take up the one by date as well, which has them all.
_BY_DATE: Mapping[Sight, ColumnElement[bool]] = {
    sight: and_(_KEPT, visible) for sight, visible in VISIBLE.items()
}
_BY_WORDS: Mapping[Sight, ColumnElement[bool]] = {
    Sight.PUBLISHED: and_(_KEPT, _PUBLISHED),
    Sight.PUBLISHED_AND_OWN: and_(
        _KEPT, or_(_PUBLISHED, Article.author_id == bindparam("viewer_id"))
    ),
    Sight.ALL: _KEPT,
}


async def search_articles(
    connection: Reader, *, query: SearchQuery, viewer: Identity | None
) -> Sequence[SearchResult]:
    """What `viewer` may see of the articles that match, the most relevant first, in two queries."""
    terms = await interpret(connection, q=query.q, viewer=viewer, language=query.language)
    if terms is None:
        return []
    sight, who = sight_of(viewer)
    given: dict[str, Any] = {"skip": query.skip, "limit": query.limit}
    if query.language is not None:
        given["language"] = query.language
    found = await connection.execute(
        _search(sight, terms.shape, in_one_language=query.language is not None),
        {**who, **terms.parameters, **given},
    )
    return [_result(row) for row in found]


@lru_cache(maxsize=256)
def _search(sight: Sight, shape: Shape, *, in_one_language: bool) -> Select[Any]:
    """The statement of a search; only what is on the page is quoted from."""
    articles = select(Article.id, Article.dated_at)
    articles = articles.where((_BY_DATE if shape.is_common else _BY_WORDS)[sight])
    if in_one_language:
        articles = articles.where(Article.language == bindparam("language", type_=String))
    found = candidates(shape, articles)
    page = paged(
        select(found).order_by(found.c.rank.desc(), found.c.dated_at.desc(), found.c.id.desc())
    ).cte("page")
    words = func.public.article_words(Article.title, f"{BORDER}\\&{BORDER}")
    title = _headline(words, query_of_article(shape, any_word), WHOLE)
    positive = query_of_article(shape, positive_text)
    body = func.public.article_quotable(Article.plain_text, positive)
    quote = _headline(body, query_of_article(shape), QUOTE)
    # Of words that are not all in the text, for the title has the others: where it has any.
    lesser_quote = _headline(body, query_of_article(shape, any_word), QUOTE)
    snippet = func.coalesce(func.substring(quote, f".*{START}.*"), lesser_quote)
    return (
        selected(FIELDS)
        .add_columns(page.c.rank, title, snippet)
        .join(page, page.c.id == Article.id)
        .order_by(page.c.rank.desc(), page.c.dated_at.desc(), page.c.id.desc())
    )


def _headline(
    what: ColumnElement[str], query: ColumnElement[Any], options: str
) -> ColumnElement[str]:
    words = func.replace(what, "<", LESS)
    return func.ts_headline(SEARCH_CONFIG, words, query, literal(options, String))


def _result(row: Sequence[Any]) -> SearchResult:
    *fields, rank, title, snippet = row
    return SearchResult.model_validate(
        {
            **part(FIELDS, fields),
            "rank": rank,
            "title_snippet": marked(title),
            "snippet": marked(snippet),
        }
    )


def marked(headline: str) -> str:
    """A headline as HTML, with `<mark>` around what matches."""
    text = _joined(headline) if OVERLAP in headline or BORDER in headline else headline
    text = _MARKED.sub(r"<mark>\1</mark>", escape(text.replace(LESS, "<")))
    return text.replace(START, "").replace(STOP, "")


def _joined(headline: str) -> str:
    """A headline with the pairs of `article_words` put together; a character is there once."""
    text = _OVERLAP.sub("", _MARK_BEGINS.sub("", _SAME_MARK.sub("", headline)))
    return text.replace(OVERLAP, "").replace(BORDER, "").replace(STOP + START, "")


async def suggest_titles(
    connection: Reader, *, query: SuggestionQuery, viewer: Identity | None
) -> Sequence[Suggestion]:
    """The newest articles that `viewer` may see whose titles have these words, in one query."""
    sight, who = sight_of(viewer)
    found = await connection.execute(_SUGGESTIONS[sight], {**who, "q": query.q})
    return [Suggestion.model_validate(row) for row in found]


def _suggestions(sight: Sight) -> Select[Any]:
    """Among the newest 500, where common beginnings find enough; else by the index of titles.

    The index would read all titles that match before it knows which are the newest.
    """
    columns = Article.id, Article.title, SHOWN_SLUG.label("slug"), Article.dated_at
    wanted = select(_WANTED.c.query).scalar_subquery()
    recent = (
        select(*columns)
        .where(_BY_DATE[sight])
        .order_by(*_NEWEST_FIRST)
        .limit(RECENT)
        .subquery("recent")
    )
    near = (
        select(recent)
        .where(func.article_title_words(recent.c.title).bool_op("@@")(wanted))
        .order_by(recent.c.dated_at.desc(), recent.c.id.desc())
        .limit(SUGGESTIONS)
        .cte("near")
    )
    count = select(func.count()).select_from(near).scalar_subquery()
    everywhere = (
        select(*columns)
        .where(_BY_WORDS[sight], TITLE_WORDS.bool_op("@@")(wanted), count < SUGGESTIONS)
        .limit(MAX_FOUND)
        .subquery("everywhere")
    )
    both = union_all(
        select(near).where(count == SUGGESTIONS),
        select(everywhere),
    ).subquery("both")
    return (
        select(both.c.id, both.c.title, both.c.slug)
        .order_by(both.c.dated_at.desc(), both.c.id.desc())
        .limit(SUGGESTIONS)
    )


_WANTED = select(
    func.public.article_title_query(bindparam("q", type_=String), type_=TSQUERY).label("query")
).cte("wanted")
_SUGGESTIONS = {sight: _suggestions(sight) for sight in Sight}
