"""Full-text search in time that does not grow with the number of articles.

PostgreSQL can find matches in two ways. Each of them can take seconds with a million articles.

The search index (GIN) returns every match before the newest are known. That is slow for a common
word. The date index is scanned from the newest article until enough match. That is slow for a rare
word.

The planner cannot choose between them. It does not know how often words occur together, and
underestimates the cost of checking an article a hundredfold.

So a first query checks a sample, which is denser among recent articles. The sample estimates how
common the query is, and since which date enough articles match. The search is then limited to that
period and uses the cheaper way.
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
    Subquery,
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
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, TSQUERY, TSVECTOR

from app.auth.identity import Identity
from app.db.reading import Reader
from app.models.articles.article import Article
from app.services.articles.rows import Visibility, visibility_of

MAX_CANDIDATES = 1000
"""How many matches are returned: the newest ones."""
RANKED_CANDIDATES = 200
"""How many of these are ranked, again the newest ones. The others follow, with rank 0.

Ranking an article costs ten times as much as finding it.
"""
RECENT_ARTICLES = 1000
"""Where a search of a blog without a sample looks first: enough for a common word."""
SAMPLE_SIZE = 400
SUFFICIENT_MATCHES = 1.5 * MAX_CANDIDATES
"""How many matches the period must contain by estimate; the margin covers sampling errors."""
MIN_SAMPLE_HITS = 3
"""Fewer matches in the sample may be a coincidence."""
MAX_EXAMINED = 10_000
"""The approximate maximum number of articles whose words are checked."""
MAX_INDEX_MATCHES = 50_000
"""A hard limit for matches read from the search index, in case the estimate is wrong."""
RANK_NORMALIZATION = 1
"""Normalisation flag of `ts_rank`: divide by the logarithm of the document's length."""

# Costs in microseconds, measured on a small server with all data in memory.
CHECK_ARTICLE_COST = 6.0
READ_ARTICLE_COST = 4.0
READ_INDEX_ENTRY_COST = 0.2

# PostgreSQL parses each dash as a negation, and fails after thirty nested ones.
_DASHES = re.compile(r"-[\s-]*-")

_TIMESTAMP = DateTime(timezone=True)
_INFINITY = literal_column("'infinity'::timestamptz", _TIMESTAMP)

STEMMED = (
    *("ar", "ca", "da", "de", "el", "en", "es", "eu", "fi", "fr", "ga", "hi", "hu", "hy"),
    *("id", "it", "lt", "ne", "nl", "no", "pt", "ro", "ru", "sr", "sv", "ta", "tr", "yi"),
)
"""Languages with their own search configuration; all others share one."""
# The language group of a row. It replaces `article_search_config`, which takes 0.1 ms per call.
_GROUP_SQL = (
    "CASE WHEN split_part({0}, '-', 1) = ANY('{{" + ",".join(STEMMED) + "}}'::text[])"
    " THEN split_part({0}, '-', 1) ELSE '' END"
)
_PRIMARY = func.split_part(Article.language, "-", 1, type_=String)
_STEMMED = literal_column("'{" + ",".join(STEMMED) + "}'::text[]", ARRAY(String))
_GROUP = case((any_(_STEMMED) == _PRIMARY, _PRIMARY), else_=literal_column("''", String))

# Always true. PostgreSQL adds the cost of the branch to each row, but never evaluates it. Otherwise
# it would check all articles of a small table, instead of using the search index. It knows the cost
# of `@@` itself, but not of reading a `tsvector`, which is stored outside the row.
_CHECKED_AT_A_COST = case(
    (Article.id < literal_column("0"), func.to_tsvector(Article.title)),
    else_=literal_column("NULL::tsvector", TSVECTOR),
).is_(None)

# `querytree` returns the part of a tsquery that an index can find: nothing for `-word` alone. For a
# phrase, the index returns all articles with its words, and each has to be checked. `loose` is the
# query that matches these articles. The sample's distance into the past grows with the square, so
# it is denser among new articles. A hash moves each sampled id, to avoid aliasing with periodic
# data. Articles that the viewer may not see are excluded. Otherwise they would distort the
# estimates. OFFSET 0 prevents a join that reads all articles. There is no sample if the index can
# return all matches without checking any: in a small blog, unless there are phrases or negations.
#
# A recursive query skips through the index to list the configurations in use. There are only a few
# dozen, in whatever languages articles are written.
_PARSE_QUERY_SQL = """
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
      ) AS queries
      WHERE querytree(query) NOT IN ('', 'T')
    ), bounds AS (
      SELECT max(id) AS last, max(id) - min(id) + 1 AS span FROM articles
    ), sample_ids AS (
      SELECT last - floor(distance * distance * span)::bigint AS id,
        2 * distance * span / {sample} AS weight
      FROM bounds
      CROSS JOIN LATERAL (
        SELECT (number + (hashint8(number) & 1023) / 1024.0) / {sample} AS distance
        FROM generate_series(0, {sample} - 1) AS number
      ) AS distances
      WHERE span > :unsampled OR EXISTS (SELECT FROM parsed WHERE query::text ~ '[!<]')
    ), sampled AS MATERIALIZED (
      SELECT articles.dated_at, sample_ids.weight,
        coalesce(articles.search_vector @@ parsed.query, false) AS matches,
        coalesce(articles.search_vector @@ parsed.loose, false) AS is_candidate
      FROM sample_ids
      CROSS JOIN LATERAL (
        SELECT articles.dated_at, articles.search_vector, articles.language
        FROM articles WHERE articles.id = sample_ids.id AND {visible} OFFSET 0
      ) AS articles
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
_PUBLISHED_OR_SCHEDULED = (
    "(articles.published_at IS NOT NULL AND articles.archived_at IS NULL"
    " AND articles.deleted_at IS NULL)"
)
_BY_VIEWER = "articles.author_id = :viewer_id"
_NOT_DELETED = "articles.deleted_at IS NULL"
_CONFIG_IN_USE = (
    "EXISTS (SELECT FROM articles"
    " WHERE public.article_search_config(language) = steps.config AND {})"
)


class VisibilitySql(NamedTuple):
    """The viewer's visibility, as SQL conditions."""

    visible: str
    of_index: str
    """Restricts the lookup of configurations to a partial index; `true` for the full index."""
    is_used: str
    """Whether the viewer may see an article with `steps.config`."""


_VISIBILITY_SQL: Mapping[Visibility, VisibilitySql] = {
    Visibility.PUBLISHED: VisibilitySql(
        f"{_PUBLISHED_OR_SCHEDULED} AND articles.dated_at <= :now", _PUBLISHED_OR_SCHEDULED, "true"
    ),
    Visibility.PUBLISHED_AND_OWN: VisibilitySql(
        f"{_NOT_DELETED} AND (articles.published_at <= :now AND articles.archived_at IS NULL"
        f" OR {_BY_VIEWER})",
        "true",
        f"({_CONFIG_IN_USE.format(_PUBLISHED_OR_SCHEDULED)}"
        f" OR {_CONFIG_IN_USE.format(_BY_VIEWER)})",
    ),
    Visibility.ALL: VisibilitySql(_NOT_DELETED, "true", "true"),
}


def _parse_statement(visibility: Visibility) -> TextClause:
    parameters: list[BindParameter[Any]] = [
        bindparam("q", type_=String),
        bindparam("language", type_=String),
        bindparam("unsampled", type_=BigInteger),
    ]
    if visibility is not Visibility.ALL:
        parameters.append(bindparam("now", type_=_TIMESTAMP))
    if visibility is Visibility.PUBLISHED_AND_OWN:
        parameters.append(bindparam("viewer_id", type_=BigInteger))
    statement = _PARSE_QUERY_SQL.format(
        **_VISIBILITY_SQL[visibility]._asdict(),
        group=_GROUP_SQL.format("articles.language"),
        group_of_one=_GROUP_SQL.format("language"),
        sample=SAMPLE_SIZE,
    )
    return text(statement).bindparams(*parameters)


_STATEMENTS: Mapping[Visibility, TextClause] = {
    visibility: _parse_statement(visibility) for visibility in Visibility
}


class SearchSpec(NamedTuple):
    """The parts of the search terms that change the SQL."""

    groups: tuple[bool, ...]
    """For each query, whether it applies to some language groups only."""
    has_since: bool
    is_common: bool


class GroupQuery(NamedTuple):
    """The query for some language groups; `groups` is None if it applies to all."""

    groups: Sequence[str] | None
    tsquery: str
    positive: str
    """The query without its negations, for ranking: `ts_rank` gives equal ranks with them."""


class Terms(NamedTuple):
    """What to search for, and which way to use."""

    queries: Sequence[GroupQuery]
    since: datetime | None
    """The date since which enough articles match; None if the estimate finds too few."""
    is_common: bool
    """Whether to scan articles by date; otherwise the search index is used."""
    is_common_anywhere: bool
    """The value of `is_common` without `since`."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Bound parameters of statements that use `candidates` or `article_query`."""
        values: dict[str, Any] = {} if self.since is None else {"matches_since": self.since}
        for number, query in enumerate(self.queries):
            values[f"query_{number}"] = query.tsquery
            values[f"positive_{number}"] = query.positive
            if query.groups is not None:
                values[f"groups_{number}"] = list(query.groups)
        return values

    @property
    def spec(self) -> SearchSpec:
        """The arguments of `candidates`."""
        return SearchSpec(
            groups=tuple(query.groups is not None for query in self.queries),
            has_since=self.since is not None,
            is_common=self.is_common,
        )

    def without_since(self) -> "Terms":
        """Return the terms for a list with other filters: its matches may be older than `since`."""
        return self._replace(since=None, is_common=self.is_common_anywhere)


async def parse_query(
    reader: Reader, *, q: str, viewer: Identity | None, language: str | None = None
) -> Terms | None:
    """Parse `q` for the articles that `viewer` may see, optionally in one language.

    Return None if nothing can match: only stop words, or only negations. Runs one query.
    """
    visibility, params = visibility_of(viewer)
    parameters = {
        **params,
        "q": _DASHES.sub("-", q),
        "language": language,
        "unsampled": MAX_EXAMINED,
    }
    if visibility is Visibility.ALL:
        del parameters["now"]
    found = (await reader.execute(_STATEMENTS[visibility], parameters)).one()
    groups_of: dict[tuple[str, str], list[str]] = {}
    for group, *query in zip(found.groups, found.queries, found.positives, strict=True):
        groups_of.setdefault((query[0], query[1]), []).append(group)
    if not groups_of:
        return None
    # With a language filter, a condition on the language makes a condition on the group redundant.
    in_all_groups = len(groups_of) == 1 and (
        language is not None or len(found.groups) == found.groups_in_use
    )
    since, is_common, is_common_anywhere = _choose_strategy(
        zip(found.dates, found.weights, found.matches, found.candidates, strict=True)
    )
    return Terms(
        queries=[
            GroupQuery(None if in_all_groups else groups, *query)
            for query, groups in groups_of.items()
        ],
        since=since,
        is_common=is_common,
        is_common_anywhere=is_common_anywhere,
    )


def _choose_strategy(
    sample: Iterable[tuple[datetime, float, bool, bool]],
) -> tuple[datetime | None, bool, bool]:
    """Return `since`, `is_common` and `is_common_anywhere` for a sample, newest first.

    A row contains the date and the number of articles that it represents. It also contains whether
    it matches, and whether the search index would return it.
    """
    since: datetime | None = None
    hits, scanned, matching, read, candidates = 0, 0.0, 0.0, 0.0, 0.0
    for dated_at, weight, matches, is_candidate in sample:
        candidates += weight * is_candidate
        if since is None:
            scanned += weight
            hits += matches
            matching += weight * matches
            read += weight * is_candidate
            if (matching >= SUFFICIENT_MATCHES and hits >= MIN_SAMPLE_HITS) or read >= MAX_EXAMINED:
                since = dated_at
    is_common_anywhere = candidates > MAX_EXAMINED
    if since is None:
        return None, False, is_common_anywhere
    cost_per_candidate = READ_ARTICLE_COST if read == matching else CHECK_ARTICLE_COST
    scan_cost = scanned * CHECK_ARTICLE_COST * min(1, MAX_CANDIDATES / max(matching, 1))
    index_since_cost = (candidates + scanned) * READ_INDEX_ENTRY_COST + read * cost_per_candidate
    index_cost = candidates * (READ_INDEX_ENTRY_COST + cost_per_candidate)
    cheapest = min(scan_cost, index_since_cost, index_cost)
    if cheapest == index_cost and index_cost < scan_cost:
        since = None
    return since, cheapest == scan_cost, is_common_anywhere


def wanted_candidates(number: int) -> int:
    """Return how many candidates a page needs that ends with the result of this number."""
    return min(max(number, RANKED_CANDIDATES), MAX_CANDIDATES)


def candidates(
    spec: SearchSpec, articles: Select[int, datetime], wanted: BindParameter[int] | None = None
) -> CTE:
    """Select `id`, `dated_at` and `rank` of the newest matches, at most MAX_CANDIDATES.

    Only the first RANKED_CANDIDATES have a rank, the others 0. With `wanted`, at most so many are
    selected, with the same ranks (`wanted_candidates`).

    `articles` selects an id and a date from Article, with the visibility and the filters of the
    list. In a filtered list (`terms.without_since()`), a common word is searched among the newest
    MAX_EXAMINED articles only.

    If the terms are not common, avoid indexed conditions that hold for most rows, such as
    `dated_at <= now`. PostgreSQL might use that index instead.

    The statement needs the parameters of `articles` and `terms.parameters`.
    """
    article_id, dated_at = articles.selected_columns
    if spec.has_since:
        # With both bounds, PostgreSQL estimates a small range even where it has no statistics.
        since = bindparam("matches_since", type_=_TIMESTAMP)
        articles = articles.where(dated_at.between(since, _INFINITY))
    articles = articles.add_columns(Article.search_vector, _GROUP.label("language_group"))
    if spec.is_common:
        scanned = articles.order_by(dated_at.desc(), article_id.desc())
        if not spec.has_since:
            scanned = scanned.limit(MAX_EXAMINED)
        matched = scanned.subquery("walked")
        # A function call instead of the operator, which prevents the use of the search index.
        matching = _matches(
            spec, func.ts_match_vq, matched.c.search_vector, matched.c.language_group
        )
    else:
        by_index = articles.where(
            _matches(spec, _by_index, Article.search_vector, _GROUP), _CHECKED_AT_A_COST
        )
        if wanted is None or spec.has_since:
            matched = by_index.limit(MAX_INDEX_MATCHES).subquery("found")
        else:
            matched = _recent_or_all(by_index, wanted)
        matching = true()
    found_id, found_at, vector, group = matched.c
    matches = (
        select(found_id.label("id"), found_at.label("dated_at"), vector, group)
        .where(matching)
        .order_by(found_at.desc(), found_id.desc())
        .limit(MAX_CANDIDATES if wanted is None else wanted)
        .subquery("matches")
    )
    order = matches.c.dated_at.desc(), matches.c.id.desc()
    newest = select(matches, func.row_number().over(order_by=order).label("number")).subquery(
        "newest"
    )
    positive = article_query(spec, positive_query, newest.c.language_group)
    rank = case(
        (
            newest.c.number <= RANKED_CANDIDATES,
            func.ts_rank(newest.c.search_vector, positive, RANK_NORMALIZATION),
        ),
        else_=0,
    )
    return select(newest.c.id, newest.c.dated_at, cast(rank, Double).label("rank")).cte(
        "candidates"
    )


def _recent_or_all(by_index: Select[int, datetime], wanted: BindParameter[int]) -> Subquery:
    """Select matches among the newest articles if they suffice, otherwise among all."""
    article_id, dated_at, *_ = by_index.selected_columns
    newest = dated_at.desc(), article_id.desc()
    since = (
        select(Article.dated_at)
        .order_by(Article.dated_at.desc(), Article.id.desc())
        .offset(RECENT_ARTICLES)
        .limit(1)
        .correlate(None)
        .scalar_subquery()
    )
    recent = by_index.where(dated_at >= since).order_by(*newest).limit(wanted).cte("recent")
    count = select(func.count()).select_from(recent).scalar_subquery()
    everywhere = by_index.where(count < wanted).limit(MAX_INDEX_MATCHES).subquery("everywhere")
    return union_all(select(recent).where(count == wanted), select(everywhere)).subquery("found")


def _query(number: int) -> ColumnElement[Any]:
    return cast(bindparam(f"query_{number}", type_=String), TSQUERY)


def positive_query(number: int) -> ColumnElement[Any]:
    """Argument for `article_query`: the query without negations."""
    return cast(bindparam(f"positive_{number}", type_=String), TSQUERY)


def positive_text(number: int) -> ColumnElement[str]:
    """Argument for `article_query`: the query without negations, as text."""
    return bindparam(f"positive_{number}", type_=String)


def any_word(number: int) -> ColumnElement[Any]:
    """Argument for `article_query`: a query that matches any of the words or phrases."""
    positive = bindparam(f"positive_{number}", type_=String)
    return cast(func.replace(positive, "&", "|"), TSQUERY)


def article_query(
    spec: SearchSpec,
    query: Callable[[int], ColumnElement[Any]] = _query,
    group: SQLColumnExpression[str] = _GROUP,
) -> ColumnElement[Any]:
    """Return the tsquery for the search configuration of an article, by default of Article."""
    if spec.groups == (False,):
        return query(0)
    return case(
        *(
            (_group_parameter(number).any_() == group, query(number))
            for number in range(len(spec.groups))
        )
    )


def _matches(
    spec: SearchSpec,
    match: Callable[[SQLColumnExpression[Any], ColumnElement[Any]], ColumnElement[bool]],
    vector: SQLColumnExpression[Any],
    group: SQLColumnExpression[str],
) -> ColumnElement[bool]:
    """Whether an article matches the query of its search configuration.

    The queries are not combined into one: a negation in one would exclude matches of another.
    """
    conditions = []
    for number, is_limited in enumerate(spec.groups):
        condition = match(vector, _query(number))
        if is_limited:
            condition = and_(group == _group_parameter(number).any_(), condition)
        conditions.append(condition)
    return or_(*conditions)


def _by_index(vector: SQLColumnExpression[Any], query: ColumnElement[Any]) -> ColumnElement[bool]:
    return vector.bool_op("@@")(query)


def _group_parameter(number: int) -> BindParameter[Sequence[str]]:
    return bindparam(f"groups_{number}", type_=ARRAY(String))
