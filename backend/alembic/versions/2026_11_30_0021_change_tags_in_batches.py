"""Rename, merge and delete tags in batches of articles.

It only adds a table and replaces a function, so its duration does not depend on table sizes.

Revision: 0021
Revises: 0020b
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020b"
branch_labels = None
depends_on = None

# If a tag is being renamed, the job gives the new name to its articles, from the first one again:
# the new number tells a running batch so. Articles must lose their names at once when a tag is
# unlisted.
TAGS_AFTER_WRITE = """
CREATE OR REPLACE FUNCTION public.tags_after_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.is_listed THEN
    UPDATE public.tag_changes SET id = DEFAULT, after_article_id = 0
    WHERE tag_id = NEW.id AND action = 'rename';
    IF FOUND THEN
      RETURN NULL;
    END IF;
  END IF;
  PERFORM public.store_tag_names(
    ARRAY(SELECT article_id FROM public.article_tags WHERE tag_id = NEW.id)
  );
  RETURN NULL;
END
$$
"""

FORMER_TAGS_AFTER_WRITE = """
CREATE OR REPLACE FUNCTION public.tags_after_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM public.store_tag_names(
    ARRAY(SELECT article_id FROM public.article_tags WHERE tag_id = NEW.id)
  );
  RETURN NULL;
END
$$
"""

FINISH_RENAMING = """
SELECT public.store_tag_names(ARRAY(
  SELECT article_id FROM public.article_tags
  WHERE tag_id IN (SELECT tag_id FROM public.tag_changes WHERE action = 'rename')
))
"""


def upgrade() -> None:
    op.create_table(
        "tag_changes",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("tag_id", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.String(10), nullable=False),
        sa.Column("into_id", sa.BigInteger()),
        sa.Column("spelling", sa.String(50)),
        sa.Column("after_article_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            "action IN ('rename', 'merge', 'delete')", name=op.f("ck_tag_changes_action_known")
        ),
        sa.CheckConstraint(
            "(action = 'merge') = (into_id IS NOT NULL)", name=op.f("ck_tag_changes_into_of_merge")
        ),
        sa.ForeignKeyConstraint(
            ["tag_id"], ["tags.id"], name="fk_tag_changes_tag_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["into_id"], ["tags.id"], name="fk_tag_changes_into_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tag_changes"),
        sa.UniqueConstraint("tag_id", name="uq_tag_changes_tag_id"),
    )
    op.create_index("ix_tag_changes_into_id", "tag_changes", ["into_id"])
    op.execute(TAGS_AFTER_WRITE)


def downgrade() -> None:
    op.execute("LOCK TABLE articles, article_tags, tags IN ACCESS EXCLUSIVE MODE")
    op.execute(FINISH_RENAMING)
    op.execute(FORMER_TAGS_AFTER_WRITE)
    op.drop_table("tag_changes")
