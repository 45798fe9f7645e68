"""Validate the constraint that 0013 added to articles, without blocking writes.

Revision: 0013b
Revises: 0013
"""

from alembic import op

revision = "0013b"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE articles VALIDATE CONSTRAINT ck_articles_content_not_empty")


def downgrade() -> None:
    op.execute("ALTER TABLE articles DROP CONSTRAINT ck_articles_content_not_empty")
    op.execute(
        "ALTER TABLE articles ADD CONSTRAINT ck_articles_content_not_empty"
        " CHECK (char_length(content) >= 1) NOT VALID"
    )
