"""Store the names of an article's tags on the article, for lists.

It only adds columns, so its duration does not depend on table sizes. 0020b fills in existing rows.
Until then they are NULL, and readers look up the tags.

The names are stored only while all tags of the article are listed. So listing a tag, which changes
its public name, writes no other article: its transaction has already locked the tag, and articles
are locked before tags. The previous release keeps working: triggers maintain the columns.

Revision: 0020
Revises: 0019
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

COLUMNS = ("tag_names", "tag_names_in_order")

# The articles are locked first, in the order of their ids. The second statement then sees what
# concurrent changes of their tags have committed. OFFSET 0 prevents a join with all tags. The plan
# does not depend on the ids; planning takes longer than the update of one article.
STORE_TAG_NAMES = """
CREATE FUNCTION public.store_tag_names(ids bigint[]) RETURNS void LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  PERFORM FROM public.articles WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE;
  UPDATE public.articles AS a
  SET tag_names = found.by_slug, tag_names_in_order = found.in_order
  FROM unnest(ids) AS wanted (id)
  CROSS JOIN LATERAL (
    SELECT
      CASE WHEN bool_and(tag.is_listed) IS NOT FALSE THEN
        coalesce(array_agg(tag.name ORDER BY tag.slug, tag.key), '{}')
      END AS by_slug,
      CASE WHEN bool_and(tag.is_listed) IS NOT FALSE THEN
        coalesce(array_agg(tag.name ORDER BY assigned.position, tag.slug, tag.key), '{}')
      END AS in_order
    FROM public.article_tags AS assigned
    CROSS JOIN LATERAL (
      SELECT name, coalesce(wanted_slug, slug) AS slug, key, is_listed
      FROM public.tags WHERE id = assigned.tag_id OFFSET 0
    ) AS tag
    WHERE assigned.article_id = wanted.id
  ) AS found
  WHERE a.id = wanted.id AND (a.tag_names, a.tag_names_in_order)
    IS DISTINCT FROM (found.by_slug, found.in_order);
END
$$
"""

ARTICLE_TAGS_AFTER_WRITE = """
CREATE OR REPLACE FUNCTION public.article_tags_after_write() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM public.list_tags(
    ARRAY(SELECT DISTINCT tag_id FROM written WHERE listed_at <= clock_timestamp())
  );
  PERFORM public.store_tag_names(ARRAY(SELECT DISTINCT article_id FROM written));
  RETURN NULL;
END
$$
"""

ARTICLE_TAGS_AFTER_DELETE = """
CREATE FUNCTION public.article_tags_after_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM public.store_tag_names(ARRAY(SELECT DISTINCT article_id FROM removed));
  RETURN NULL;
END
$$
"""

ARTICLES_LIST_TAGS = """
CREATE OR REPLACE FUNCTION public.articles_list_tags() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM public.list_tags(ARRAY(
    SELECT tag_id FROM public.article_tags
    WHERE article_id = NEW.id AND listed_at <= clock_timestamp()
  ));
  PERFORM public.store_tag_names(ARRAY[NEW.id]);
  RETURN NULL;
END
$$
"""

# The job that unlists tags has locked the tag. It cannot wait for an article, so the tag stays
# listed until the next run if one is locked.
TAGS_BEFORE_UNLISTING = """
CREATE FUNCTION public.tags_before_unlisting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM public.articles
  WHERE id IN (SELECT article_id FROM public.article_tags WHERE tag_id = NEW.id)
  ORDER BY id FOR NO KEY UPDATE NOWAIT;
  RETURN NEW;
EXCEPTION WHEN lock_not_available THEN
  NEW.is_listed := true;
  RETURN NEW;
END
$$
"""

TAGS_AFTER_WRITE = """
CREATE FUNCTION public.tags_after_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM public.store_tag_names(
    ARRAY(SELECT article_id FROM public.article_tags WHERE tag_id = NEW.id)
  );
  RETURN NULL;
END
$$
"""

# An UPDATE that changes nothing public takes no lock: of the columns above, for example. The flag
# `awaits_publication` changes when a scheduled article has become public.
ARTICLES_NOTE_CHANGE = """
CREATE OR REPLACE FUNCTION public.articles_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  edited boolean;
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW.published_at IS NOT NULL THEN
      PERFORM public.note_article_change(NEW.id, true);
    END IF;
  ELSIF TG_OP = 'DELETE' THEN
    IF OLD.published_at IS NOT NULL THEN
      PERFORM public.note_article_change(OLD.id, true);
    END IF;
  ELSIF OLD.published_at IS NOT NULL OR NEW.published_at IS NOT NULL THEN
    edited := (NEW.version, NEW.updated_at, NEW.published_at, NEW.author_id, NEW.slug, NEW.title,
        NEW.excerpt, NEW.cover_image_url, NEW.language, NEW.content, NEW.html)
      IS DISTINCT FROM
      (OLD.version, OLD.updated_at, OLD.published_at, OLD.author_id, OLD.slug, OLD.title,
        OLD.excerpt, OLD.cover_image_url, OLD.language, OLD.content, OLD.html);
    IF edited OR (NEW.archived_at, NEW.deleted_at, NEW.awaits_publication)
      IS DISTINCT FROM (OLD.archived_at, OLD.deleted_at, OLD.awaits_publication)
    THEN
      PERFORM public.note_article_change(NEW.id, edited);
    END IF;
  END IF;
  RETURN NULL;
END
$$
"""

TRIGGERS = {
    "article_tags_after_delete": "AFTER DELETE ON public.article_tags"
    " REFERENCING OLD TABLE AS removed FOR EACH STATEMENT",
    "tags_before_unlisting": "BEFORE UPDATE OF is_listed ON public.tags FOR EACH ROW"
    " WHEN (OLD.is_listed AND NOT NEW.is_listed)",
    # Articles with unlisted tags store no names. Names are in the order of `wanted_slug`, or else
    # `slug`.
    "tags_after_write": "AFTER UPDATE ON public.tags FOR EACH ROW WHEN (OLD.is_listed AND"
    " (OLD.is_listed, OLD.name, coalesce(OLD.wanted_slug, OLD.slug), OLD.key) IS DISTINCT FROM"
    " (NEW.is_listed, NEW.name, coalesce(NEW.wanted_slug, NEW.slug), NEW.key))",
}

FORMER_ARTICLE_TAGS_AFTER_WRITE = """
CREATE OR REPLACE FUNCTION public.article_tags_after_write() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM public.list_tags(
    ARRAY(SELECT DISTINCT tag_id FROM written WHERE listed_at <= clock_timestamp())
  );
  RETURN NULL;
END
$$
"""

FORMER_ARTICLES_LIST_TAGS = """
CREATE OR REPLACE FUNCTION public.articles_list_tags() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM public.list_tags(ARRAY(
    SELECT tag_id FROM public.article_tags
    WHERE article_id = NEW.id AND listed_at <= clock_timestamp()
  ));
  RETURN NULL;
END
$$
"""

FORMER_ARTICLES_NOTE_CHANGE = """
CREATE OR REPLACE FUNCTION public.articles_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW.published_at IS NOT NULL THEN
      PERFORM public.note_article_change(NEW.id, true);
    END IF;
  ELSIF TG_OP = 'DELETE' THEN
    IF OLD.published_at IS NOT NULL THEN
      PERFORM public.note_article_change(OLD.id, true);
    END IF;
  ELSIF OLD.published_at IS NOT NULL OR NEW.published_at IS NOT NULL THEN
    PERFORM public.note_article_change(NEW.id,
      (NEW.version, NEW.updated_at, NEW.published_at, NEW.author_id, NEW.slug, NEW.title,
        NEW.excerpt, NEW.cover_image_url, NEW.language, NEW.content, NEW.html)
      IS DISTINCT FROM
      (OLD.version, OLD.updated_at, OLD.published_at, OLD.author_id, OLD.slug, OLD.title,
        OLD.excerpt, OLD.cover_image_url, OLD.language, OLD.content, OLD.html)
    );
  END IF;
  RETURN NULL;
END
$$
"""


def upgrade() -> None:
    # In the order of readers, which would otherwise deadlock with the migration.
    op.execute("LOCK TABLE articles, article_tags, tags IN ACCESS EXCLUSIVE MODE")
    for name in COLUMNS:
        column = sa.Column(name, postgresql.ARRAY(sa.String(50)), nullable=True)
        op.add_column("articles", column)
        # Separately, so that it is for new rows only: they have no tags yet.
        op.alter_column("articles", name, server_default=sa.text("'{}'"))
    for function in (
        STORE_TAG_NAMES,
        ARTICLE_TAGS_AFTER_WRITE,
        ARTICLE_TAGS_AFTER_DELETE,
        ARTICLES_LIST_TAGS,
        TAGS_BEFORE_UNLISTING,
        TAGS_AFTER_WRITE,
        ARTICLES_NOTE_CHANGE,
    ):
        op.execute(function)
    for name, trigger in TRIGGERS.items():
        op.execute(f"CREATE TRIGGER {name} {trigger} EXECUTE FUNCTION public.{name}()")


def downgrade() -> None:
    op.execute("LOCK TABLE articles, article_tags, tags IN ACCESS EXCLUSIVE MODE")
    for name in TRIGGERS:
        op.execute(f"DROP FUNCTION public.{name}() CASCADE")  # with its trigger
    for function in (
        FORMER_ARTICLE_TAGS_AFTER_WRITE,
        FORMER_ARTICLES_LIST_TAGS,
        FORMER_ARTICLES_NOTE_CHANGE,
    ):
        op.execute(function)
    op.execute("DROP FUNCTION public.store_tag_names(bigint[])")
    for name in COLUMNS:
        op.drop_column("articles", name)
