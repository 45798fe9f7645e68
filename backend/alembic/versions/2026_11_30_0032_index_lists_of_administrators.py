"""Add indexes for the lists of administrators, without blocking writes.

They are of the actors in the audit trail, successful runs of jobs, and failed mails.

It can be run again if it was interrupted.

Revision: 0032
Revises: 0031
"""

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_audit_events_actor": "audit_events (actor_id, id)",
    "ix_job_runs_success": "job_runs (job, finished_at) WHERE error IS NULL",
    "ix_mails_failed": "mails (id) WHERE next_attempt_at IS NULL AND sent_at IS NULL",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")  # these statements wait without blocking others
        for name, columns in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {columns}")
        op.execute("SET lock_timeout = '5s'")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
