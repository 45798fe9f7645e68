"""Add comments of people without an account: their name and website, and the id in their source.

It adds columns without a default, so PostgreSQL rewrites nothing. The previous release ignores
them, and shows these comments without an author.

Revision: 0014
Revises: 0013b
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013b"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("comments", sa.Column("guest_name", sa.String(100), nullable=True))
    op.add_column("comments", sa.Column("guest_url", sa.String(2000), nullable=True))
    op.add_column("comments", sa.Column("source_id", sa.Text(), nullable=True))


def downgrade() -> None:
    for column in ("source_id", "guest_url", "guest_name"):
        op.drop_column("comments", column)
