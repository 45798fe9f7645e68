"""Add the API that opened a session. Existing sessions count as opened by the native API.

The previous release does not set the column, so its sessions count as native as well.

Revision: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A constant default: PostgreSQL does not rewrite the table, and holds the lock only briefly.
    column = sa.Column("by_conduit", sa.Boolean(), server_default=sa.false(), nullable=False)
    op.add_column("user_sessions", column)


def downgrade() -> None:
    op.drop_column("user_sessions", "by_conduit")
