"""Set slugs and dates of existing articles, make both required, and add indexes.

It works in batches and does not block requests. It can be run again if it was interrupted. The
application renders the HTML of the articles after its start.

Revision: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BATCH = 2000

# The trigger sets `dated_at` and the search columns, and writes the change feed.
FILL_IN = """
    UPDATE articles SET
      slug = left(
        coalesce(
          nullif(trim(BOTH '-' FROM regexp_replace(lower(title), '[^a-z0-9]+', '-', 'g')), ''),
          'article'
        ), 75
      ) || '-' || id,
      published_at = coalesce(published_at, CASE WHEN published THEN created_at END)
    WHERE slug IS NULL
"""
BOUNDS = "SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM articles"

IN_CIRCULATION = "published_at IS NOT NULL AND archived_at IS NULL AND deleted_at IS NULL"
INDEXES = {
    "uq_articles_slug": "articles (slug)",
    "ix_articles_public_newest": f"articles (dated_at DESC, id DESC) WHERE {IN_CIRCULATION}",
    "ix_articles_public_updated": f"articles (updated_at DESC, id DESC) WHERE {IN_CIRCULATION}",
    "ix_articles_public_title": f"articles (title, id) WHERE {IN_CIRCULATION}",
    "ix_articles_drafts": "articles (dated_at DESC, id DESC)"
    " WHERE published_at IS NULL AND archived_at IS NULL AND deleted_at IS NULL",
    "ix_articles_newest": "articles (dated_at DESC, id DESC)",
    "ix_articles_author_dated": "articles (author_id, dated_at DESC, id DESC)",
    "ix_articles_edited_by": "articles (edited_by) WHERE edited_by IS NOT NULL",
    "ix_articles_rendered_with": "articles (rendered_with)",
    "ix_articles_archived": "articles (dated_at DESC, id DESC)"
    " WHERE archived_at IS NOT NULL AND deleted_at IS NULL",
    "ix_articles_trash": "articles (deleted_at) WHERE deleted_at IS NOT NULL",
    "ix_articles_awaits_publication": "articles (published_at) WHERE awaits_publication",
    "ix_articles_search": "articles USING gin (search_vector)",
    "ix_articles_title_words": "articles USING gin (public.article_title_words(title))",
    "ix_articles_language": "articles (language)",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        _fill_in()
        _build(INDEXES)
        op.execute("ALTER TABLE articles DROP CONSTRAINT IF EXISTS filled_in")
        op.execute(
            "ALTER TABLE articles ADD CONSTRAINT filled_in"
            " CHECK (slug IS NOT NULL AND dated_at IS NOT NULL) NOT VALID"
        )
        op.execute("ALTER TABLE articles VALIDATE CONSTRAINT filled_in")
        op.execute("ALTER TABLE articles VALIDATE CONSTRAINT fk_articles_edited_by")
    # Because of the check constraint, PostgreSQL does not scan the table.
    op.alter_column("articles", "slug", nullable=False)
    op.alter_column("articles", "dated_at", nullable=False)
    op.execute("ALTER TABLE articles DROP CONSTRAINT filled_in")
    op.execute(
        "ALTER TABLE articles ADD CONSTRAINT uq_articles_slug UNIQUE USING INDEX uq_articles_slug"
    )


def _fill_in() -> None:
    if op.get_context().as_sql:  # offline mode: a single statement without batches
        op.execute(FILL_IN)
        return
    connection = op.get_bind()
    first, last = connection.execute(sa.text(BOUNDS)).one()
    batch = sa.text(f"{FILL_IN} AND id BETWEEN :start AND :end")
    for start in range(first, last + 1, BATCH):
        connection.execute(batch, {"start": start, "end": start + BATCH - 1})


def _build(indexes: dict[str, str]) -> None:
    """Create indexes concurrently. An invalid index of an interrupted run is recreated."""
    op.execute("SET lock_timeout = 0")  # CONCURRENTLY waits for transactions without blocking them
    for name, what in indexes.items():
        unique = "UNIQUE " if name.startswith("uq_") else ""
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute(f"CREATE {unique}INDEX CONCURRENTLY {name} ON {what}")
    op.execute("SET lock_timeout = '5s'")


def downgrade() -> None:
    op.alter_column("articles", "slug", nullable=True)
    op.alter_column("articles", "dated_at", nullable=True)
    op.drop_constraint("uq_articles_slug", "articles")
    op.drop_constraint("fk_articles_edited_by", "articles")
    op.execute(
        "ALTER TABLE articles ADD CONSTRAINT fk_articles_edited_by"
        " FOREIGN KEY (edited_by) REFERENCES users (id) ON DELETE SET NULL NOT VALID"
    )
    with op.get_context().autocommit_block():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
