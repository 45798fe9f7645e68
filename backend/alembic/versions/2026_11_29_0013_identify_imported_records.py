"""Identify imported records by source and id, and store their old addresses and further fields.

It adds columns and a table, and replaces the minimum length of an article's content by "not empty".
The previous release keeps writing, but imports made by it have no source.

Revision: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("import_records", sa.Column("source", sa.Text(), nullable=True))
    op.add_column("import_records", sa.Column("source_id", sa.Text(), nullable=True))
    op.add_column("articles", sa.Column("imported", postgresql.JSONB(), nullable=True))
    op.create_table(
        "redirects",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("article_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["article_id"], ["articles.id"], name="fk_redirects_article_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("path", "source", name="pk_redirects"),
    )
    op.create_index("ix_redirects_article_id", "redirects", ["article_id"])
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
    if not op.get_bind().scalar(sa.text(short)):  # short imported articles stay
        op.execute("ALTER TABLE articles VALIDATE CONSTRAINT ck_articles_content_length")
    op.drop_table("redirects")
    op.drop_column("articles", "imported")
    op.drop_column("import_records", "source_id")
    op.drop_column("import_records", "source")
