"""Add the runs of background jobs, and maintenance mode.

It only adds a table and columns. The previous release ignores them.

Revision: 0030
Revises: 0021
"""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_runs",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("job", sa.String(50), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rows", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", sa.String(500), nullable=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_job_runs"),
    )
    op.create_index("ix_job_runs_job_id", "job_runs", ["job", "id"])
    op.create_index(
        "uq_job_runs_unfinished",
        "job_runs",
        ["job"],
        unique=True,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.add_column("installation", sa.Column("maintenance", sa.String(500), nullable=True))
    op.add_column(
        "installation", sa.Column("maintenance_since", sa.DateTime(timezone=True), nullable=True)
    )


def downgrade() -> None:
    op.drop_column("installation", "maintenance_since")
    op.drop_column("installation", "maintenance")
    op.drop_table("job_runs")
