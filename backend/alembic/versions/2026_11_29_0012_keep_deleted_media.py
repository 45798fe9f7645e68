"""Add what deleted images need to be kept for some time: owner, size, time of withdrawal.

It adds columns without a default, so PostgreSQL rewrites nothing. The previous release ignores
them, and deletes the files at once.

Downgrading forgets which files are withdrawn. The folder `deleted` of the storage can then be
emptied.

Revision: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

FUNCTION = """
CREATE OR REPLACE FUNCTION public.media_discard_files() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.discarded_folders (folder, discarded_at{columns})
  VALUES (OLD.folder, clock_timestamp(){values}) ON CONFLICT DO NOTHING;
  RETURN NULL;
END
$$
"""


def upgrade() -> None:
    op.add_column("discarded_folders", sa.Column("owner_id", sa.BigInteger()))
    op.add_column("discarded_folders", sa.Column("bytes", sa.BigInteger()))
    op.add_column("discarded_folders", sa.Column("withdrawn_at", sa.DateTime(timezone=True)))
    op.execute(FUNCTION.format(columns=", owner_id, bytes", values=", OLD.owner_id, OLD.bytes"))


def downgrade() -> None:
    op.execute(FUNCTION.format(columns="", values=""))
    for column in ("withdrawn_at", "bytes", "owner_id"):
        op.drop_column("discarded_folders", column)
