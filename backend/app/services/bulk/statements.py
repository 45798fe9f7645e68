"""The statements of a batch: each takes all its rows at once, as arrays.

Written in SQL: `unnest` over many arrays is what makes them few.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    DateTime,
    Integer,
    LargeBinary,
    String,
    TextClause,
    bindparam,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

IMPORTS_LOCK = 0x696D706F7274
"""Any number will do, as long as all who import take the same: "import"."""

_NUMBERS, _TEXTS, _BYTES = ARRAY(BigInteger), ARRAY(String), ARRAY(LargeBinary)
_MOMENTS, _COUNTS, _FLAGS = ARRAY(DateTime(timezone=True)), ARRAY(Integer), ARRAY(Boolean)


def _statement(sql: str, **types: TypeEngine[Any]) -> TextClause:
    return text(sql).bindparams(*(bindparam(name, type_=type_) for name, type_ in types.items()))


TAKE_TURNS = _statement("SELECT pg_advisory_xact_lock(:lock)", lock=BigInteger())
"""Batches of all imports come one after the other: two of the same file find each other's."""

KNOWN = _statement(
    "SELECT r.key, r.digest, r.article_id, a.author_id FROM import_records r"
    " JOIN articles a ON a.id = r.article_id WHERE r.key = ANY(:keys)",
    keys=_BYTES,
)

AUTHORS = _statement(
    "SELECT lower(username) AS username, id FROM users WHERE lower(username) = ANY(:usernames)"
    " ORDER BY id FOR KEY SHARE",
    usernames=_TEXTS,
)
"""They cannot be deleted before their articles are there."""

_OWNS_SLUG = (
    "(a.draft_slug IS NULL OR coalesce(a.published_at <= :now, false)"
    " AND a.archived_at IS NULL AND a.deleted_at IS NULL)"
)
HOLDERS = _statement(
    "SELECT f.slug, a.id, a.author_id, true AS former, false AS draft FROM former_slugs f"  # noqa: S608 - a constant of this module
    f" JOIN articles a ON a.id = f.article_id WHERE f.slug = ANY(:slugs) AND {_OWNS_SLUG}"
    " UNION ALL SELECT a.slug, a.id, a.author_id, false, false FROM articles a"
    f" WHERE a.slug = ANY(:slugs) AND {_OWNS_SLUG}"
    " UNION ALL SELECT a.draft_slug, a.id, a.author_id, false, true FROM articles a"
    " WHERE a.draft_slug = ANY(:slugs) AND a.author_id = ANY(:author_ids)"
    " ORDER BY former DESC",
    slugs=_TEXTS,
    author_ids=_NUMBERS,
    now=DateTime(timezone=True),
)
"""Whose these slugs are, or were; of what is not public, these authors' own.

A scheduled article whose moment has come keeps its `draft_slug` until the next write.
"""

HELD = _statement("SELECT slug FROM articles WHERE slug = ANY(:slugs)", slugs=_TEXTS)
"""Which of these are in the column, whether anybody may notice it or not."""

TARGETS = _statement(
    "SELECT id, title, slug, draft_slug, content, excerpt, own_excerpt, cover_image_url, language,"
    " version, published_at, archived_at, deleted_at, created_at, updated_at, author_id, edited_by,"
    " edited_at,"
    " ARRAY(SELECT t.key FROM article_tags s JOIN tags t ON t.id = s.tag_id"
    "   WHERE s.article_id = articles.id) AS tags"
    " FROM articles WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE",
    ids=_NUMBERS,
)

IDS = _statement(
    "SELECT nextval(pg_get_serial_sequence('articles', 'id')) FROM generate_series(1, :count)",
    count=Integer(),
)

ARTICLE_COLUMNS: dict[str, TypeEngine[Any]] = {
    "id": _NUMBERS,
    "title": _TEXTS,
    "slug": _TEXTS,
    "draft_slug": _TEXTS,
    "content": _TEXTS,
    "html": _TEXTS,
    "plain_text": _TEXTS,
    "toc": _TEXTS,
    "rendered_with": _COUNTS,
    "word_count": _COUNTS,
    "reading_time": _COUNTS,
    "excerpt": _TEXTS,
    "own_excerpt": _FLAGS,
    "cover_image_url": _TEXTS,
    "language": _TEXTS,
    "published_at": _MOMENTS,
    "archived_at": _MOMENTS,
    "created_at": _MOMENTS,
    "updated_at": _MOMENTS,
    "author_id": _NUMBERS,
}
_names = ", ".join(ARTICLE_COLUMNS)
_values = ", ".join("toc::jsonb" if name == "toc" else name for name in ARTICLE_COLUMNS)
_arrays = ", ".join(f":{name}" for name in ARTICLE_COLUMNS)

INSERT_ARTICLES = _statement(
    f"INSERT INTO articles ({_names}) SELECT {_values} FROM unnest({_arrays}) AS new ({_names})"  # noqa: S608 - constants of this module
    " ON CONFLICT DO NOTHING RETURNING id",
    **ARTICLE_COLUMNS,
)

UPDATE_ARTICLE = _statement(
    "UPDATE articles SET title = :title, slug = :slug, draft_slug = :draft_slug,"
    " content = :content, html = :html,"
    " plain_text = :plain_text, toc = CAST(:toc AS jsonb), rendered_with = :rendered_with,"
    " word_count = :word_count, reading_time = :reading_time, excerpt = :excerpt,"
    " own_excerpt = :own_excerpt, cover_image_url = :cover_image_url, language = :language,"
    " published_at = :published_at, archived_at = :archived_at, created_at = :created_at,"
    " updated_at = :updated_at, author_id = :author_id, edited_by = :edited_by,"
    " edited_at = :edited_at, version = version + 1 WHERE id = :id",
    toc=String(),
)

ADD_REVISIONS = _statement(
    "INSERT INTO article_revisions (article_id, version, title, content, author_id, created_at)"
    " SELECT * FROM unnest(:article_ids, :versions, :titles, :contents, :author_ids, :moments)",
    article_ids=_NUMBERS,
    versions=_COUNTS,
    titles=_TEXTS,
    contents=_TEXTS,
    author_ids=_NUMBERS,
    moments=_MOMENTS,
)

REMOVE_TAGS = _statement(
    "DELETE FROM article_tags WHERE article_id = ANY(:changed) AND (article_id, tag_id) NOT IN"
    " (SELECT * FROM unnest(:article_ids, :tag_ids))",
    changed=_NUMBERS,
    article_ids=_NUMBERS,
    tag_ids=_NUMBERS,
)

ADD_TAGS = _statement(
    "INSERT INTO article_tags (article_id, tag_id, position, spelling)"
    " SELECT * FROM unnest(:article_ids, :tag_ids, :positions, :spellings)"
    " ON CONFLICT (article_id, tag_id) DO UPDATE SET position = excluded.position,"
    " spelling = coalesce(excluded.spelling, article_tags.spelling)",
    article_ids=_NUMBERS,
    tag_ids=_NUMBERS,
    positions=_COUNTS,
    spellings=_TEXTS,
)

NOTE_RECORDS = _statement(
    "INSERT INTO import_records (key, digest, article_id)"
    " SELECT * FROM unnest(:keys, :digests, :article_ids) ON CONFLICT (key)"
    " DO UPDATE SET digest = excluded.digest, article_id = excluded.article_id",
    keys=_BYTES,
    digests=_BYTES,
    article_ids=_NUMBERS,
)
