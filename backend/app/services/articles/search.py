"""Full-text search of articles, and title suggestions."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Integer,
    Row,
    Select,
    String,
    and_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from app.auth.identity import Identity
from app.db.reading import Reader
from app.db.session import paged
from app.models.articles.article import SEARCH_CONFIG, TITLE_WORDS, Article
from app.schemas.articles.search import SearchQuery, SearchResult, Suggestion, SuggestionQuery
from app.services.articles.matching import (
    MAX_INDEX_MATCHES,
    SearchSpec,
    any_word,
    article_query,
    candidates,
    parse_query,
    positive_query,
    positive_text,
    wanted_candidates,
)
from app.services.articles.rows import (
    ARTICLE_FIELDS,
    DISPLAYED_SLUG,
    NOW,
    VISIBLE,
    Visibility,
    article_fields,
    select_articles,
    visibility_of,
)

_FIELDS = tuple(field for field in SearchResult.model_fields if field in ARTICLE_FIELDS)
MATCH_START, MATCH_STOP, LESS_THAN = "\x02", "\x03", "\x04"
"""Delimiters around matches, and a substitute for `<`.

`ts_headline` would parse `<` as the start of a tag and drop it. Articles cannot contain these
characters.
"""
_DELIMITERS = f'StartSel="{MATCH_START}", StopSel="{MATCH_STOP}"'
SNIPPET_OPTIONS = (
    f'{_DELIMITERS}, MinWords=15, MaxWords=35, ShortWord=0, MaxFragments=2, FragmentDelimiter=" … "'
)
TITLE_OPTIONS = f"{_DELIMITERS}, HighlightAll=true"
BEGINNING = 500
"""How many characters of a text are searched first for the word of a snippet."""
_LAST_WORD = r"\S+$"
_WITH_MATCH = f".*{MATCH_START}.*"
_MARKED = re.compile(f"{MATCH_START}([^{MATCH_START}{MATCH_STOP}]*){MATCH_STOP}")
OVERLAP, BORDER = "\x05", "\x06"
"""Separators between and around overlapping character pairs: see `article_words`."""
_SEPARATED = f"{BORDER}\\&{BORDER}"
_CHARACTER = r"\S[{marks}]{{0,32}}+".format(
    marks="".join(
        chr(code) for code in range(0x10000) if unicodedata.category(chr(code)) in {"Mn", "Mc"}
    )
)
_ADJACENT_MATCHES = re.compile(f"{MATCH_STOP}{OVERLAP}{MATCH_START}{_CHARACTER}")
_BEFORE_MATCH = re.compile(f"{_CHARACTER}{OVERLAP}(?={MATCH_START})")
_OVERLAP = re.compile(f"{OVERLAP}{_CHARACTER}")

MAX_RECENT = 500
MAX_SUGGESTIONS = 10

_NEWEST_FIRST = Article.dated_at.desc(), Article.id.desc()
_NOT_DELETED_OR_ARCHIVED = and_(Article.deleted_at.is_(None), Article.archived_at.is_(None))
_PUBLISHED = Article.published_at <= NOW
# Two equivalent conditions for two indexes. `dated_at` excludes scheduled articles early in a scan
# by date. With the search index, it would make PostgreSQL also read the date index, which has all
# articles.
_BY_DATE: Mapping[Visibility, ColumnElement[bool]] = {
    visibility: and_(_NOT_DELETED_OR_ARCHIVED, visible) for visibility, visible in VISIBLE.items()
}
_BY_WORDS: Mapping[Visibility, ColumnElement[bool]] = {
    Visibility.PUBLISHED: and_(_NOT_DELETED_OR_ARCHIVED, _PUBLISHED),
    Visibility.PUBLISHED_AND_OWN: and_(
        _NOT_DELETED_OR_ARCHIVED, or_(_PUBLISHED, Article.author_id == bindparam("viewer_id"))
    ),
    Visibility.ALL: _NOT_DELETED_OR_ARCHIVED,
}


async def search_articles(
    reader: Reader, *, query: SearchQuery, viewer: Identity | None
) -> Sequence[SearchResult]:
    """Return visible articles that match, the most relevant first. Runs two queries."""
    terms = await parse_query(reader, q=query.q, viewer=viewer, language=query.language)
    if terms is None:
        return []
    visibility, params = visibility_of(viewer)
    wanted = wanted_candidates(query.skip + query.limit)
    page_parameters: dict[str, Any] = {"skip": query.skip, "limit": query.limit, "wanted": wanted}
    if query.language is not None:
        page_parameters["language"] = query.language
    found = await reader.execute(
        _search(visibility, terms.spec, in_one_language=query.language is not None),
        {**params, **terms.parameters, **page_parameters},
    )
    return [_result(row) for row in found]


@lru_cache(maxsize=256)
def _search(visibility: Visibility, spec: SearchSpec, *, in_one_language: bool) -> Select[Any]:
    """Return the statement of a search; snippets are made for the page only."""
    articles = select(Article.id, Article.dated_at)
    articles = articles.where((_BY_DATE if spec.is_common else _BY_WORDS)[visibility])
    if in_one_language:
        articles = articles.where(Article.language == bindparam("language", type_=String))
    found = candidates(spec, articles, bindparam("wanted", type_=Integer))
    page = paged(
        select(found).order_by(found.c.rank.desc(), found.c.dated_at.desc(), found.c.id.desc())
    ).cte("page")
    escaped = func.public.article_words(Article.title, _SEPARATED)
    title = _headline(escaped, article_query(spec, any_word), TITLE_OPTIONS)
    positive = article_query(spec, positive_text)
    body = func.public.article_quotable(Article.plain_text, positive)
    # Most texts have a common word in the beginning. Headlines of whole texts cost more than the
    # rest of the search. Pairs of characters must not be cut.
    start = _once(
        func.public.article_words(func.left(Article.plain_text, BEGINNING), _SEPARATED), "start"
    )
    text = start.c.value
    beginning = case(
        (
            and_(
                func.numnode(article_query(spec, positive_query)) == 1,
                func.char_length(text) >= BEGINNING,
                func.strpos(text, OVERLAP) == 0,
            ),
            func.regexp_replace(text, _LAST_WORD, ""),
        )
    )
    here = _once(_headline(beginning, article_query(spec), SNIPPET_OPTIONS), "here", start)
    snippet_all = _headline(body, article_query(spec), SNIPPET_OPTIONS)
    # The fallback for a text that has only some of the words, while the title has the others.
    snippet_any = _headline(body, article_query(spec, any_word), SNIPPET_OPTIONS)
    snippet = case(
        (func.strpos(here.c.value, MATCH_START) > 0, here.c.value),
        else_=func.coalesce(func.substring(snippet_all, _WITH_MATCH), snippet_any),
    )
    return (
        select_articles(_FIELDS)
        .add_columns(page.c.rank, title.label("title_snippet"), snippet.label("snippet"))
        .join(page, page.c.id == Article.id)
        .join(start, true())
        .join(here, true())
        .order_by(page.c.rank.desc(), page.c.dated_at.desc(), page.c.id.desc())
    )


def _once(value: ColumnElement[str], name: str, *sources: FromClause) -> FromClause:
    """Return a subquery with `value`, which several expressions use, so that it runs once."""
    return select(value.label("value")).correlate(Article, *sources).offset(0).lateral(name)


def _headline(
    document: ColumnElement[str], query: ColumnElement[Any], options: str
) -> ColumnElement[str]:
    escaped = func.replace(document, "<", LESS_THAN)
    return func.ts_headline(SEARCH_CONFIG, escaped, query, literal(options, String))


def _result(row: Row[Any]) -> SearchResult:
    return SearchResult(
        **article_fields(_FIELDS).read(row),
        rank=row.rank,
        title_snippet=highlight(row.title_snippet),
        snippet=highlight(row.snippet),
    )


def highlight(headline: str) -> str:
    """Convert a headline to HTML, with `<mark>` around matches."""
    text = _join_pairs(headline) if OVERLAP in headline or BORDER in headline else headline
    text = _MARKED.sub(r"<mark>\1</mark>", escape(text.replace(LESS_THAN, "<")))
    return text.replace(MATCH_START, "").replace(MATCH_STOP, "")


def _join_pairs(headline: str) -> str:
    """Join the overlapping pairs of `article_words`, so that each character occurs once."""
    text = _OVERLAP.sub("", _BEFORE_MATCH.sub("", _ADJACENT_MATCHES.sub("", headline)))
    return text.replace(OVERLAP, "").replace(BORDER, "").replace(MATCH_STOP + MATCH_START, "")


async def suggest_titles(
    reader: Reader, *, query: SuggestionQuery, viewer: Identity | None
) -> Sequence[Suggestion]:
    """Return the newest visible articles whose titles match. Runs one query."""
    visibility, params = visibility_of(viewer)
    found = await reader.execute(_SUGGESTION_STATEMENTS[visibility], {**params, "q": query.q})
    return [Suggestion.model_validate(row) for row in found]


def _suggestions(visibility: Visibility) -> Select[Any]:
    """Search the newest 500 titles; if they do not suffice, search the title index.

    The index would return all matches before the newest are known.
    """
    columns = Article.id, Article.title, DISPLAYED_SLUG.label("slug"), Article.dated_at
    title_query = select(_TITLE_QUERY.c.query).scalar_subquery()
    recent = (
        select(*columns)
        .where(_BY_DATE[visibility])
        .order_by(*_NEWEST_FIRST)
        .limit(MAX_RECENT)
        .subquery("recent")
    )
    recent_matches = (
        select(recent)
        .where(func.article_title_words(recent.c.title).bool_op("@@")(title_query))
        .order_by(recent.c.dated_at.desc(), recent.c.id.desc())
        .limit(MAX_SUGGESTIONS)
        .cte("near")
    )
    count = select(func.count()).select_from(recent_matches).scalar_subquery()
    all_matches = (
        select(*columns)
        .where(
            _BY_WORDS[visibility], TITLE_WORDS.bool_op("@@")(title_query), count < MAX_SUGGESTIONS
        )
        .limit(MAX_INDEX_MATCHES)
        .subquery("everywhere")
    )
    matches = union_all(
        select(recent_matches).where(count == MAX_SUGGESTIONS),
        select(all_matches),
    ).subquery("both")
    return (
        select(matches.c.id, matches.c.title, matches.c.slug)
        .order_by(matches.c.dated_at.desc(), matches.c.id.desc())
        .limit(MAX_SUGGESTIONS)
    )


_TITLE_QUERY = select(
    func.public.article_title_query(bindparam("q", type_=String), type_=TSQUERY).label("query")
).cte("wanted")
_SUGGESTION_STATEMENTS = {visibility: _suggestions(visibility) for visibility in Visibility}
