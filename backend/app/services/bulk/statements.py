"""SQL statements of an import batch. Each takes all rows at once, as arrays.

They are written in SQL because `unnest` with several arrays keeps their number small.
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
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import TypeEngine

IMPORTS_LOCK = 0x696D706F7274
"""The key of the advisory lock of all imports: "import" in ASCII."""

_BIGINTS, _TEXTS, _BYTEAS = ARRAY(BigInteger), ARRAY(String), ARRAY(LargeBinary)
_TIMESTAMPS, _INTEGERS, _BOOLEANS = ARRAY(DateTime(timezone=True)), ARRAY(Integer), ARRAY(Boolean)


def _statement(sql: str, **types: TypeEngine[Any]) -> TextClause:
    return text(sql).bindparams(*(bindparam(name, type_=type_) for name, type_ in types.items()))


ACQUIRE_IMPORTS_LOCK = _statement("SELECT pg_advisory_xact_lock(:lock)", lock=BigInteger())
"""Serialize the batches of all imports, so that two imports of one file see each other's rows."""

IMPORT_RECORDS = _statement(
    "SELECT r.key, r.digest, r.article_id, r.source, a.author_id FROM import_records r"
    " JOIN articles a ON a.id = r.article_id WHERE r.key = ANY(:keys)",
    keys=_BYTEAS,
)

AUTHORS = _statement(
    "SELECT lower(username) AS username, id FROM users WHERE lower(username) = ANY(:usernames)"
    " ORDER BY id FOR KEY SHARE",
    usernames=_TEXTS,
)
"""The lock prevents the deletion of authors before their articles are written."""

_OWNS_SLUG = (
    "(a.draft_slug IS NULL OR coalesce(a.published_at <= :now, false)"
    " AND a.archived_at IS NULL AND a.deleted_at IS NULL)"
)
SLUG_OWNERS = _statement(
    "SELECT f.slug, a.id, a.author_id, true AS former, false AS draft FROM former_slugs f"  # noqa: S608 - a constant of this module
    f" JOIN articles a ON a.id = f.article_id WHERE f.slug = ANY(:slugs) AND {_OWNS_SLUG}"
    " UNION ALL SELECT a.slug, a.id, a.author_id, false, false FROM articles a"
    f" WHERE a.slug = ANY(:slugs) AND {_OWNS_SLUG}"
    " UNION ALL SELECT a.draft_slug, a.id, a.author_id, false, true FROM articles a"
    " WHERE a.draft_slug = ANY(:slugs) AND a.author_id = ANY(:author_ids)"
    " ORDER BY former DESC",
    slugs=_TEXTS,
    author_ids=_BIGINTS,
    now=DateTime(timezone=True),
)
"""The articles with these slugs or former slugs. Unpublished articles only of these authors.

A scheduled article that has become public keeps its `draft_slug` until the next write.
"""

TARGETS = _statement(
    "SELECT id, title, slug, draft_slug, content, excerpt, own_excerpt, cover_image_url, language,"
    " version, published_at, archived_at, deleted_at, created_at, updated_at, author_id, edited_by,"
    " edited_at, imported, comment_policy,"
    " ARRAY(SELECT t.key FROM article_tags s JOIN tags t ON t.id = s.tag_id"
    "   WHERE s.article_id = articles.id) AS tags,"
    " ARRAY(SELECT path FROM redirects WHERE article_id = articles.id) AS old_paths,"
    " ARRAY(SELECT f.slug FROM former_slugs f WHERE f.article_id = articles.id) AS former_slugs"
    " FROM articles WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE",
    ids=_BIGINTS,
)

UPDATE_ARTICLE = _statement(
    "UPDATE articles SET title = :title, slug = :slug, draft_slug = :draft_slug,"
    " content = :content, html = :html,"
    " plain_text = :plain_text, toc = :toc, rendered_with = :rendered_with,"
    " word_count = :word_count, reading_time = :reading_time, excerpt = :excerpt,"
    " own_excerpt = :own_excerpt, cover_image_url = :cover_image_url, language = :language,"
    " published_at = :published_at, archived_at = :archived_at, created_at = :created_at,"
    " updated_at = :updated_at, author_id = :author_id, edited_by = :edited_by,"
    " edited_at = :edited_at, imported = :imported, comment_policy = :comment_policy,"
    " version = version + 1 WHERE id = :id",
    toc=JSONB(),
    imported=JSONB(none_as_null=True),
)

ADD_REVISIONS = _statement(
    "INSERT INTO article_revisions (article_id, version, title, content, author_id, created_at)"
    " SELECT * FROM unnest(:article_ids, :versions, :titles, :contents, :author_ids, :moments)",
    article_ids=_BIGINTS,
    versions=_INTEGERS,
    titles=_TEXTS,
    contents=_TEXTS,
    author_ids=_BIGINTS,
    moments=_TIMESTAMPS,
)

REMOVE_TAGS = _statement(
    "DELETE FROM article_tags WHERE article_id = ANY(:changed) AND (article_id, tag_id) NOT IN"
    " (SELECT * FROM unnest(:article_ids, :tag_ids))",
    changed=_BIGINTS,
    article_ids=_BIGINTS,
    tag_ids=_BIGINTS,
)

UPSERT_IMPORT_RECORDS = _statement(
    "INSERT INTO import_records (key, digest, article_id, source, source_id)"
    " SELECT * FROM unnest(:keys, :digests, :article_ids, :sources, :source_ids)"
    " ON CONFLICT (key) DO UPDATE SET digest = excluded.digest, article_id = excluded.article_id,"
    " source = excluded.source, source_id = excluded.source_id",
    keys=_BYTEAS,
    digests=_BYTEAS,
    article_ids=_BIGINTS,
    sources=_TEXTS,
    source_ids=_TEXTS,
)

DELETE_FORMER_RECORDS = _statement(
    "DELETE FROM import_records WHERE key = ANY(:keys) AND source IS NULL", keys=_BYTEAS
)
"""Delete records of earlier releases, which stored no source, after they were identified."""

UPSERT_REDIRECTS = _statement(
    "INSERT INTO redirects (path, source, article_id, is_served)"
    " SELECT paths, sources, article_ids, :is_served"
    " FROM unnest(:paths, :sources, :article_ids) AS new (paths, sources, article_ids)"
    " ON CONFLICT (path, source)"
    " DO UPDATE SET article_id = excluded.article_id, is_served = excluded.is_served"
    " WHERE redirects.article_id <> excluded.article_id"
    " OR redirects.is_served <> excluded.is_served",
    paths=_TEXTS,
    sources=_TEXTS,
    article_ids=_BIGINTS,
    is_served=Boolean(),
)

DELETE_ADDRESSES = _statement(
    "DELETE FROM imported_addresses WHERE article_id = ANY(:article_ids)", article_ids=_BIGINTS
)

INSERT_ADDRESSES = _statement(
    "INSERT INTO imported_addresses (article_id, address, source_address, is_image)"
    " SELECT * FROM unnest(:article_ids, :addresses, :source_addresses, :are_images)"
    " ON CONFLICT DO NOTHING",
    article_ids=_BIGINTS,
    addresses=_TEXTS,
    source_addresses=_TEXTS,
    are_images=_BOOLEANS,
)

ADD_FORMER_SLUGS = _statement(
    "INSERT INTO former_slugs (slug, article_id)"  # noqa: S608 - a constant of this module
    " SELECT new.slug, new.article_id FROM unnest(:slugs, :article_ids) AS new (slug, article_id)"
    f" WHERE NOT EXISTS (SELECT FROM articles a WHERE a.slug = new.slug AND {_OWNS_SLUG})"
    " ORDER BY new.slug ON CONFLICT DO NOTHING",
    slugs=_TEXTS,
    article_ids=_BIGINTS,
    now=DateTime(timezone=True),
)
FORMER_SLUGS = _statement(
    "SELECT slug, article_id FROM former_slugs WHERE slug = ANY(:slugs)", slugs=_TEXTS
)

_RECORD_ID = (
    "coalesce(c.source_id, 'pressroom-' || c.id || '-' ||"
    " (extract(epoch FROM c.created_at) * 1000000)::bigint)"
)
"""The id of a comment in records. That of a comment written here is unique among servers."""

COMMENTS = _statement(
    f"SELECT c.id, c.article_id, c.root_id, c.source_id, {_RECORD_ID} AS record_id,"  # noqa: S608 - a constant of this module
    " c.content, c.status, c.deleted_at FROM comments c WHERE c.article_id = ANY(:article_ids)"
    " ORDER BY c.id",
    article_ids=_BIGINTS,
)

COMMENT_BYTES = _statement(
    "SELECT article_id, sum(octet_length(content)) AS bytes FROM comments"
    " WHERE article_id = ANY(:article_ids) GROUP BY article_id",
    article_ids=_BIGINTS,
)

EXPORTED_COMMENTS = _statement(
    f"SELECT c.id, c.article_id, c.parent_id, {_RECORD_ID} AS record_id, c.content, c.status,"  # noqa: S608 - a constant of this module
    " c.guest_name, c.guest_url, c.locked_at, c.edited_at, c.deleted_at, c.created_at,"
    " u.username FROM comments c LEFT JOIN users u ON u.id = c.author_id"
    " WHERE c.article_id = ANY(:article_ids) ORDER BY c.id",
    article_ids=_BIGINTS,
)

NEXT_COMMENT_IDS = _statement(
    "SELECT nextval(pg_get_serial_sequence('comments', 'id')) FROM generate_series(1, :count)",
    count=Integer(),
)
"""The ids of new comments, which their replies in the same statement refer to."""

INSERT_COMMENTS = _statement(
    "INSERT INTO comments (id, article_id, author_id, root_id, parent_id, guest_name, guest_url,"
    " source_id, content, html, status, locked_at, edited_at, created_at, updated_at)"
    " SELECT * FROM unnest(:ids, :article_ids, :author_ids, :root_ids, :parent_ids, :names, :urls,"
    " :source_ids, :contents, :htmls, :statuses, :locked, :edited, :created, :updated)",
    ids=_BIGINTS,
    article_ids=_BIGINTS,
    author_ids=_BIGINTS,
    root_ids=_BIGINTS,
    parent_ids=_BIGINTS,
    names=_TEXTS,
    urls=_TEXTS,
    source_ids=_TEXTS,
    contents=_TEXTS,
    htmls=_TEXTS,
    statuses=_TEXTS,
    locked=_TIMESTAMPS,
    edited=_TIMESTAMPS,
    created=_TIMESTAMPS,
    updated=_TIMESTAMPS,
)

UPDATE_COMMENTS = _statement(
    "UPDATE comments SET content = news.content, html = news.html, edited_at = news.edited_at,"
    " updated_at = news.edited_at"
    " FROM unnest(:ids, :contents, :htmls, :edited) AS news (id, content, html, edited_at)"
    " WHERE comments.id = news.id AND comments.deleted_at IS NULL",
    ids=_BIGINTS,
    contents=_TEXTS,
    htmls=_TEXTS,
    edited=_TIMESTAMPS,
)

APPROVE_COMMENTS = _statement(
    "UPDATE comments SET status = 'visible', updated_at = :now"
    " WHERE id = ANY(:ids) AND status = 'pending'",
    ids=_BIGINTS,
    now=DateTime(timezone=True),
)
