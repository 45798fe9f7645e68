"""Add the sessions of web pages.

The previous release does not set the columns, so its sessions do not belong to pages.

Revision: 0018
Revises: 0017
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A constant default: PostgreSQL does not rewrite the table, and holds the lock only briefly.
    column = sa.Column("by_page", sa.Boolean(), server_default=sa.false(), nullable=False)
    op.add_column("user_sessions", column)
    op.add_column("user_sessions", sa.Column("confirmed_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    # Without the column, their cookies would be unknown to both releases.
    op.execute("DELETE FROM user_sessions WHERE by_page")
    op.drop_column("user_sessions", "confirmed_at")
    op.drop_column("user_sessions", "by_page")
