"""Note which API opened a session; those that are open count as opened by the native one.

The previous release leaves the column out, and its sessions count as native as well.

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
    # A constant default: PostgreSQL rewrites no row, and holds the lock for a moment only.
    column = sa.Column("by_conduit", sa.Boolean(), server_default=sa.false(), nullable=False)
    op.add_column("user_sessions", column)


def downgrade() -> None:
    op.drop_column("user_sessions", "by_conduit")
