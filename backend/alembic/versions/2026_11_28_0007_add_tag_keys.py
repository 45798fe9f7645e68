"""Add tag keys, spellings per article, and a flag for publicly visible tags.

It only adds columns, so its duration does not depend on table sizes. 0007b fills in existing rows.

The previous release keeps working. It writes a tag's name and slug, and a trigger adds the key.

Revision: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The same as app.content.slugs.tag_key. Functions use qualified names, because dumps are restored
# with an empty search path.
TAG_KEY = r"""
CREATE FUNCTION public.tag_key(name text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
SELECT rtrim(ltrim(regexp_replace(
  normalize(
    casefold(
      normalize(
        regexp_replace(
          name,
          '(\U0001F3F4[\U000E0020-\U000E007F]+)|[\u00AD\u034F\u061C\u115F\u1160\u17B4\u17B5'
            '\u180B-\u180F\u200B-\u200F\u202A-\u202E\u2060-\u206F\u3164\uFE00-\uFE0F\uFEFF\uFFA0'
            '\uFFF0-\uFFF8\U0001BCA0-\U0001BCA3\U0001D173-\U0001D17A\U000E0000-\U000E0FFF]',
          '\1', 'g'
        ),
        NFKC
      ) COLLATE pg_catalog.pg_unicode_fast
    ),
    NFKC
  ),
  ' +', ' ', 'g'
), ' #'), ' ')
$$
"""

# A second tag with the same key gets no key. The application merges the tags later.
TAGS_BEFORE_WRITE = """
CREATE FUNCTION public.tags_before_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.key IS NULL OR TG_OP = 'UPDATE' AND NEW.key = OLD.key AND NEW.name <> OLD.name THEN
    NEW.key := public.tag_key(NEW.name);
    IF EXISTS (SELECT FROM public.tags WHERE key = NEW.key AND id <> NEW.id) THEN
      NEW.key := NULL;
    END IF;
  END IF;
  RETURN NEW;
END
$$
"""

# The KEY SHARE locks exclude the job that resets is_listed. All locks are taken in the order of the
# ids, to prevent deadlocks.
LIST_TAGS = """
CREATE FUNCTION public.list_tags(ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  tag record;
  public_name text;
BEGIN
  PERFORM FROM public.tags WHERE id = ANY (ids) ORDER BY id FOR KEY SHARE;
  FOR tag IN
    SELECT id FROM public.tags WHERE id = ANY (ids) AND NOT is_listed
    ORDER BY id FOR NO KEY UPDATE
  LOOP
    SELECT spelling INTO public_name FROM public.article_tags
    WHERE tag_id = tag.id AND listed_at <= clock_timestamp()
    ORDER BY listed_at, article_id LIMIT 1;
    UPDATE public.tags SET is_listed = true, name = coalesce(public_name, name) WHERE id = tag.id;
    PERFORM public.settle_tag_slug(tag.id);
  END LOOP;
END
$$
"""

# Hidden tags must not be observable in the slugs of others: a visible tag takes the slug of a
# hidden one. Nothing waits here: locked rows are skipped.
SETTLE_TAG_SLUG = """
CREATE FUNCTION public.settle_tag_slug(settled_id bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  tag record;
  holder record;
  candidate text;
BEGIN
  SELECT id, slug, wanted_slug INTO tag FROM public.tags
  WHERE id = settled_id AND starts_with(slug, wanted_slug || '-') FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  FOR number IN 1..9 LOOP
    candidate := tag.wanted_slug || CASE WHEN number = 1 THEN '' ELSE '-' || number END;
    EXIT WHEN candidate = tag.slug;
    SELECT id, is_listed INTO holder FROM public.tags WHERE slug = candidate;
    IF NOT FOUND THEN
      BEGIN
        UPDATE public.tags SET slug = candidate WHERE id = tag.id;
        EXIT;
      EXCEPTION WHEN unique_violation THEN
        CONTINUE;
      END;
    END IF;
    CONTINUE WHEN holder.is_listed;
    PERFORM FROM public.tags WHERE id = holder.id AND slug = candidate AND NOT is_listed
    FOR UPDATE SKIP LOCKED;
    CONTINUE WHEN NOT FOUND;
    UPDATE public.tags SET slug = '~' || id, wanted_slug = coalesce(wanted_slug, slug)
    WHERE id = holder.id;
    UPDATE public.tags SET slug = candidate WHERE id = tag.id;
    UPDATE public.tags SET slug = tag.slug WHERE id = holder.id;
    EXIT;
  END LOOP;
END
$$
"""

ARTICLE_TAGS_AFTER_WRITE = """
CREATE FUNCTION public.article_tags_after_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM public.list_tags(
    ARRAY(SELECT DISTINCT tag_id FROM written WHERE listed_at <= clock_timestamp())
  );
  RETURN NULL;
END
$$
"""

ARTICLES_LIST_TAGS = """
CREATE FUNCTION public.articles_list_tags() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM public.list_tags(ARRAY(
    SELECT tag_id FROM public.article_tags
    WHERE article_id = NEW.id AND listed_at <= clock_timestamp()
  ));
  RETURN NULL;
END
$$
"""

TRIGGERS = (
    # For scheduled articles that become public: no other statement writes their rows then.
    (
        "CREATE TRIGGER articles_list_tags AFTER UPDATE ON articles FOR EACH ROW"
        " WHEN (OLD.awaits_publication AND NOT NEW.awaits_publication)"
        " EXECUTE FUNCTION articles_list_tags()"
    ),
    (
        "CREATE TRIGGER article_tags_after_insert AFTER INSERT ON article_tags"
        " REFERENCING NEW TABLE AS written"
        " FOR EACH STATEMENT EXECUTE FUNCTION article_tags_after_write()"
    ),
    (
        "CREATE TRIGGER article_tags_after_update AFTER UPDATE ON article_tags"
        " REFERENCING NEW TABLE AS written"
        " FOR EACH STATEMENT EXECUTE FUNCTION article_tags_after_write()"
    ),
    (
        "CREATE TRIGGER tags_before_write BEFORE INSERT OR UPDATE OF name ON tags"
        " FOR EACH ROW EXECUTE FUNCTION tags_before_write()"
    ),
)


def upgrade() -> None:
    # In the order of readers, which would otherwise deadlock with the migration.
    op.execute("LOCK TABLE articles, article_tags, tags IN ACCESS EXCLUSIVE MODE")
    op.add_column("article_tags", sa.Column("spelling", sa.String(50), nullable=True))
    op.add_column("tags", sa.Column("key", sa.Text(), nullable=True))
    op.add_column("tags", sa.Column("wanted_slug", sa.String(100), nullable=True))
    listed = sa.Column("is_listed", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    op.add_column("tags", listed)
    for function in (
        TAG_KEY,
        TAGS_BEFORE_WRITE,
        SETTLE_TAG_SLUG,
        LIST_TAGS,
        ARTICLE_TAGS_AFTER_WRITE,
        ARTICLES_LIST_TAGS,
    ):
        op.execute(function)
    for trigger in TRIGGERS:
        op.execute(trigger)


def downgrade() -> None:
    for table, trigger in (
        ("articles", "articles_list_tags"),
        ("article_tags", "article_tags_after_insert"),
        ("article_tags", "article_tags_after_update"),
        ("tags", "tags_before_write"),
    ):
        op.execute(f"DROP TRIGGER {trigger} ON {table}")
    for function in (
        "articles_list_tags()",
        "article_tags_after_write()",
        "list_tags(bigint[])",
        "settle_tag_slug(bigint)",
        "tags_before_write()",
        "tag_key(text)",
    ):
        op.execute(f"DROP FUNCTION {function}")
    for column in ("is_listed", "wanted_slug", "key"):
        op.drop_column("tags", column)
    op.drop_column("article_tags", "spelling")
