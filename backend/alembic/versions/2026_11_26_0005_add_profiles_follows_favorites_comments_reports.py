"""Add profiles, follows, blocks, favorites, comments, reports, and the order of an article's tags.

It only adds columns and tables. The previous release keeps working: its rows get the defaults.

Revision: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
TO_MODERATE = "status <> 'visible' AND deleted_at IS NULL"

# A statement-level trigger: counts are locked in the order of the ids, so that statements which
# change several rows do not deadlock.
FOLLOWED = """
CREATE FUNCTION public.follows_count_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.user_counts AS counts (user_id, followers, following)
  SELECT user_id, sum(followers), sum(following) FROM (
    SELECT followed_id AS user_id, 1 AS followers, 0 AS following FROM added
    UNION ALL SELECT follower_id, 0, 1 FROM added
  ) AS news GROUP BY user_id ORDER BY user_id
  ON CONFLICT (user_id) DO UPDATE SET
    followers = counts.followers + excluded.followers,
    following = counts.following + excluded.following;
  RETURN NULL;
END
$$
"""
UNFOLLOWED = """
CREATE FUNCTION public.follows_count_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM public.user_counts WHERE user_id IN (
    SELECT followed_id FROM removed UNION SELECT follower_id FROM removed
  ) ORDER BY user_id FOR NO KEY UPDATE;
  UPDATE public.user_counts AS counts SET
    followers = counts.followers - news.followers,
    following = counts.following - news.following
  FROM (
    SELECT user_id, sum(followers) AS followers, sum(following) AS following FROM (
      SELECT followed_id AS user_id, 1 AS followers, 0 AS following FROM removed
      UNION ALL SELECT follower_id, 0, 1 FROM removed
    ) AS each_of_them GROUP BY user_id
  ) AS news WHERE counts.user_id = news.user_id;
  RETURN NULL;
END
$$
"""
FAVORITED = """
CREATE FUNCTION public.favorites_count_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.article_counts AS counts (article_id, favorites)
  SELECT article_id, count(*) FROM added GROUP BY article_id ORDER BY article_id
  ON CONFLICT (article_id) DO UPDATE SET favorites = counts.favorites + excluded.favorites;
  RETURN NULL;
END
$$
"""
UNFAVORITED = """
CREATE FUNCTION public.favorites_count_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM public.article_counts WHERE article_id IN (SELECT article_id FROM removed)
  ORDER BY article_id FOR NO KEY UPDATE;
  UPDATE public.article_counts AS counts SET favorites = counts.favorites - news.number
  FROM (SELECT article_id, count(*) AS number FROM removed GROUP BY article_id) AS news
  WHERE counts.article_id = news.article_id;
  RETURN NULL;
END
$$
"""
COMMENTED = """
CREATE FUNCTION public.comments_count_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.article_counts AS counts (article_id, comments)
  SELECT article_id, count(*) FROM added
  WHERE status = 'visible' AND deleted_at IS NULL GROUP BY article_id ORDER BY article_id
  ON CONFLICT (article_id) DO UPDATE SET comments = counts.comments + excluded.comments;
  RETURN NULL;
END
$$
"""
# A decrement inserts no row: the article may be being deleted, after its counts.
COMMENTS_CHANGED = """
CREATE FUNCTION public.comments_count_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.article_counts AS counts (article_id, comments)
  SELECT article_id, sum(number) FROM (
    SELECT article_id, 1 AS number FROM added WHERE status = 'visible' AND deleted_at IS NULL
    UNION ALL
    SELECT article_id, -1 FROM removed WHERE status = 'visible' AND deleted_at IS NULL
  ) AS each_of_them GROUP BY article_id HAVING sum(number) > 0 ORDER BY article_id
  ON CONFLICT (article_id) DO UPDATE SET comments = counts.comments + excluded.comments;
  PERFORM FROM public.article_counts WHERE article_id IN (
    SELECT article_id FROM removed WHERE status = 'visible' AND deleted_at IS NULL
  ) ORDER BY article_id FOR NO KEY UPDATE;
  UPDATE public.article_counts AS counts SET comments = counts.comments + news.number
  FROM (
    SELECT article_id, sum(number) AS number FROM (
      SELECT article_id, 1 AS number FROM added WHERE status = 'visible' AND deleted_at IS NULL
      UNION ALL
      SELECT article_id, -1 FROM removed WHERE status = 'visible' AND deleted_at IS NULL
    ) AS each_of_them GROUP BY article_id HAVING sum(number) < 0
  ) AS news WHERE counts.article_id = news.article_id;
  RETURN NULL;
END
$$
"""
# The text of a deleted account's comments is deleted. The rows stay, because replies refer to them.
AUTHOR_LEFT = """
CREATE FUNCTION public.comments_author_left() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.content := '';
  NEW.html := '';
  NEW.deleted_at := coalesce(NEW.deleted_at, clock_timestamp());
  RETURN NEW;
END
$$
"""
FUNCTIONS = {
    "follows_count_added": FOLLOWED,
    "follows_count_removed": UNFOLLOWED,
    "favorites_count_added": FAVORITED,
    "favorites_count_removed": UNFAVORITED,
    "comments_count_added": COMMENTED,
    "comments_count_changed": COMMENTS_CHANGED,
    "comments_author_left": AUTHOR_LEFT,
}
TRIGGERS = (
    (
        (
            "CREATE TRIGGER {0}_count_added AFTER INSERT ON {0} REFERENCING NEW TABLE AS added"
            " FOR EACH STATEMENT EXECUTE FUNCTION {0}_count_added()"
        ),
        ("follows", "favorites", "comments"),
    ),
    (
        (
            "CREATE TRIGGER {0}_count_removed AFTER DELETE ON {0} REFERENCING OLD TABLE AS removed"
            " FOR EACH STATEMENT EXECUTE FUNCTION {0}_count_removed()"
        ),
        ("follows", "favorites"),
    ),
    (
        (
            "CREATE TRIGGER {0}_count_changed AFTER UPDATE ON {0}"
            " REFERENCING OLD TABLE AS removed NEW TABLE AS added"
            " FOR EACH STATEMENT EXECUTE FUNCTION {0}_count_changed()"
        ),
        ("comments",),
    ),
    (
        (
            "CREATE TRIGGER {0}_author_left BEFORE UPDATE OF author_id ON {0} FOR EACH ROW"
            " WHEN (OLD.author_id IS NOT NULL AND NEW.author_id IS NULL)"
            " EXECUTE FUNCTION {0}_author_left()"
        ),
        ("comments",),
    ),
)


def upgrade() -> None:
    # First, because these take the strongest locks on tables in use (see 0002).
    op.add_column("users", sa.Column("bio", sa.String(1000), server_default="", nullable=False))
    op.add_column("users", sa.Column("image_url", sa.String(2000), nullable=True))
    policy = sa.Column("comment_policy", sa.String(10), server_default="open", nullable=False)
    op.add_column("articles", policy)
    position = sa.Column("position", sa.SmallInteger(), server_default=sa.text("0"), nullable=False)
    op.add_column("article_tags", position)
    # 0006 validates it: all rows have the default, but PostgreSQL would scan the table.
    op.execute(
        "ALTER TABLE articles ADD CONSTRAINT ck_articles_comment_policy_known"
        " CHECK (comment_policy IN ('open', 'held', 'closed')) NOT VALID"
    )
    _create_follows()
    _create_favorites()
    _create_comments()
    _create_reports()
    for function in FUNCTIONS.values():
        op.execute(function)
    for trigger, tables in TRIGGERS:
        for table in tables:
            op.execute(trigger.format(table))


def _reference(table: str, column: str, to: str, ondelete: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}"
    return sa.ForeignKeyConstraint([column], [f"{to}.id"], name=name, ondelete=ondelete)


def _create_follows() -> None:
    for table, one, other in (
        ("follows", "follower_id", "followed_id"),
        ("blocks", "blocker_id", "blocked_id"),
    ):
        op.create_table(
            table,
            sa.Column(one, sa.BigInteger(), nullable=False),
            sa.Column(other, sa.BigInteger(), nullable=False),
            sa.Column("created_at", MOMENT, nullable=False),
            sa.CheckConstraint(f"{one} <> {other}", name=op.f(f"ck_{table}_not_oneself")),
            _reference(table, one, "users", "CASCADE"),
            _reference(table, other, "users", "CASCADE"),
            sa.PrimaryKeyConstraint(one, other, name=f"pk_{table}"),
        )
    op.create_index("ix_blocks_blocked_id", "blocks", ["blocked_id"])
    followers = ["followed_id", "created_at", "follower_id"]
    op.create_index("ix_follows_followers", "follows", followers)
    op.create_index("ix_follows_following", "follows", followers[::-1])
    _create_counts("user_counts", "user_id", "users", "followers", "following")


def _create_counts(table: str, of: str, to: str, *counts: str) -> None:
    op.create_table(
        table,
        sa.Column(of, sa.BigInteger(), nullable=False),
        *(
            sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False)
            for name in counts
        ),
        _reference(table, of, to, "CASCADE"),
        sa.PrimaryKeyConstraint(of, name=f"pk_{table}"),
    )


def _create_favorites() -> None:
    op.create_table(
        "favorites",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("article_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        _reference("favorites", "user_id", "users", "CASCADE"),
        _reference("favorites", "article_id", "articles", "CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "article_id", name="pk_favorites"),
    )
    op.create_index("ix_favorites_article", "favorites", ["article_id", "created_at", "user_id"])
    _create_counts("article_counts", "article_id", "articles", "favorites", "comments")


def _create_comments() -> None:
    op.create_table(
        "comments",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("article_id", sa.BigInteger(), nullable=False),
        sa.Column("author_id", sa.BigInteger(), nullable=True),
        sa.Column("root_id", sa.BigInteger(), nullable=True),
        sa.Column("parent_id", sa.BigInteger(), nullable=True),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("html", sa.Text(), nullable=False),
        sa.Column("status", sa.String(10), server_default="visible", nullable=False),
        sa.Column("locked_at", MOMENT, nullable=True),
        sa.Column("edited_at", MOMENT, nullable=True),
        sa.Column("deleted_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status IN ('visible', 'pending', 'hidden')", name=op.f("ck_comments_status_known")
        ),
        sa.CheckConstraint(
            "(root_id IS NULL) = (parent_id IS NULL)", name=op.f("ck_comments_replies_have_a_root")
        ),
        sa.CheckConstraint(
            "root_id IS NULL OR locked_at IS NULL", name=op.f("ck_comments_threads_are_locked")
        ),
        _reference("comments", "article_id", "articles", "CASCADE"),
        _reference("comments", "author_id", "users", "SET NULL"),
        _reference("comments", "root_id", "comments", "CASCADE"),
        _reference("comments", "parent_id", "comments", "CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_comments"),
    )
    for name, columns, where in (
        ("threads", ["article_id", "id"], "root_id IS NULL"),
        ("article", ["article_id", "id"], None),
        ("replies", ["root_id", "id"], None),
        ("author_id", ["author_id"], None),
        ("parent_id", ["parent_id"], None),
        ("to_moderate", ["status", "id"], TO_MODERATE),
        ("article_to_moderate", ["article_id", "status", "id"], TO_MODERATE),
        ("deleted", ["deleted_at"], "deleted_at IS NOT NULL AND content <> ''"),
    ):
        condition = {} if where is None else {"postgresql_where": sa.text(where)}
        op.create_index(f"ix_comments_{name}", "comments", columns, **condition)


def _create_reports() -> None:
    op.create_table(
        "reports",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("reporter_id", sa.BigInteger(), nullable=True),
        sa.Column("article_id", sa.BigInteger(), nullable=True),
        sa.Column("comment_id", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.Column("state", sa.String(10), server_default="open", nullable=False),
        sa.Column("note", sa.String(1000), server_default="", nullable=False),
        sa.Column("handled_by", sa.BigInteger(), nullable=True),
        sa.Column("handled_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "num_nonnulls(article_id, comment_id) = 1", name=op.f("ck_reports_one_subject")
        ),
        sa.CheckConstraint(
            "state IN ('open', 'in_review', 'resolved', 'dismissed')",
            name=op.f("ck_reports_state_known"),
        ),
        _reference("reports", "reporter_id", "users", "SET NULL"),
        _reference("reports", "article_id", "articles", "CASCADE"),
        _reference("reports", "comment_id", "comments", "CASCADE"),
        _reference("reports", "handled_by", "users", "SET NULL"),
        sa.PrimaryKeyConstraint("id", name="pk_reports"),
        sa.UniqueConstraint("reporter_id", "article_id", name="uq_reports_article"),
        sa.UniqueConstraint("reporter_id", "comment_id", name="uq_reports_comment"),
    )
    op.create_index("ix_reports_state", "reports", ["state", "id"])
    for column in ("article_id", "comment_id", "handled_by"):
        op.create_index(f"ix_reports_{column}", "reports", [column])


def downgrade() -> None:
    for table in (
        "reports",
        "comments",
        "article_counts",
        "favorites",
        "user_counts",
        "blocks",
        "follows",
    ):
        op.drop_table(table)
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}()")
    op.drop_column("article_tags", "position")
    op.drop_column("articles", "comment_policy")
    op.drop_column("users", "image_url")
    op.drop_column("users", "bio")
