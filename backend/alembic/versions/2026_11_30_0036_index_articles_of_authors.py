"""Index the public articles and the drafts of each author, without blocking writes.

Feeds count public articles of the followed authors, and lists include the drafts of their reader.
Both read these indexes alone.

It can be run again if it was interrupted.

Revision: 0036
Revises: 0035
"""

from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None

COLUMNS = "articles (author_id, dated_at DESC, id DESC)"
NOT_REMOVED = "archived_at IS NULL AND deleted_at IS NULL"
INDEXES = {
    "ix_articles_author_public": f"{COLUMNS} WHERE published_at IS NOT NULL AND {NOT_REMOVED}",
    "ix_articles_author_drafts": f"{COLUMNS} WHERE published_at IS NULL AND {NOT_REMOVED}",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")  # these statements wait without blocking others
        for name, columns in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {columns}")
        op.execute("SET lock_timeout = '5s'")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
