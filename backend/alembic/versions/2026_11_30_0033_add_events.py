"""Add events: what happened to articles, comments, users and media, for integrations.

It adds a table and triggers, so its duration does not depend on table sizes. The previous release
keeps working: the triggers also note its changes.

Revision: 0033
Revises: 0032
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

TRANSACTION = "pg_current_xact_id()::text::bigint"

# Listeners read the table. An equal notification is sent once per transaction.
NOTIFY = """
CREATE FUNCTION public.events_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('pressroom_events', '');
  RETURN NULL;
END
$$
"""

# Events of articles are the entries of the change feed (0003). The former columns are those before
# the transaction: readers knew them, but not what an unpublished article contains now.
NOTE_CHANGE = """
CREATE FUNCTION public.note_article_change(
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
  ) ELSE '{}' END
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

# For the change of an author's name, and transactions of the previous release.
NOTE_VISIBLE_CHANGE = """
CREATE OR REPLACE FUNCTION public.note_article_change(changed_id bigint, edited boolean)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM public.note_article_change(changed_id, edited, false, NULL, NULL, NULL, NULL);
END
$$
"""

# The moment of a scheduled article was reached if its date is the same as before.
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
        NEW.excerpt, NEW.cover_image_url, NEW.language, NEW.content, NEW.html)
      IS DISTINCT FROM
      (OLD.version, OLD.updated_at, OLD.published_at, OLD.author_id, OLD.slug, OLD.title,
        OLD.excerpt, OLD.cover_image_url, OLD.language, OLD.content, OLD.html);
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

# `was` is the status before; null for a new comment. An event is public if readers saw the comment,
# or see it now.
NOTE_COMMENTS = """
INSERT INTO public.events (kind, article_id, comment_id, user_id, is_public, data)
SELECT news.kind, news.article_id, news.id, news.author_id,
  coalesce('visible' IN (news.status, news.was) AND article.archived_at IS NULL
    AND article.deleted_at IS NULL AND article.published_at <= clock_timestamp(), false),
  jsonb_build_object(
    'status', news.status,
    'was', news.was,
    'parent_id', news.parent_id,
    'thread_id', news.thread_id,
    'user', (SELECT username FROM public.users WHERE id = news.author_id),
    'slug', coalesce(article.draft_slug, article.slug),
    'language', article.language,
    'tags', coalesce(article.tag_names, '{}'),
    'author', (SELECT username FROM public.users WHERE id = article.author_id),
    'author_id', article.author_id
  )
FROM news JOIN public.articles AS article ON article.id = news.article_id ORDER BY news.id
"""

# Imported comments are not new.
COMMENTS_ADDED = f"""
CREATE FUNCTION public.comments_note_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  WITH news AS (
    SELECT id, article_id, author_id, parent_id, coalesce(root_id, id) AS thread_id, status,
      NULL::text AS was,
      CASE status WHEN 'visible' THEN 'comment.created' ELSE 'comment.held' END AS kind
    FROM added WHERE source_id IS NULL AND deleted_at IS NULL AND status <> 'hidden'
  )
  {NOTE_COMMENTS};
  RETURN NULL;
END
$$
"""  # noqa: S608 - a constant of this module

# The author is the former one: deleting an account clears the column.
COMMENTS_CHANGED = f"""
CREATE FUNCTION public.comments_note_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  WITH news AS (
    SELECT now_is.id, now_is.article_id, before.author_id, now_is.parent_id,
      coalesce(now_is.root_id, now_is.id) AS thread_id,
      CASE WHEN now_is.deleted_at IS NULL THEN now_is.status ELSE 'deleted' END AS status,
      before.status AS was,
      CASE
        WHEN now_is.deleted_at IS NOT NULL OR now_is.status = 'hidden' THEN 'comment.deleted'
        WHEN now_is.status = 'pending' THEN 'comment.held'
        ELSE 'comment.created'
      END AS kind
    FROM added AS now_is JOIN removed AS before USING (id)
    WHERE before.deleted_at IS NULL
      AND (now_is.status <> before.status OR now_is.deleted_at IS NOT NULL)
      AND NOT (before.status = 'hidden' AND now_is.deleted_at IS NOT NULL)
  )
  {NOTE_COMMENTS};
  RETURN NULL;
END
$$
"""  # noqa: S608 - a constant of this module

USERS_NOTE_EVENT = """
CREATE FUNCTION public.users_note_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.events (kind, user_id, data) VALUES (
    CASE TG_OP WHEN 'INSERT' THEN 'user.created' ELSE 'user.disabled' END, NEW.id,
    jsonb_build_object('username', NEW.username, 'role', NEW.role)
  );
  RETURN NULL;
END
$$
"""

# The folder is left out: its name gives access to the image, which may belong to a draft.
MEDIA_NOTE_EVENT = """
CREATE FUNCTION public.media_note_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.events (kind, media_id, user_id, data) VALUES (
    'media.created', NEW.id, NEW.owner_id,
    jsonb_build_object('content_type', NEW.content_type, 'bytes', NEW.bytes,
      'width', NEW.width, 'height', NEW.height)
  );
  RETURN NULL;
END
$$
"""

TRIGGERS = {
    "events_notify": "{0} AFTER INSERT ON public.events FOR EACH STATEMENT EXECUTE FUNCTION {0}()",
    "comments_note_added": "{0} AFTER INSERT ON public.comments REFERENCING NEW TABLE AS added"
    " FOR EACH STATEMENT EXECUTE FUNCTION {0}()",
    "comments_note_changed": "{0} AFTER UPDATE ON public.comments"
    " REFERENCING OLD TABLE AS removed NEW TABLE AS added"
    " FOR EACH STATEMENT EXECUTE FUNCTION {0}()",
    "users_note_created": "{0} AFTER INSERT ON public.users"
    " FOR EACH ROW EXECUTE FUNCTION users_note_event()",
    "users_note_disabled": "{0} AFTER UPDATE OF is_active ON public.users FOR EACH ROW"
    " WHEN (OLD.is_active AND NOT NEW.is_active) EXECUTE FUNCTION users_note_event()",
    "media_note_created": "{0} AFTER INSERT ON public.media"
    " FOR EACH ROW EXECUTE FUNCTION media_note_event()",
}

FUNCTIONS = (
    NOTIFY,
    NOTE_CHANGE,
    NOTE_VISIBLE_CHANGE,
    ARTICLES_NOTE_CHANGE,
    COMMENTS_ADDED,
    COMMENTS_CHANGED,
    USERS_NOTE_EVENT,
    MEDIA_NOTE_EVENT,
)

# As in 0003.
FORMER_NOTE_CHANGE = """
CREATE OR REPLACE FUNCTION public.note_article_change(changed_id bigint, edited boolean)
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

# As in 0020.
FORMER_ARTICLES_NOTE_CHANGE = """
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


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("xid", sa.BigInteger(), server_default=sa.text(TRANSACTION), nullable=False),
        sa.Column("kind", sa.String(30), nullable=False),
        sa.Column("article_id", sa.BigInteger(), nullable=True),
        sa.Column("comment_id", sa.BigInteger(), nullable=True),
        sa.Column("user_id", sa.BigInteger(), nullable=True),
        sa.Column("media_id", sa.BigInteger(), nullable=True),
        sa.Column("is_public", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "occurred_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("data", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
    )
    op.create_index("ix_events_position", "events", ["xid", "id"])
    for function in FUNCTIONS:
        op.execute(function)
    for name, trigger in TRIGGERS.items():
        op.execute(f"CREATE TRIGGER {trigger.format(name)}")


def downgrade() -> None:
    op.execute(FORMER_NOTE_CHANGE)
    op.execute(FORMER_ARTICLES_NOTE_CHANGE)
    for function in (
        "note_article_change(bigint, boolean, boolean, text, text, text[], bigint)",
        "comments_note_added()",
        "comments_note_changed()",
        "users_note_event()",
        "media_note_event()",
        "events_notify()",
    ):
        op.execute(f"DROP FUNCTION public.{function} CASCADE")  # with its triggers
    op.drop_table("events")
