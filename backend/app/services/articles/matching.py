"""Finding articles by their words, in a time that does not grow with the blog.

PostgreSQL finds what matches in two ways, and either can take seconds of a million articles. By the
index of words it reads every match before it knows which are the newest, which is dear for a common
word. Along the index by date it looks into one article after the other until it has enough, which
is dear for a rare one. Its planner knows neither how common words are together, nor that a look at
an article's words costs a hundred times what it believes. So we ask a sample first: articles evenly
spread over all that there are. It says how common the query is, and since when there are enough
matches; from that moment on we look for them, in the way that is cheaper.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    BigInteger,
    BindParameter,
    ColumnElement,
    DateTime,
    Double,
    Select,
    SQLColumnExpression,
    String,
    TextClause,
    and_,
    any_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, TSQUERY

from app.auth.identity import Identity
from app.db.reading import Reader
from app.models.article import Article
from app.services.articles.rows import Sight, sight_of

MAX_CANDIDATES = 1000
"""How many matches are ranked: the newest ones."""
SAMPLE = 400
ENOUGH = 1.5 * MAX_CANDIDATES
"""As many matches as the sample lets us expect, a few more lest we expected too much."""
LEAST_HITS = 3
"""Matches in the sample that are no accident."""
MAX_READ = 10_000
"""About so many articles are looked into at most."""
MAX_FOUND = 50_000
"""No more are read where the sample misleads."""
LENGTH_COUNTS = 1
"""How ts_rank weighs the length of a text: by its logarithm."""

# What it costs, in microseconds, on a small server with everything in memory.
LOOK_INTO_ARTICLE = 6.0
READ_ARTICLE = 4.0
READ_INDEX_ENTRY = 0.2

# Each of them negates what follows, and PostgreSQL gives up after thirty.
_DASHES = re.compile(r"-[\s-]*-")

_MOMENT = DateTime(timezone=True)
_FOREVER = literal_column("'infinity'::timestamptz", _MOMENT)

STEMMED = (
    *("ar", "ca", "da", "de", "el", "en", "es", "eu", "fi", "fr", "ga", "hi", "hu", "hy"),
    *("id", "it", "lt", "ne", "nl", "no", "pt", "ro", "ru", "sr", "sv", "ta", "tr", "yi"),
)
"""Languages with a search configuration of their own; all others share one."""
# What stands for a configuration in a row: to call `article_search_config` takes 0.1 ms.
_GROUP_SQL = (
    "CASE WHEN split_part({0}, '-', 1) = ANY('{{" + ",".join(STEMMED) + "}}'::text[])"
    " THEN split_part({0}, '-', 1) ELSE '' END"
)
_PRIMARY = func.split_part(Article.language, "-", 1, type_=String)
_STEMMED = literal_column("'{" + ",".join(STEMMED) + "}'::text[]", ARRAY(String))
_GROUP = case((any_(_STEMMED) == _PRIMARY, _PRIMARY), else_=literal_column("''", String))

# A tsquery's `querytree` is what an index can find of it: nothing of `-word` alone. For a phrase,
# the index finds all articles that have its words, and each has to be looked into: `loose` says
# which those are. The sample is denser where the newest are, the square of the way back in time;
# chance moves each, lest they keep step with what comes at intervals. What the reader may not see
# is left out of it, so that hidden articles skew neither how common the words are nor the way.
#
# The configurations in use are read from an index, one step for each: there are a few dozen,
# whatever languages articles are in.
_INTERPRET = """
    WITH RECURSIVE steps AS (
      (
        SELECT public.article_search_config(language) AS config FROM articles
        WHERE {of_index} ORDER BY 1 LIMIT 1
      )
      UNION ALL
      SELECT (
        SELECT public.article_search_config(language) FROM articles
        WHERE public.article_search_config(language) > steps.config AND {of_index}
        ORDER BY 1 LIMIT 1
      ) FROM steps WHERE steps.config IS NOT NULL
    ), used AS MATERIALIZED (
      SELECT config, {group_of_one} AS language_group FROM (
        SELECT config, (
          SELECT articles.language FROM articles
          WHERE public.article_search_config(language) = steps.config AND {of_index} LIMIT 1
        ) AS language
        FROM steps WHERE config IS NOT NULL AND {is_used}
      ) AS one
    ), parsed AS MATERIALIZED (
      SELECT language_group, query,
        regexp_replace(
          CASE WHEN query::text LIKE '%!%' THEN querytree(query) ELSE query::text END,
          '<(-|[0-9]+)>', '&', 'g'
        )::tsquery AS loose
      FROM (
        SELECT language_group, public.article_search_query(config, :q) AS query
        FROM used
        WHERE CAST(:language AS text) IS NULL OR config = public.article_search_config(:language)
      ) AS asked
      WHERE querytree(query) NOT IN ('', 'T')
    ), bounds AS (
      SELECT max(id) AS last, max(id) - min(id) + 1 AS span FROM articles
    ), places AS (
      SELECT last - floor(way * way * span)::bigint AS id, 2 * way * span / :sample AS weight
      FROM bounds
      CROSS JOIN LATERAL (
        SELECT (number + (hashint8(number) & 1023) / 1024.0) / :sample AS way
        FROM generate_series(0, :sample - 1) AS number
      ) AS ways
    ), sampled AS MATERIALIZED (
      SELECT articles.dated_at, places.weight,
        coalesce(articles.search_vector @@ parsed.query, false) AS matches,
        coalesce(articles.search_vector @@ parsed.loose, false) AS is_candidate
      FROM places
      JOIN articles ON articles.id = places.id AND {visible}
      LEFT JOIN parsed ON parsed.language_group = {group}
        AND (CAST(:language AS text) IS NULL OR articles.language = :language)
      ORDER BY articles.dated_at DESC
    )
    SELECT
      ARRAY(SELECT language_group FROM parsed ORDER BY language_group) AS groups,
      ARRAY(SELECT query::text FROM parsed ORDER BY language_group) AS queries,
      ARRAY(SELECT querytree(query) FROM parsed ORDER BY language_group) AS positives,
      (SELECT count(*) FROM used) AS groups_in_use,
      ARRAY(SELECT dated_at FROM sampled) AS dates,
      ARRAY(SELECT weight::float8 FROM sampled) AS weights,
      ARRAY(SELECT matches FROM sampled) AS matches,
      ARRAY(SELECT is_candidate FROM sampled) AS candidates
"""
_CIRCULATING = (
    "(articles.published_at IS NOT NULL AND articles.archived_at IS NULL"
    " AND articles.deleted_at IS NULL)"
)
_OWN = "articles.author_id = :viewer_id"
_KEPT = "articles.deleted_at IS NULL"
_USED = (
    "EXISTS (SELECT FROM articles"
    " WHERE public.article_search_config(language) = steps.config AND {})"
)


class Seen(NamedTuple):
    """What a reader sees of the articles, as conditions in SQL."""

    visible: str
    of_index: str
    """What the index with the configurations has, if it does not have all articles."""
    is_used: str
    """Whether `steps.config` is that of an article which the reader sees."""


_SEEN: Mapping[Sight, Seen] = {
    Sight.PUBLISHED: Seen(f"{_CIRCULATING} AND articles.dated_at <= :now", _CIRCULATING, "true"),
    Sight.PUBLISHED_AND_OWN: Seen(
        f"{_KEPT} AND (articles.published_at <= :now AND articles.archived_at IS NULL OR {_OWN})",
        "true",
        f"({_USED.format(_CIRCULATING)} OR {_USED.format(_OWN)})",
    ),
    Sight.ALL: Seen(_KEPT, "true", "true"),
}


def _interpret(sight: Sight) -> TextClause:
    parameters: list[BindParameter[Any]] = [
        bindparam("q", type_=String),
        bindparam("language", type_=String),
        bindparam("sample", SAMPLE),
    ]
    if sight is not Sight.ALL:
        parameters.append(bindparam("now", type_=_MOMENT))
    if sight is Sight.PUBLISHED_AND_OWN:
        parameters.append(bindparam("viewer_id", type_=BigInteger))
    statement = _INTERPRET.format(
        **_SEEN[sight]._asdict(),
        group=_GROUP_SQL.format("articles.language"),
        group_of_one=_GROUP_SQL.format("language"),
    )
    return text(statement).bindparams(*parameters)


_STATEMENTS: Mapping[Sight, TextClause] = {sight: _interpret(sight) for sight in Sight}


class Shape(NamedTuple):
    """What the statements for some terms depend on, apart from their parameters."""

    groups: tuple[bool, ...]
    """For each query, whether it holds for some groups of languages only."""
    has_start: bool
    is_common: bool


class Query(NamedTuple):
    """What is looked for in some groups of languages, by search configuration; None for all."""

    groups: Sequence[str] | None
    tsquery: str
    positive: str
    """The same without what must not be there: by that, ts_rank would find all alike."""


class Terms(NamedTuple):
    """What to look for in articles, and how."""

    queries: Sequence[Query]
    since: datetime | None
    """From when on there are enough matches; None where there are too few to tell."""
    is_common: bool
    """Whether to look into article after article; else the index of words finds the matches."""
    is_common_anywhere: bool
    """The same, without `since`."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of statements with `candidates` or `query_of_article`."""
        values: dict[str, Any] = {} if self.since is None else {"matches_since": self.since}
        for number, query in enumerate(self.queries):
            values[f"query_{number}"] = query.tsquery
            values[f"positive_{number}"] = query.positive
            if query.groups is not None:
                values[f"groups_{number}"] = list(query.groups)
        return values

    @property
    def shape(self) -> Shape:
        """What `candidates` needs to know."""
        return Shape(
            groups=tuple(query.groups is not None for query in self.queries),
            has_start=self.since is not None,
            is_common=self.is_common,
        )

    def anywhere(self) -> "Terms":
        """The same, for a list that is filtered in other ways too: its matches may be older."""
        return self._replace(since=None, is_common=self.is_common_anywhere)


async def interpret(
    connection: Reader, *, q: str, viewer: Identity | None, language: str | None = None
) -> Terms | None:
    """What `q` asks for in the articles that `viewer` may see, or in those in one language.

    None where it can match nothing: stop words alone, or only what must not be there. One query.
    """
    sight, who = sight_of(viewer)
    parameters = {**who, "q": _DASHES.sub("-", q), "language": language}
    if sight is Sight.ALL:
        del parameters["now"]
    found = (await connection.execute(_STATEMENTS[sight], parameters)).one()
    groups_of: dict[tuple[str, str], list[str]] = {}
    for group, *query in zip(found.groups, found.queries, found.positives, strict=True):
        groups_of.setdefault((query[0], query[1]), []).append(group)
    if not groups_of:
        return None
    # In one language, the condition is on the language itself.
    is_everywhere = len(groups_of) == 1 and (
        language is not None or len(found.groups) == found.groups_in_use
    )
    since, is_common, is_common_anywhere = _choose_way(
        zip(found.dates, found.weights, found.matches, found.candidates, strict=True)
    )
    return Terms(
        queries=[
            Query(None if is_everywhere else groups, *query) for query, groups in groups_of.items()
        ],
        since=since,
        is_common=is_common,
        is_common_anywhere=is_common_anywhere,
    )


def _choose_way(
    sample: Iterable[tuple[datetime, float, bool, bool]],
) -> tuple[datetime | None, bool, bool]:
    """`since`, `is_common` and `is_common_anywhere` by a sample, newest first.

    A sample's row: its date, for how many articles it stands, whether it matches, and whether the
    index of words would find it.
    """
    since: datetime | None = None
    hits, walked, matching, read, candidates = 0, 0.0, 0.0, 0.0, 0.0
    for dated_at, weight, matches, is_candidate in sample:
        candidates += weight * is_candidate
        if since is None:
            walked += weight
            hits += matches
            matching += weight * matches
            read += weight * is_candidate
            if (matching >= ENOUGH and hits >= LEAST_HITS) or read >= MAX_READ:
                since = dated_at
    is_common_anywhere = candidates > MAX_READ
    if since is None:
        return None, False, is_common_anywhere
    look = READ_ARTICLE if read == matching else LOOK_INTO_ARTICLE
    walk = walked * LOOK_INTO_ARTICLE * min(1, MAX_CANDIDATES / max(matching, 1))
    by_words_since = (candidates + walked) * READ_INDEX_ENTRY + read * look
    by_words = candidates * (READ_INDEX_ENTRY + look)
    cheapest = min(walk, by_words_since, by_words)
    if cheapest == by_words and by_words < walk:
        since = None
    return since, cheapest == walk, is_common_anywhere


def candidates(shape: Shape, articles: Select[int, datetime]) -> CTE:
    """The newest articles that match, a thousand at most: their `id`, `dated_at` and `rank`.

    `articles` selects an id and a date from Article: of all that the reader may see, or of those
    among them that a list is filtered for. In a filtered list (`terms.anywhere()`), the matches of
    a common word are those among its newest 10,000 articles. Where the shape is not common, a
    condition that PostgreSQL could read from another index had better not be there if it holds for
    most articles, such as `dated_at <= now`: it might.

    The statement needs the parameters of `articles` and `terms.parameters`.
    """
    article_id, dated_at = articles.selected_columns
    if shape.has_start:
        # With both ends, PostgreSQL takes a range for a small one where it cannot know better.
        start = bindparam("matches_since", type_=_MOMENT)
        articles = articles.where(dated_at.between(start, _FOREVER))
    if shape.is_common:
        words = articles.add_columns(Article.search_vector, _GROUP.label("language_group"))
        walked = words.order_by(dated_at.desc(), article_id.desc())
        if not shape.has_start:
            walked = walked.limit(MAX_READ)
        each = walked.subquery("walked")
        # As a function: that no index knows.
        matching = _matches(shape, func.ts_match_vq, each.c.search_vector, each.c.language_group)
    else:
        by_index = articles.where(_matches(shape, _by_index, Article.search_vector, _GROUP))
        each = by_index.limit(MAX_FOUND).subquery("found")
        matching = true()
    found_id, found_at = list(each.c)[:2]
    newest = (
        select(found_id.label("id"), found_at.label("dated_at"))
        .where(matching)
        .order_by(found_at.desc(), found_id.desc())
        .limit(MAX_CANDIDATES)
        .subquery("newest")
    )
    positive = query_of_article(shape, _positive)
    rank = func.ts_rank(Article.search_vector, positive, LENGTH_COUNTS)
    return (
        select(newest.c.id, newest.c.dated_at, cast(rank, Double).label("rank"))
        .join(Article, Article.id == newest.c.id)
        .cte("candidates")
    )


def _query(number: int) -> ColumnElement[Any]:
    return cast(bindparam(f"query_{number}", type_=String), TSQUERY)


def _positive(number: int) -> ColumnElement[Any]:
    return cast(bindparam(f"positive_{number}", type_=String), TSQUERY)


def positive_text(number: int) -> ColumnElement[str]:
    """For `query_of_article`: what must be there, as text."""
    return bindparam(f"positive_{number}", type_=String)


def any_word(number: int) -> ColumnElement[Any]:
    """For `query_of_article`: what matches where one of the words does, or one of the phrases."""
    positive = bindparam(f"positive_{number}", type_=String)
    return cast(func.replace(positive, "&", "|"), TSQUERY)


def query_of_article(
    shape: Shape, query: Callable[[int], ColumnElement[Any]] = _query
) -> ColumnElement[Any]:
    """The tsquery for the search configuration of the article that a statement has."""
    if shape.groups == (False,):
        return query(0)
    return case(
        *((_groups(number).any_() == _GROUP, query(number)) for number in range(len(shape.groups)))
    )


def _matches(
    shape: Shape,
    match: Callable[[SQLColumnExpression[Any], ColumnElement[Any]], ColumnElement[bool]],
    vector: SQLColumnExpression[Any],
    group: SQLColumnExpression[str],
) -> ColumnElement[bool]:
    """Whether an article's words are as the query of its search configuration wants them.

    Not as one query for all: `-word` of one would exclude what another finds.
    """
    conditions = []
    for number, is_limited in enumerate(shape.groups):
        condition = match(vector, _query(number))
        if is_limited:
            condition = and_(group == _groups(number).any_(), condition)
        conditions.append(condition)
    return or_(*conditions)


def _by_index(vector: SQLColumnExpression[Any], query: ColumnElement[Any]) -> ColumnElement[bool]:
    return vector.bool_op("@@")(query)


def _groups(number: int) -> BindParameter[Sequence[str]]:
    return bindparam(f"groups_{number}", type_=ARRAY(String))
