"""Validate the constraint that 0005 added to articles, without blocking writes.

Revision: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE articles VALIDATE CONSTRAINT ck_articles_comment_policy_known")


def downgrade() -> None:
    op.execute("ALTER TABLE articles DROP CONSTRAINT ck_articles_comment_policy_known")
    op.execute(
        "ALTER TABLE articles ADD CONSTRAINT ck_articles_comment_policy_known"
        " CHECK (comment_policy IN ('open', 'held', 'closed')) NOT VALID"
    )
