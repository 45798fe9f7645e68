"""Set the keys of existing tags, flag the visible ones, and add indexes.

It works in batches and does not block requests. It can be run again if it was interrupted.

It cannot split tags that the previous release treated as one: their spellings are not stored.

Revision: 0007b
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0007b"
down_revision = "0007"
branch_labels = None
depends_on = None

BATCH = 1000

# Of two tags with the same key, the older one gets it. The application merges the other one later.
KEYS = """
    UPDATE tags SET key = found.key
    FROM (
      SELECT DISTINCT ON (key) id, key
      FROM (SELECT id, tag_key(name) AS key FROM tags WHERE key IS NULL {0}) AS keyless
      ORDER BY key, id
    ) AS found
    WHERE tags.id = found.id AND NOT EXISTS (SELECT FROM tags AS other WHERE other.key = found.key)
"""
LISTED = """
    UPDATE tags SET is_listed = true
    WHERE NOT is_listed {0} AND EXISTS (
      SELECT FROM article_tags WHERE tag_id = tags.id AND listed_at <= clock_timestamp()
    )
"""
BOUNDS = "SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM tags"

INDEXES = {
    "uq_tags_key": "UNIQUE INDEX CONCURRENTLY uq_tags_key ON tags (key)",
    "ix_tags_listed": "INDEX CONCURRENTLY ix_tags_listed ON tags (slug) WHERE is_listed",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE tags DROP CONSTRAINT IF EXISTS uq_tags_key")
        op.execute("SET lock_timeout = 0")  # these statements wait without blocking others
        for name, index in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE {index}")
        op.execute("SET lock_timeout = '5s'")
        _fill_in()
    op.execute("ALTER TABLE tags ADD CONSTRAINT uq_tags_key UNIQUE USING INDEX uq_tags_key")


def _fill_in() -> None:
    if op.get_context().as_sql:  # offline mode: a single statement without batches
        op.execute(KEYS.format(""))
        op.execute(LISTED.format(""))
        return
    connection = op.get_bind()
    first, last = connection.execute(sa.text(BOUNDS)).one()
    for start in range(first, last + 1, BATCH):
        batch = {"start": start, "end": start + BATCH - 1}
        for statement in (KEYS, LISTED):
            of_batch = statement.format("AND id BETWEEN :start AND :end")
            connection.execute(sa.text(of_batch), batch)


def downgrade() -> None:
    op.drop_constraint("uq_tags_key", "tags", if_exists=True)
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_tags_listed")
