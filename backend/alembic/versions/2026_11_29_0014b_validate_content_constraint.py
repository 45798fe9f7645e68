"""Validate the constraint that 0014 added to articles, without blocking writes.

Revision: 0014b
Revises: 0014
"""

from alembic import op

revision = "0014b"
down_revision = "0014"
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
