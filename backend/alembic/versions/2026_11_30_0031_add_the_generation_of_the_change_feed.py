"""Add the generation of the change feed, which changes with each restore.

It only adds a column. The previous release ignores it.

Revision: 0031
Revises: 0030
"""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("installation", sa.Column("generation", sa.Uuid(), nullable=True))


def downgrade() -> None:
    op.drop_column("installation", "generation")
