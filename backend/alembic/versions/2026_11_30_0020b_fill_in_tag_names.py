"""Store the names of the tags of existing articles.

It works in batches and does not block requests. It can be run again if it was interrupted.

Revision: 0020b
Revises: 0020
"""

import sqlalchemy as sa
from alembic import op

revision = "0020b"
down_revision = "0020"
branch_labels = None
depends_on = None

BATCH = 1000

FILL_IN = """
SELECT public.store_tag_names(ARRAY(
  SELECT id FROM public.articles WHERE tag_names IS NULL {0}
))
"""
BOUNDS = "SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM public.articles"


def upgrade() -> None:
    if op.get_context().as_sql:  # offline mode: a single statement without batches
        op.execute(FILL_IN.format(""))
        return
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        first, last = connection.execute(sa.text(BOUNDS)).one()
        batch = sa.text(FILL_IN.format("AND id BETWEEN :start AND :end"))
        for start in range(first, last + 1, BATCH):
            connection.execute(batch, {"start": start, "end": start + BATCH - 1})


def downgrade() -> None:
    """Keep the names: 0020 drops the columns."""
