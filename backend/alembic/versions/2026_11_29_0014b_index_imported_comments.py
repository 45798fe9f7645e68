"""Add the unique index of imported comments, without blocking writes.

It can be run again if it was interrupted.

Revision: 0014b
Revises: 0014
"""

from alembic import op

revision = "0014b"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")  # these statements wait without blocking others
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS uq_comments_source_id")
        op.execute(
            "CREATE UNIQUE INDEX CONCURRENTLY uq_comments_source_id"
            " ON comments (article_id, source_id) WHERE source_id IS NOT NULL"
        )
        op.execute("SET lock_timeout = '5s'")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS uq_comments_source_id")
