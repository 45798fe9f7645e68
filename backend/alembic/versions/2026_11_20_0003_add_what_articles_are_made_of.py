"""Add slugs, tags, revisions, previews, the change feed, media, imports and idempotency keys.

It only adds columns and tables, so its duration does not depend on table sizes. 0004 fills in the
existing rows. The previous release keeps working: triggers synchronize the columns that it uses.

Revision: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Functions use qualified names, because dumps are restored with an empty search path.
SEARCH_CONFIG = """
CREATE FUNCTION public.article_search_config(language text) RETURNS regconfig
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
SELECT CASE split_part(language, '-', 1)
  WHEN 'ar' THEN 'pg_catalog.arabic'::regconfig WHEN 'ca' THEN 'pg_catalog.catalan'::regconfig
  WHEN 'da' THEN 'pg_catalog.danish'::regconfig WHEN 'de' THEN 'pg_catalog.german'::regconfig
  WHEN 'el' THEN 'pg_catalog.greek'::regconfig WHEN 'en' THEN 'pg_catalog.english'::regconfig
  WHEN 'es' THEN 'pg_catalog.spanish'::regconfig WHEN 'eu' THEN 'pg_catalog.basque'::regconfig
  WHEN 'fi' THEN 'pg_catalog.finnish'::regconfig WHEN 'fr' THEN 'pg_catalog.french'::regconfig
  WHEN 'ga' THEN 'pg_catalog.irish'::regconfig WHEN 'hi' THEN 'pg_catalog.hindi'::regconfig
  WHEN 'hu' THEN 'pg_catalog.hungarian'::regconfig WHEN 'hy' THEN 'pg_catalog.armenian'::regconfig
  WHEN 'id' THEN 'pg_catalog.indonesian'::regconfig WHEN 'it' THEN 'pg_catalog.italian'::regconfig
  WHEN 'lt' THEN 'pg_catalog.lithuanian'::regconfig WHEN 'ne' THEN 'pg_catalog.nepali'::regconfig
  WHEN 'nl' THEN 'pg_catalog.dutch'::regconfig WHEN 'no' THEN 'pg_catalog.norwegian'::regconfig
  WHEN 'pt' THEN 'pg_catalog.portuguese'::regconfig WHEN 'ro' THEN 'pg_catalog.romanian'::regconfig
  WHEN 'ru' THEN 'pg_catalog.russian'::regconfig WHEN 'sr' THEN 'pg_catalog.serbian'::regconfig
  WHEN 'sv' THEN 'pg_catalog.swedish'::regconfig WHEN 'ta' THEN 'pg_catalog.tamil'::regconfig
  WHEN 'tr' THEN 'pg_catalog.turkish'::regconfig WHEN 'yi' THEN 'pg_catalog.yiddish'::regconfig
  ELSE 'pg_catalog.simple'::regconfig
END
$$
"""

# A tsvector is limited to 1 MB of words and positions. The beginning of a long text usually fits.
# If it does not, a shorter part is indexed.
SEARCH_VECTOR = """
CREATE FUNCTION public.article_search_vector(
  language text, title text, excerpt text, body text
) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
  config regconfig := public.article_search_config(language);
  -- Not `<`: what looks like a tag is no words to PostgreSQL, and after `<script>` nothing is.
  words text := replace(left(body, 100000), '<', ' ');
  heading tsvector := setweight(to_tsvector(config, replace(title, '<', ' ')), 'A')
    || setweight(to_tsvector(config, replace(excerpt, '<', ' ')), 'B');
BEGIN
  RETURN heading || setweight(to_tsvector(config, words), 'D');
EXCEPTION WHEN program_limit_exceeded THEN
  RETURN heading || setweight(to_tsvector(config, left(words, 10000)), 'D');
END
$$
"""

# For queries as typed: words without stemming, and `node.js` or `TCP/IP` as two words.
TITLE_WORDS = r"""
CREATE FUNCTION public.article_title_words(title text) RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
SELECT to_tsvector(
  'pg_catalog.simple'::regconfig,
  translate(title, '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 32))
)
$$
"""

BEFORE_WRITE = """
CREATE FUNCTION public.articles_before_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- What the release before this one writes: no slug, `published` without a date, content alone.
  IF NEW.slug IS NULL THEN
    NEW.slug := 'article-' || NEW.id;
    IF EXISTS (SELECT FROM public.articles WHERE slug = NEW.slug) THEN
      NEW.slug := NEW.slug || '-' || substr(md5(random()::text), 1, 8);
    END IF;
  END IF;
  IF TG_OP = 'INSERT' THEN
    IF NEW.published AND NEW.published_at IS NULL THEN
      NEW.published_at := NEW.created_at;
    END IF;
  ELSE
    -- Not filled in yet, by 0004.
    IF OLD.slug IS NULL AND OLD.published AND NEW.published AND NEW.published_at IS NULL THEN
      NEW.published_at := NEW.created_at;
    ELSIF NEW.published IS DISTINCT FROM OLD.published
      AND NEW.published_at IS NOT DISTINCT FROM OLD.published_at
      AND NEW.archived_at IS NOT DISTINCT FROM OLD.archived_at
      AND NEW.deleted_at IS NOT DISTINCT FROM OLD.deleted_at
      AND NEW.version = OLD.version
    THEN
      NEW.published_at := CASE WHEN NEW.published THEN now() END;
      NEW.archived_at := NULL;
    END IF;
    IF NEW.content IS DISTINCT FROM OLD.content AND NEW.version = OLD.version THEN
      NEW.rendered_with := 0;
    END IF;
  END IF;
  -- What follows from the rest.
  NEW.dated_at := coalesce(NEW.published_at, NEW.created_at);
  NEW.awaits_publication := NEW.archived_at IS NULL AND NEW.deleted_at IS NULL
    AND coalesce(NEW.published_at > clock_timestamp(), false);
  NEW.published := NEW.archived_at IS NULL AND NEW.deleted_at IS NULL
    AND coalesce(NEW.published_at <= clock_timestamp(), false);
  IF NEW.search_vector IS NULL OR TG_OP = 'INSERT'
    OR NEW.title IS DISTINCT FROM OLD.title OR NEW.excerpt IS DISTINCT FROM OLD.excerpt
    OR NEW.plain_text IS DISTINCT FROM OLD.plain_text OR NEW.language IS DISTINCT FROM OLD.language
  THEN
    NEW.search_vector :=
      public.article_search_vector(NEW.language, NEW.title, NEW.excerpt, NEW.plain_text);
  END IF;
  RETURN NEW;
END
$$
"""

LIST_UNDER_TAGS = """
CREATE FUNCTION public.articles_list_under_tags() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  moment timestamptz := CASE
    WHEN NEW.archived_at IS NULL AND NEW.deleted_at IS NULL THEN NEW.published_at
  END;
BEGIN
  UPDATE public.article_tags SET listed_at = moment
  WHERE article_id = NEW.id AND listed_at IS DISTINCT FROM moment;
  RETURN NULL;
END
$$
"""

TAGS_BEFORE_INSERT = """
CREATE FUNCTION public.article_tags_before_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  SELECT published_at INTO NEW.listed_at FROM public.articles
  WHERE id = NEW.article_id AND archived_at IS NULL AND deleted_at IS NULL;
  RETURN NEW;
END
$$
"""

# The key of the advisory lock is "feed" in ASCII. A transaction that writes to the feed takes it
# during the commit, after all other locks, and holds it until its rows are visible. So entries
# become visible in the order of their numbers. The lock is taken before the article is read, which
# another transaction may be changing.
#
# A number is the time in microseconds, or the previous number plus one. So it is higher than all
# numbers before a restore, or before a failover that lost the last transactions. Clients of the
# feed therefore miss no later entry.
NOTE_CHANGE = """
CREATE FUNCTION public.note_article_change(changed_id bigint, edited boolean)
RETURNS void LANGUAGE plpgsql AS $$
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
  SELECT slug, published_at, archived_at, deleted_at INTO article
  FROM public.articles WHERE id = changed_id;
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
END
$$
"""

# Changes of a draft are not public and take no lock. Columns that are not compared here are not
# public either: those of the job that announces scheduled articles, and the editor.
ARTICLE_CHANGED = """
CREATE FUNCTION public.articles_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
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

# The lock is taken first, so that articles which are published meanwhile are included.
AUTHOR_CHANGED = """
CREATE FUNCTION public.users_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(1717921124);
  PERFORM public.note_article_change(id, true) FROM public.articles
  WHERE author_id = NEW.id AND published_at IS NOT NULL ORDER BY id;
  RETURN NULL;
END
$$
"""

DISCARD_FILES = """
CREATE FUNCTION public.media_discard_files() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.discarded_folders (folder, discarded_at)
  VALUES (OLD.folder, clock_timestamp()) ON CONFLICT DO NOTHING;
  RETURN NULL;
END
$$
"""

TRIGGERS = (
    (
        "CREATE TRIGGER articles_before_write BEFORE INSERT OR UPDATE ON articles"
        " FOR EACH ROW EXECUTE FUNCTION articles_before_write()"
    ),
    (
        "CREATE TRIGGER articles_list_under_tags"
        " AFTER UPDATE OF published, published_at, archived_at, deleted_at ON articles"
        " FOR EACH ROW EXECUTE FUNCTION articles_list_under_tags()"
    ),
    (
        "CREATE TRIGGER article_tags_before_insert BEFORE INSERT ON article_tags"
        " FOR EACH ROW EXECUTE FUNCTION article_tags_before_insert()"
    ),
    (
        "CREATE CONSTRAINT TRIGGER articles_note_change"
        " AFTER INSERT OR UPDATE OR DELETE ON articles"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION articles_note_change()"
    ),
    (
        "CREATE CONSTRAINT TRIGGER users_note_change AFTER UPDATE OF name, username ON users"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        " WHEN (OLD.name IS DISTINCT FROM NEW.name OR OLD.username IS DISTINCT FROM NEW.username)"
        " EXECUTE FUNCTION users_note_change()"
    ),
    (
        "CREATE TRIGGER media_discard_files AFTER DELETE ON media"
        " FOR EACH ROW EXECUTE FUNCTION media_discard_files()"
    ),
)


def upgrade() -> None:
    # First, because it takes the strongest lock on articles (see 0002).
    _add_article_columns()
    _create_article_tables()
    _create_media_tables()
    _create_request_tables()
    for function in (
        SEARCH_CONFIG,
        SEARCH_VECTOR,
        TITLE_WORDS,
        BEFORE_WRITE,
        LIST_UNDER_TAGS,
        TAGS_BEFORE_INSERT,
        NOTE_CHANGE,
        ARTICLE_CHANGED,
        AUTHOR_CHANGED,
        DISCARD_FILES,
    ):
        op.execute(function)
    for trigger in TRIGGERS:
        op.execute(trigger)


def _add_article_columns() -> None:
    moment = sa.DateTime(timezone=True)
    no, empty = sa.text("false"), ""
    for column in (
        sa.Column("slug", sa.String(100), nullable=True),
        sa.Column("html", sa.Text(), server_default=empty, nullable=False),
        sa.Column("plain_text", sa.Text(), server_default=empty, nullable=False),
        sa.Column("toc", postgresql.JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("rendered_with", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("word_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("reading_time", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("excerpt", sa.String(500), server_default=empty, nullable=False),
        sa.Column("own_excerpt", sa.Boolean(), server_default=no, nullable=False),
        sa.Column("cover_image_url", sa.String(2000), nullable=True),
        sa.Column("language", sa.String(10), server_default="en", nullable=False),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("published_at", moment, nullable=True),
        sa.Column("awaits_publication", sa.Boolean(), server_default=no, nullable=False),
        sa.Column("archived_at", moment, nullable=True),
        sa.Column("deleted_at", moment, nullable=True),
        sa.Column("dated_at", moment, nullable=True),
        sa.Column("edited_by", sa.BigInteger(), nullable=True),
        sa.Column("edited_at", moment, nullable=True),
        sa.Column("search_vector", postgresql.TSVECTOR(), nullable=True),
    ):
        op.add_column("articles", column)
    # Long texts are stored out of line, so that lists and searches read fewer pages.
    op.execute("ALTER TABLE articles SET (toast_tuple_target = 1024)")
    # 0004 validates it: existing rows are NULL, but PostgreSQL would scan the table.
    op.execute(
        "ALTER TABLE articles ADD CONSTRAINT fk_articles_edited_by"
        " FOREIGN KEY (edited_by) REFERENCES users (id) ON DELETE SET NULL NOT VALID"
    )


def _create_article_tables() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "former_slugs",
        sa.Column("slug", sa.String(100), nullable=False),
        sa.Column("article_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["article_id"], ["articles.id"], name="fk_former_slugs_article_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("slug", name="pk_former_slugs"),
    )
    op.create_index("ix_former_slugs_article_id", "former_slugs", ["article_id"])
    op.create_table(
        "tags",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.String(50), nullable=False),
        sa.Column("slug", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tags"),
        sa.UniqueConstraint("slug", name="uq_tags_slug"),
    )
    op.create_table(
        "article_tags",
        sa.Column("article_id", sa.BigInteger(), nullable=False),
        sa.Column("tag_id", sa.BigInteger(), nullable=False),
        sa.Column("listed_at", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["article_id"], ["articles.id"], name="fk_article_tags_article_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tag_id"], ["tags.id"], name="fk_article_tags_tag_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("article_id", "tag_id", name="pk_article_tags"),
    )
    op.create_index(
        "ix_article_tags_listed",
        "article_tags",
        ["tag_id", sa.literal_column("listed_at DESC"), sa.literal_column("article_id DESC")],
    )
    op.create_table(
        "article_revisions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("article_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("author_id", sa.BigInteger(), nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["article_id"],
            ["articles.id"],
            name="fk_article_revisions_article_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["author_id"], ["users.id"], name="fk_article_revisions_author_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_article_revisions"),
        sa.UniqueConstraint(
            "article_id", "version", name="uq_article_revisions_article_id_version"
        ),
    )
    op.create_index("ix_article_revisions_author_id", "article_revisions", ["author_id"])
    op.create_table(
        "preview_links",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("article_id", sa.BigInteger(), nullable=False),
        sa.Column("token_hash", postgresql.BYTEA(), nullable=False),
        sa.Column("created_by", sa.BigInteger(), nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["article_id"], ["articles.id"], name="fk_preview_links_article_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["created_by"], ["users.id"], name="fk_preview_links_created_by", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_preview_links"),
        sa.UniqueConstraint("token_hash", name="uq_preview_links_token_hash"),
    )
    op.create_index("ix_preview_links_article_id", "preview_links", ["article_id"])
    op.create_index("ix_preview_links_created_by", "preview_links", ["created_by"])
    op.create_index("ix_preview_links_expires_at", "preview_links", ["expires_at"])
    op.create_table(
        "changes",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("article_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("slug", sa.String(100), nullable=False),
        sa.Column(
            "occurred_at", moment, server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("transaction_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_changes"),
    )
    op.create_index("ix_changes_article", "changes", ["article_id", sa.literal_column("seq DESC")])
    op.create_table(
        "import_records",
        sa.Column("key", postgresql.BYTEA(), nullable=False),
        sa.Column("digest", postgresql.BYTEA(), nullable=False),
        sa.Column("article_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["article_id"],
            ["articles.id"],
            name="fk_import_records_article_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("key", name="pk_import_records"),
    )
    op.create_index("ix_import_records_article_id", "import_records", ["article_id"])


def _create_media_tables() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "media",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=True),
        sa.Column("folder", sa.String(100), nullable=False),
        sa.Column("content_type", sa.String(50), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("widths", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("alt", sa.String(500), server_default="", nullable=False),
        sa.Column("color", sa.String(7), nullable=False),
        sa.Column("placeholder", sa.Text(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name="fk_media_owner_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_media"),
        sa.UniqueConstraint("folder", name="uq_media_folder"),
    )
    op.create_index("ix_media_owner", "media", ["owner_id", sa.literal_column("id DESC")])
    op.create_table(
        "article_media",
        sa.Column("article_id", sa.BigInteger(), nullable=False),
        sa.Column("media_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["article_id"], ["articles.id"], name="fk_article_media_article_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["media_id"], ["media.id"], name="fk_article_media_media_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("article_id", "media_id", name="pk_article_media"),
    )
    op.create_index("ix_article_media_media_id", "article_media", ["media_id"])
    op.create_table(
        "discarded_folders",
        sa.Column("folder", sa.String(100), nullable=False),
        sa.Column("discarded_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("folder", name="pk_discarded_folders"),
    )


def _create_request_tables() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("key", postgresql.BYTEA(), nullable=False),
        sa.Column("fingerprint", postgresql.BYTEA(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("headers", postgresql.JSONB(), nullable=False),
        sa.Column("sealed_body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def downgrade() -> None:
    for table, trigger in (
        ("media", "media_discard_files"),
        ("users", "users_note_change"),
        ("articles", "articles_note_change"),
        ("articles", "articles_list_under_tags"),
        ("articles", "articles_before_write"),
    ):
        op.execute(f"DROP TRIGGER {trigger} ON {table}")
    # The previous release has no trash and no scheduling: delete the trash, unpublish the others.
    op.execute("DELETE FROM articles WHERE deleted_at IS NOT NULL")
    for table in (
        "idempotency_keys",
        "discarded_folders",
        "article_media",
        "media",
        "import_records",
        "changes",
        "preview_links",
        "article_revisions",
        "article_tags",
        "tags",
        "former_slugs",
    ):
        op.drop_table(table)
    for function in (
        "media_discard_files()",
        "users_note_change()",
        "articles_note_change()",
        "note_article_change(bigint, boolean)",
        "article_tags_before_insert()",
        "articles_list_under_tags()",
        "articles_before_write()",
        "article_title_words(text)",
        "article_search_vector(text, text, text, text)",
        "article_search_config(text)",
    ):
        op.execute(f"DROP FUNCTION {function}")
    op.drop_constraint("fk_articles_edited_by", "articles")
    op.execute("ALTER TABLE articles RESET (toast_tuple_target)")
    for column in (
        "search_vector",
        "edited_at",
        "edited_by",
        "dated_at",
        "deleted_at",
        "archived_at",
        "awaits_publication",
        "published_at",
        "version",
        "language",
        "cover_image_url",
        "own_excerpt",
        "excerpt",
        "reading_time",
        "word_count",
        "rendered_with",
        "toc",
        "plain_text",
        "html",
        "slug",
    ):
        op.drop_column("articles", column)
