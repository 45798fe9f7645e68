"""Replace the minimum length of an article's content by "not empty".

The previous release keeps writing articles of 10 characters or more, and shows shorter ones.

Revision: 0014
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # NOT VALID: the next migration validates it, without blocking writes.
    op.execute("ALTER TABLE articles DROP CONSTRAINT ck_articles_content_length")
    op.execute(
        "ALTER TABLE articles ADD CONSTRAINT ck_articles_content_not_empty"
        " CHECK (char_length(content) >= 1) NOT VALID"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE articles DROP CONSTRAINT ck_articles_content_not_empty")
    op.execute(
        "ALTER TABLE articles ADD CONSTRAINT ck_articles_content_length"
        " CHECK (char_length(content) >= 10) NOT VALID"
    )
    short = "SELECT EXISTS (SELECT FROM articles WHERE char_length(content) < 10)"
    if not op.get_bind().scalar(sa.text(short)):  # short articles stay
        op.execute("ALTER TABLE articles VALIDATE CONSTRAINT ck_articles_content_length")
