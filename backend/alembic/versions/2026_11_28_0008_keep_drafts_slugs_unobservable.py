"""Add slugs of unpublished articles that other authors cannot observe.

The previous release keeps working. It writes and reads `slug`, which stays unique. A trigger copies
the slug of a draft to `draft_slug`, and sets a unique slug when the draft is published.

Existing drafts are updated in batches. The migration can be run again if it was interrupted.

Revision: 0008
Revises: 0007b
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007b"
branch_labels = None
depends_on = None

BATCH = 10_000

# Runs after articles_before_write: triggers run in alphabetical order.
NAME_DRAFTS = """
CREATE OR REPLACE FUNCTION public.articles_name_drafts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  ending text := '-' || substr(md5(random()::text || NEW.id), 1, 12);
  named boolean := false;
BEGIN
  IF TG_OP = 'INSERT' THEN
    -- Written by the previous release, or by hand.
    IF NEW.draft_slug IS NULL AND coalesce(NEW.published_at > clock_timestamp(), true) THEN
      NEW.draft_slug := NEW.slug;
      named := true;
    END IF;
  ELSE
    named := NEW.author_id <> OLD.author_id;
    IF OLD.published_at <= clock_timestamp()
      AND OLD.archived_at IS NULL AND OLD.deleted_at IS NULL
    THEN
      NEW.draft_slug := NULL;
    END IF;
  END IF;
  IF named AND EXISTS (
    SELECT FROM public.articles
    WHERE draft_slug = NEW.draft_slug AND author_id = NEW.author_id AND id <> NEW.id
  ) THEN
    NEW.draft_slug := left(NEW.draft_slug, 87) || ending;
  END IF;
  -- Published by a release that knows no placeholders.
  IF NEW.published_at IS NOT NULL AND NEW.slug LIKE '~%' THEN
    NEW.slug := coalesce(NEW.draft_slug, 'article-' || NEW.id);
    IF EXISTS (SELECT FROM public.articles WHERE slug = NEW.slug AND id <> NEW.id)
      OR EXISTS (SELECT FROM public.former_slugs WHERE slug = NEW.slug AND article_id <> NEW.id)
    THEN
      NEW.slug := left(NEW.slug, 87) || ending;
    END IF;
  END IF;
  RETURN NEW;
END
$$
"""

# Articles that were never public according to the change feed and the audit events.
FILL_IN = """
UPDATE public.articles AS a SET draft_slug = a.slug
WHERE a.draft_slug IS NULL AND coalesce(a.published_at > now(), true)
  AND NOT EXISTS (SELECT FROM public.changes c WHERE c.article_id = a.id)
  AND NOT EXISTS (
    SELECT FROM public.audit_events e
    WHERE e.subject_type = 'article' AND e.subject_id = a.id AND e.action = 'PUBLISH_ARTICLE'
  )
"""
BOUNDS = "SELECT coalesce(min(id), 0), coalesce(max(id), -1) FROM public.articles"
INDEX = "uq_articles_draft_slug"
# Before the column is dropped, each draft gets a unique slug again.
GIVE_BACK = """
UPDATE public.articles SET slug = left(draft_slug, 79) || '-' || id WHERE slug LIKE '~%'
"""


def upgrade() -> None:
    draft_slug = sa.Column("draft_slug", sa.String(100), nullable=True)
    op.add_column("articles", draft_slug, if_not_exists=True)
    op.execute(NAME_DRAFTS)
    op.execute(
        "CREATE OR REPLACE TRIGGER articles_name_drafts BEFORE INSERT OR UPDATE ON public.articles"
        " FOR EACH ROW EXECUTE FUNCTION public.articles_name_drafts()"
    )
    with op.get_context().autocommit_block():
        _fill_in()
        op.execute("SET lock_timeout = 0")  # CONCURRENTLY waits without blocking others
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
        op.execute(
            f"CREATE UNIQUE INDEX CONCURRENTLY {INDEX} ON articles (draft_slug, author_id)"
            " WHERE draft_slug IS NOT NULL"
        )
        op.execute("SET lock_timeout = '5s'")


def _fill_in() -> None:
    if op.get_context().as_sql:  # offline mode: a single statement without batches
        op.execute(FILL_IN)
        return
    connection = op.get_bind()
    first, last = connection.execute(sa.text(BOUNDS)).one()
    batch = sa.text(f"{FILL_IN} AND a.id BETWEEN :start AND :end")
    for start in range(first, last + 1, BATCH):
        connection.execute(batch, {"start": start, "end": start + BATCH - 1})


def downgrade() -> None:
    op.execute("DROP TRIGGER articles_name_drafts ON public.articles")
    op.execute("DROP FUNCTION public.articles_name_drafts()")
    op.execute(GIVE_BACK)
    op.execute("SET CONSTRAINTS ALL IMMEDIATE")  # before ALTER TABLE: no pending triggers
    op.drop_index(INDEX, "articles")
    op.drop_column("articles", "draft_slug")
