"""Add the nonce of the code with which the first administrator registers.

It only adds a table. The previous release ignores it.

Revision: 0019
Revises: 0018
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "first_start",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("nonce", sa.Uuid(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_first_start_single_row")),
        sa.PrimaryKeyConstraint("id", name="pk_first_start"),
    )


def downgrade() -> None:
    op.drop_table("first_start")
