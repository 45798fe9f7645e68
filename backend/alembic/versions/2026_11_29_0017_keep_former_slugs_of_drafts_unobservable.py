"""Add the former slugs of unpublished articles, and the space that imports reserve.

`former_slugs` has one article for each slug, so it contains only articles that are or were public.
A trigger moves the other rows there when their article becomes public.

Revision: 0017
Revises: 0016
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

PUBLISH_FORMER_SLUGS = """
CREATE FUNCTION public.articles_publish_former_slugs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.draft_slug IS NOT NULL AND NOT (
    coalesce(NEW.published_at <= clock_timestamp(), false)
    AND NEW.archived_at IS NULL AND NEW.deleted_at IS NULL
  ) THEN
    RETURN NULL;
  END IF;
  WITH published AS (
    DELETE FROM public.draft_former_slugs WHERE article_id = NEW.id RETURNING slug
  )
  INSERT INTO public.former_slugs (slug, article_id)
  SELECT p.slug, NEW.id FROM published AS p
  WHERE NOT EXISTS (
    SELECT FROM public.articles AS a
    WHERE a.slug = p.slug AND (
      a.draft_slug IS NULL
      OR a.published_at <= clock_timestamp() AND a.archived_at IS NULL AND a.deleted_at IS NULL
    )
  )
  ORDER BY p.slug
  ON CONFLICT DO NOTHING;
  RETURN NULL;
END
$$
"""
# The second condition is for scheduled articles: no other statement writes their rows.
TRIGGER = """
CREATE TRIGGER articles_publish_former_slugs AFTER UPDATE ON public.articles FOR EACH ROW
WHEN (
  OLD.draft_slug IS NOT NULL AND NEW.draft_slug IS NULL
  OR OLD.awaits_publication AND NOT NEW.awaits_publication
)
EXECUTE FUNCTION public.articles_publish_former_slugs()
"""
# Of imports before this migration.
MOVE_DRAFTS = """
WITH moved AS (
  DELETE FROM public.former_slugs AS f USING public.articles AS a
  WHERE a.id = f.article_id AND a.draft_slug IS NOT NULL AND NOT (
    coalesce(a.published_at <= now(), false) AND a.archived_at IS NULL AND a.deleted_at IS NULL
  )
  RETURNING f.article_id, f.slug
)
INSERT INTO public.draft_former_slugs (article_id, slug) SELECT article_id, slug FROM moved
"""
MOVE_BACK = """
INSERT INTO public.former_slugs (slug, article_id)
SELECT slug, article_id FROM public.draft_former_slugs ORDER BY slug, article_id
ON CONFLICT DO NOTHING
"""


def upgrade() -> None:
    op.create_table(
        "draft_former_slugs",
        sa.Column("article_id", sa.BigInteger(), nullable=False),
        sa.Column("slug", sa.String(100), nullable=False),
        sa.ForeignKeyConstraint(
            ["article_id"],
            ["articles.id"],
            name="fk_draft_former_slugs_article_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("article_id", "slug", name="pk_draft_former_slugs"),
    )
    reserved = sa.Column(
        "reserved_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False
    )
    op.add_column("imports", reserved)
    op.execute(MOVE_DRAFTS)
    op.execute(PUBLISH_FORMER_SLUGS)
    op.execute(TRIGGER)  # last, because it locks the articles against writes


def downgrade() -> None:
    op.drop_column("imports", "reserved_bytes")
    op.execute("DROP TRIGGER articles_publish_former_slugs ON public.articles")
    op.execute("DROP FUNCTION public.articles_publish_former_slugs()")
    op.execute(MOVE_BACK)
    op.drop_table("draft_former_slugs")
