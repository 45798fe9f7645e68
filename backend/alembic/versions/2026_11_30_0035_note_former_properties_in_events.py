"""Note the former tags, language and author in the event of a changed article.

Filters of webhooks then match an article that no longer has the tag. Names of tags are written
before or after the other columns. Without their comparison, the former tags are not known if they
are written first, and the event of an unpublished article has its new ones.

It replaces functions only, so its duration does not depend on table sizes.

Revision: 0035
Revises: 0034
"""

from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

# As in 0033, apart from `former`.
NOTE_CHANGE = """
CREATE OR REPLACE FUNCTION public.note_article_change(
  changed_id bigint, edited boolean, moment_reached boolean, former_title text,
  former_language text, former_tags text[], former_author_id bigint
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  article record;
  latest record;
  moment timestamptz;
  visible boolean;
  known boolean;
  news text;
BEGIN
  PERFORM pg_advisory_xact_lock(1717921124);
  moment := clock_timestamp();
  SELECT slug, published_at, archived_at, deleted_at, title, language, tag_names, author_id,
    version, updated_at
  INTO article FROM public.articles WHERE id = changed_id;
  SELECT kind, slug, transaction_id, occurred_at INTO latest
  FROM public.changes WHERE article_id = changed_id ORDER BY seq DESC LIMIT 1;
  visible := article.archived_at IS NULL AND article.deleted_at IS NULL
    AND coalesce(article.published_at <= moment, false);
  known := coalesce(latest.kind IN ('created', 'updated'), false);
  news := CASE
    WHEN visible AND known THEN 'updated'
    WHEN visible THEN 'created'
    WHEN NOT known THEN NULL
    WHEN article.slug IS NULL OR article.deleted_at IS NOT NULL THEN 'deleted'
    ELSE 'unpublished'
  END;
  -- Several changes in one transaction are one. After a restore its number may come again.
  IF news IS NULL OR news = 'updated' AND (
    NOT edited OR latest.transaction_id = pg_current_xact_id()::text::bigint
      AND latest.occurred_at >= transaction_timestamp()
  ) THEN
    RETURN;
  END IF;
  INSERT INTO public.changes (seq, article_id, kind, slug, occurred_at, transaction_id) VALUES (
    setval('public.changes_seq_seq', greatest(
      nextval('public.changes_seq_seq'), (extract(epoch FROM moment) * 1000000)::bigint
    )),
    -- Of what is gone, the slug that readers knew.
    changed_id, news, CASE WHEN visible THEN article.slug ELSE latest.slug END, moment,
    pg_current_xact_id()::text::bigint
  );
  IF NOT visible THEN
    article.slug := latest.slug;
    article.title := former_title;
    article.language := former_language;
    article.tag_names := former_tags;
    article.author_id := former_author_id;
  END IF;
  INSERT INTO public.events (kind, article_id, user_id, is_public, occurred_at, data)
  SELECT each_kind, changed_id, article.author_id, true, moment, jsonb_build_object(
    'slug', article.slug,
    'title', article.title,
    'language', article.language,
    'tags', coalesce(article.tag_names, '{}'),
    'author', (SELECT username FROM public.users WHERE id = article.author_id),
    'author_id', article.author_id
  ) || CASE WHEN visible THEN jsonb_build_object(
    'version', article.version,
    'published_at', article.published_at,
    'updated_at', article.updated_at
  ) ELSE '{}' END%(former)s
  FROM unnest(
    CASE
      WHEN news = 'created' AND moment_reached THEN '{article.published,article.scheduled}'
      WHEN news = 'created' THEN '{article.published}'
      ELSE ARRAY['article.' || news]
    END
  ) AS each_kind;
END
$$
"""

# As in 0033, apart from the names of the tags.
ARTICLES_NOTE_CHANGE = """
CREATE OR REPLACE FUNCTION public.articles_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  edited boolean;
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW.published_at IS NOT NULL THEN
      PERFORM public.note_article_change(NEW.id, true, false, NULL, NULL, NULL, NULL);
    END IF;
  ELSIF TG_OP = 'DELETE' THEN
    IF OLD.published_at IS NOT NULL THEN
      PERFORM public.note_article_change(
        OLD.id, true, false, OLD.title, OLD.language, OLD.tag_names, OLD.author_id
      );
    END IF;
  ELSIF OLD.published_at IS NOT NULL OR NEW.published_at IS NOT NULL THEN
    edited := (NEW.version, NEW.updated_at, NEW.published_at, NEW.author_id, NEW.slug, NEW.title,
        NEW.excerpt, NEW.cover_image_url, NEW.language, NEW.content, NEW.html%(new_tags)s)
      IS DISTINCT FROM
      (OLD.version, OLD.updated_at, OLD.published_at, OLD.author_id, OLD.slug, OLD.title,
        OLD.excerpt, OLD.cover_image_url, OLD.language, OLD.content, OLD.html%(old_tags)s);
    IF edited OR (NEW.archived_at, NEW.deleted_at, NEW.awaits_publication)
      IS DISTINCT FROM (OLD.archived_at, OLD.deleted_at, OLD.awaits_publication)
    THEN
      PERFORM public.note_article_change(
        NEW.id, edited,
        OLD.awaits_publication AND NEW.published AND NEW.published_at = OLD.published_at,
        OLD.title, OLD.language, OLD.tag_names, OLD.author_id
      );
    END IF;
  END IF;
  RETURN NULL;
END
$$
"""
TAGS = {"new_tags": ", NEW.tag_names", "old_tags": ", OLD.tag_names"}

# The former columns are null if the name of the author has changed.
FORMER = """ || CASE WHEN news = 'updated' AND former_author_id IS NOT NULL
    AND (former_tags, former_language, former_author_id)
      IS DISTINCT FROM (article.tag_names::text[], article.language, article.author_id)
  THEN jsonb_build_object('former', jsonb_build_object(
    'tags', coalesce(former_tags, '{}'),
    'language', former_language,
    'author_id', former_author_id
  )) ELSE '{}' END"""


def upgrade() -> None:
    op.execute(NOTE_CHANGE % {"former": FORMER})
    op.execute(ARTICLES_NOTE_CHANGE % TAGS)


def downgrade() -> None:
    op.execute(NOTE_CHANGE % {"former": ""})
    op.execute(ARTICLES_NOTE_CHANGE % dict.fromkeys(TAGS, ""))
