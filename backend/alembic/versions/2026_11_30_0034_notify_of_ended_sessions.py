"""Notify of sessions, keys and roles that end or change, so that streams and sockets end at once.

It adds triggers only, so its duration does not depend on table sizes. The payload is the id of the
user. Sessions and keys that expire need no notification.

Revision: 0034
Revises: 0033b
"""

from alembic import op

revision = "0034"
down_revision = "0033b"
branch_labels = None
depends_on = None

NOTIFY = """
CREATE FUNCTION public.notify_of_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('pressroom_sessions', OLD.user_id::text);
  RETURN NULL;
END
$$
"""
NOTIFY_OF_USER = """
CREATE FUNCTION public.notify_of_user() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('pressroom_sessions', OLD.id::text);
  RETURN NULL;
END
$$
"""
TRIGGERS = {
    "user_sessions_notify": "AFTER UPDATE OF revoked_at ON public.user_sessions FOR EACH ROW"
    " WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL)"
    " EXECUTE FUNCTION notify_of_session()",
    "api_keys_notify": "AFTER DELETE ON public.api_keys FOR EACH ROW"
    " EXECUTE FUNCTION notify_of_session()",
    "users_notify": "AFTER UPDATE OF is_active, role ON public.users FOR EACH ROW"
    " WHEN (OLD.is_active <> NEW.is_active OR OLD.role <> NEW.role)"
    " EXECUTE FUNCTION notify_of_user()",
    "users_notify_deleted": "AFTER DELETE ON public.users FOR EACH ROW"
    " EXECUTE FUNCTION notify_of_user()",
}


def upgrade() -> None:
    op.execute(NOTIFY)
    op.execute(NOTIFY_OF_USER)
    for name, trigger in TRIGGERS.items():
        op.execute(f"CREATE TRIGGER {name} {trigger}")


def downgrade() -> None:
    for function in ("notify_of_session()", "notify_of_user()"):
        op.execute(f"DROP FUNCTION public.{function} CASCADE")  # with its triggers
