"""Add usage counts, user limits set by administrators, and upload reservations.

It only adds tables, which the previous release does not use.

Revision: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "limit_uses",
        sa.Column("subject", sa.String(80), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("level", sa.Float(), nullable=False),
        sa.Column("amount", sa.Float(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("counted_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("subject", "kind", name="pk_limit_uses"),
    )
    op.create_table(
        "limit_overrides",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_limit_overrides_amount_not_negative")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_limit_overrides_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "kind", name="pk_limit_overrides"),
    )
    op.create_table(
        "upload_reservations",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_upload_reservations_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_upload_reservations"),
    )
    op.create_index("ix_upload_reservations_user_id", "upload_reservations", ["user_id"])


def downgrade() -> None:
    for table in ("upload_reservations", "limit_overrides", "limit_uses"):
        op.drop_table(table)
