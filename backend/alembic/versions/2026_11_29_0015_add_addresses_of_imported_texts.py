"""Store the old addresses in imported texts, and which images were copied.

It adds two tables, and a column with a constant default. The previous release ignores them.

Revision: 0015
Revises: 0014b
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014b"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "imported_addresses",
        sa.Column("article_id", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("source_address", sa.Text(), nullable=False),
        sa.Column("is_image", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["article_id"],
            ["articles.id"],
            name="fk_imported_addresses_article_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("article_id", "address", name="pk_imported_addresses"),
    )
    op.create_table(
        "media_copies",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("media_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["media_id"], ["media.id"], name="fk_media_copies_media_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key", name="pk_media_copies"),
    )
    op.create_index("ix_media_copies_media_id", "media_copies", ["media_id"])
    op.add_column(
        "redirects",
        sa.Column("is_served", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )


def downgrade() -> None:
    op.drop_column("redirects", "is_served")
    op.drop_table("media_copies")
    op.drop_table("imported_addresses")
