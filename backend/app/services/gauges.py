"""What the metrics show of the database: each collector is one statement."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.revisions import head
from app.db.session import Database


class Gauge(NamedTuple):
    """The value of a metric of `app.core.metrics.SHARED`."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


class DatabaseGauges(NamedTuple):
    """The gauges that could be read, and which collectors succeeded."""

    gauges: Sequence[Gauge]
    collectors: Mapping[str, bool]


_HAS_TABLE = text("SELECT to_regclass('job_runs') IS NOT NULL")
_HAS_WEBHOOKS = text("SELECT to_regclass('webhook_deliveries') IS NOT NULL")
_HAS_MAINTENANCE = text(
    """
    SELECT EXISTS (SELECT FROM pg_attribute
      WHERE attrelid = 'installation'::regclass AND attname = 'maintenance' AND NOT attisdropped)
    """
)
_OUTBOX = text(
    """
    SELECT 'pressroom_outbox_messages', count(*), ARRAY['mail', 'queued'] FROM mails
    WHERE next_attempt_at IS NOT NULL
    UNION ALL
    SELECT 'pressroom_outbox_messages', count(*), ARRAY['mail', 'failed'] FROM mails
    WHERE next_attempt_at IS NULL AND sent_at IS NULL AND error IS NOT NULL
    UNION ALL
    SELECT 'pressroom_outbox_oldest_age_seconds',
      coalesce(extract(epoch FROM now() - min(created_at)), 0), ARRAY['mail'] FROM mails
    WHERE next_attempt_at IS NOT NULL
    """
)
_WEBHOOKS = text(
    """
    SELECT 'pressroom_outbox_messages', count(*), ARRAY['webhook', 'queued']
    FROM webhook_deliveries AS delivery JOIN webhooks ON webhooks.id = webhook_id
    WHERE next_attempt_at IS NOT NULL AND is_active
    UNION ALL
    SELECT 'pressroom_outbox_oldest_age_seconds',
      coalesce(extract(epoch FROM now() - min(delivery.created_at)), 0), ARRAY['webhook']
    FROM webhook_deliveries AS delivery JOIN webhooks ON webhooks.id = webhook_id
    WHERE next_attempt_at IS NOT NULL AND is_active AND failures = 0
    UNION ALL
    SELECT 'pressroom_webhooks', value, ARRAY[state] FROM (
      SELECT count(*) FILTER (WHERE is_active AND failures = 0) AS working,
        count(*) FILTER (WHERE is_active AND failures > 0) AS failing,
        count(*) FILTER (WHERE NOT is_active) AS disabled
      FROM webhooks
    ) AS counted, LATERAL (VALUES
      ('working', working), ('failing', failing), ('disabled', disabled)
    ) AS shown (state, value)
    """
)
"""The age is of receivers that answer: one that does not is no fault of this server."""
_MEDIA = text("SELECT 'pressroom_media_bytes', coalesce(sum(bytes), 0), ARRAY[]::text[] FROM media")
_CHANGES = text(
    """
    SELECT 'pressroom_change_feed_lag_seconds',
      coalesce(extract(epoch FROM now() - min(published_at)), 0), ARRAY[]::text[]
    FROM articles WHERE awaits_publication AND published_at <= now()
    """
)
_MAINTENANCE = text(
    """
    SELECT 'pressroom_maintenance_mode', count(maintenance), ARRAY[]::text[] FROM installation
    """
)
_JOBS = text(
    """
    WITH RECURSIVE jobs AS (
      (SELECT job FROM job_runs ORDER BY job LIMIT 1)
      UNION ALL
      SELECT following.job FROM jobs, LATERAL (
        SELECT job FROM job_runs WHERE job_runs.job > jobs.job ORDER BY job LIMIT 1
      ) AS following
    )
    SELECT 'pressroom_job_last_success_timestamp_seconds',
      extract(epoch FROM success.finished_at), ARRAY[jobs.job::text]
    FROM jobs, LATERAL (
      SELECT max(finished_at) AS finished_at FROM job_runs
      WHERE job_runs.job = jobs.job AND error IS NULL
    ) AS success
    WHERE success.finished_at IS NOT NULL
    """
)
_BACKUP = text(
    """
    SELECT name, value, ARRAY[]::text[] FROM (
      SELECT finished_at, rows FROM job_runs
      WHERE job = 'backup' AND finished_at IS NOT NULL AND error IS NULL
      ORDER BY id DESC LIMIT 1
    ) AS newest, LATERAL (VALUES
      ('pressroom_backup_last_success_timestamp_seconds', extract(epoch FROM finished_at)),
      ('pressroom_backup_size_bytes', rows)
    ) AS shown (name, value)
    """
)
WAL_SLOT = "barman"
"""The replication slot of the archive. A connected receiver stores WAL as it is written."""
_ARCHIVE = text(
    """
    SELECT 'pressroom_wal_archive_age_seconds', max(age), ARRAY[]::text[] FROM (
      SELECT extract(epoch FROM now() - coalesce(last_archived_time, stats_reset)) AS age
      FROM pg_stat_archiver WHERE current_setting('archive_mode') <> 'off'
      UNION ALL
      SELECT CASE WHEN active THEN 0
        ELSE extract(epoch FROM clock_timestamp() - inactive_since) END
      FROM pg_replication_slots WHERE slot_name = :slot
    ) AS archives HAVING count(age) > 0
    UNION ALL
    SELECT 'pressroom_wal_held_bytes', pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn),
      ARRAY[]::text[]
    FROM pg_replication_slots WHERE slot_name = :slot AND restart_lsn IS NOT NULL
    """
).bindparams(slot=WAL_SLOT)
_CONTENT = text(
    """
    SELECT name, value, labels FROM (
      SELECT count(*) FILTER (WHERE is_current AND published_at <= now()) AS published,
        count(*) FILTER (WHERE is_current AND published_at > now()) AS scheduled,
        count(*) FILTER (WHERE is_current AND published_at IS NULL) AS drafts,
        count(*) FILTER (WHERE deleted_at IS NULL AND archived_at IS NOT NULL) AS archived,
        count(*) FILTER (WHERE deleted_at IS NOT NULL) AS trash
      FROM (SELECT *, deleted_at IS NULL AND archived_at IS NULL AS is_current FROM articles)
    ) AS counted, LATERAL (VALUES
      ('pressroom_articles', published, ARRAY['published']),
      ('pressroom_articles', scheduled, ARRAY['scheduled']),
      ('pressroom_articles', drafts, ARRAY['drafts']),
      ('pressroom_articles', archived, ARRAY['archived']),
      ('pressroom_articles', trash, ARRAY['trash'])
    ) AS shown (name, value, labels)
    UNION ALL
    SELECT 'pressroom_comments', count(*), ARRAY[]::text[] FROM comments WHERE deleted_at IS NULL
    UNION ALL
    SELECT 'pressroom_users', count(*) FILTER (WHERE is_active), ARRAY['active'] FROM users
    UNION ALL
    SELECT 'pressroom_users', count(*) FILTER (WHERE NOT is_active), ARRAY['disabled'] FROM users
    UNION ALL
    SELECT 'pressroom_media_files', count(*), ARRAY[]::text[] FROM media
    """
)
CONTENT = "content"
CONTENT_SECONDS = 300.0
"""How long these counts are reused: they read whole tables."""
REPLICATION = "replication"
_COLLECTORS: Mapping[str, TextClause] = {
    "outbox": _OUTBOX,
    "webhooks": _WEBHOOKS,
    "media": _MEDIA,
    "changes": _CHANGES,
    "maintenance": _MAINTENANCE,
    "jobs": _JOBS,
    "backup": _BACKUP,
    "wal_archive": _ARCHIVE,
}
"""Statements for the primary. Rows are a name, a value and the labels."""
COLLECTORS = (*_COLLECTORS, CONTENT, REPLICATION)


class ContentCounts:
    """The counts of the last five minutes, also if they could not be read."""

    def __init__(self) -> None:
        self._read_at = -CONTENT_SECONDS
        self._gauges: Sequence[Gauge] | None = None

    async def read(self, connection: AsyncConnection) -> Sequence[Gauge] | None:
        """Return the counts; None if the database could not count in time."""
        now = time.monotonic()
        if now - self._read_at > CONTENT_SECONDS:
            self._read_at, self._gauges = now, None
            self._gauges = await _collect(connection, _CONTENT)
        return self._gauges


def schema_revision() -> str:
    """Return the revision of the schema that this release needs."""
    return head()


async def read_gauges(database: Database, counts: ContentCounts) -> DatabaseGauges:
    """Read all gauges; a collector that fails does not prevent the others.

    The counts of the content are those of `counts`. Raises ServiceUnavailable if the primary does
    not answer.
    """
    gauges: list[Gauge] = []
    succeeded: dict[str, bool] = {}
    async with database.autocommit() as connection:
        missing = await _missing(connection)
        for name, statement in _COLLECTORS.items():
            if name in missing:
                continue
            found = await _collect(connection, statement)
            succeeded[name] = found is not None
            gauges += found or ()
        counted = await counts.read(connection)
        succeeded[CONTENT] = counted is not None
        gauges += counted or ()
    if database.replication is not None and database.has_replicas:
        lags = database.replication.lags()
        succeeded[REPLICATION] = bool(lags)
        gauges += [
            Gauge("pressroom_database_replication_lag_seconds", lag, (name,))
            for name, lag in lags.items()
        ]
    return DatabaseGauges(gauges, succeeded)


async def _collect(connection: AsyncConnection, statement: TextClause) -> Sequence[Gauge] | None:
    """Return the gauges of a statement; None if it fails."""
    try:
        rows = (await connection.execute(statement)).all()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return None
    return [Gauge(row[0], float(row[1]), tuple(row[2])) for row in rows]


async def _missing(connection: AsyncConnection) -> frozenset[str]:
    """Return the collectors whose table is not there yet: this process may be newer."""
    missing: set[str] = set()
    if not await connection.scalar(_HAS_TABLE):
        missing |= {"jobs", "backup"}
    if not await connection.scalar(_HAS_WEBHOOKS):
        missing.add("webhooks")
    if not await connection.scalar(_HAS_MAINTENANCE):
        missing.add("maintenance")
    return frozenset(missing)
