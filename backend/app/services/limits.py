"""Limits on what one user or one client address may create, counted in PostgreSQL.

`spend` counts with one statement in the caller's unit of work, so a rollback also undoes the
count. Rates are leaky buckets: the whole limit can be used at once, and refills evenly within its
window.

Totals are only counted upwards, so deletions need not count. When a limit seems to be reached, or
when no count exists, the total is measured.

The rows with a user's counts stay locked until the unit of work ends. Call `spend` after everything
that locks articles, images or tags, and after the flush of what it counts
(docs/architecture.md, Locks). Such callers `check` first, so that refused requests write nothing.
"""

import hashlib
import hmac
import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import reduce
from operator import add
from typing import Any, NamedTuple, NoReturn

from sqlalchemy import (
    BigInteger,
    DateTime,
    Float,
    Integer,
    Select,
    String,
    and_,
    bindparam,
    delete,
    func,
    or_,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import COMMAND_LINE, Client, Identity, network_of
from app.auth.keys import derived_keys
from app.auth.permissions import Action, require
from app.core import clock, metrics, rates
from app.core.conditional import Precondition
from app.core.config import get_settings
from app.core.enums import Role
from app.core.errors import LimitReached, QuotaExceeded, UserNotFound
from app.core.limits import (
    DEFAULTS,
    MAX_AMOUNT,
    MAX_WINDOW,
    TRUSTED_FACTOR,
    UNSCALED_KINDS,
    USER_KINDS,
    Limit,
    LimitKind,
)
from app.core.rates import Rate, leaky_bucket
from app.db.reading import Reader
from app.db.session import NO_KEY_UPDATE, Database
from app.db.writing import fetch
from app.models.accounts.address import Address
from app.models.accounts.user import User
from app.models.articles.article import Article, DraftFormerSlug, FormerSlug
from app.models.articles.revision import ArticleRevision
from app.models.bulk import ImportedAddress, ImportRecord, Redirect
from app.models.community.comment import Comment
from app.models.limit import LimitOverride, LimitUse, UploadReservation
from app.models.media import Media
from app.schemas.limit import LimitResponse, LimitUseResponse, UserLimits, UserLimitsUpdate
from app.services import audit
from app.services.audit import AuditAction
from app.services.purging import SWEEP_BATCH, Batch, delete_oldest, paced_unit_of_work


class LimitedUser(NamedTuple):
    """The user whose limits apply, if no Identity is available."""

    id: int
    role: Role = Role.AUTHOR


_TRUSTED = frozenset({Role.EDITOR, Role.ADMIN})
_ADVICE: Mapping[LimitKind, str] = {
    LimitKind.TEXT_KEPT: "bytes of text; delete articles, also from the trash",
    LimitKind.DRAFTS: "drafts; publish or delete some",
    LimitKind.ADDRESSES: "addresses; delete some",
    LimitKind.MEDIA_BYTES: "bytes of images; delete some",
    LimitKind.UPLOADS_AT_ONCE: "concurrent uploads; wait until one of them is done",
}
"""The unit of each total; after the semicolon, how to get below the limit."""

_USER = bindparam("user_id", type_=BigInteger)
_NOW = bindparam("now", type_=DateTime(timezone=True))


def _bytes_of(model: Any, *conditions: Any) -> Select[Any]:
    """Select the sizes of texts, which PostgreSQL knows without reading them."""
    return select(func.octet_length(model.content).label("bytes")).where(*conditions)


def _bytes_of_imports(model: Any, *columns: Any) -> Select[Any]:
    """Select the sizes of what imports store beside the texts, for the author of the article."""
    sizes = [func.coalesce(func.octet_length(column), 0) for column in columns]
    total = reduce(add, sizes).label("bytes")
    return (
        select(total)
        .join_from(model, Article, Article.id == model.article_id)
        .where(Article.author_id == _USER)
    )


# Each text counts for its author, as an article's current text or as a revision.
_TEXTS = union_all(
    _bytes_of(
        Article,
        Article.author_id == _USER,
        or_(Article.edited_by.is_(None), Article.edited_by == _USER),
    ),
    _bytes_of(Article, Article.edited_by == _USER, Article.author_id != _USER),
    _bytes_of(ArticleRevision, ArticleRevision.author_id == _USER),
    select(func.pg_column_size(Article.imported)).where(
        Article.author_id == _USER, Article.imported.is_not(None)
    ),
    _bytes_of_imports(ImportRecord, ImportRecord.source, ImportRecord.source_id),
    _bytes_of_imports(Redirect, Redirect.path, Redirect.source),
    _bytes_of_imports(FormerSlug, FormerSlug.slug),
    _bytes_of_imports(DraftFormerSlug, DraftFormerSlug.slug),
    _bytes_of_imports(ImportedAddress, ImportedAddress.address, ImportedAddress.source_address),
    _bytes_of_imports(Comment, Comment.content, Comment.source_id, Comment.guest_url).where(
        Comment.source_id.is_not(None)
    ),
).subquery()
_ACTIVE_RESERVATION = and_(UploadReservation.user_id == _USER, UploadReservation.expires_at > _NOW)
_STORED_BYTES = select(func.coalesce(func.sum(Media.bytes), 0)).where(Media.owner_id == _USER)
_RESERVED_BYTES = select(func.coalesce(func.sum(UploadReservation.bytes), 0)).where(
    _ACTIVE_RESERVATION
)
_MEASURES: Mapping[LimitKind, Select[Any]] = {
    LimitKind.TEXT_KEPT: select(func.coalesce(func.sum(_TEXTS.c.bytes), 0)),
    LimitKind.DRAFTS: select(func.count())
    .select_from(Article)
    .where(
        Article.author_id == _USER, Article.published_at.is_(None), Article.deleted_at.is_(None)
    ),
    LimitKind.ADDRESSES: select(func.count()).select_from(Address).where(Address.user_id == _USER),
    LimitKind.MEDIA_BYTES: select(
        _STORED_BYTES.scalar_subquery() + _RESERVED_BYTES.scalar_subquery()
    ),
    LimitKind.UPLOADS_AT_ONCE: select(func.count())
    .select_from(UploadReservation)
    .where(_ACTIVE_RESERVATION),
}

_SPEND_PARAMETERS = (
    bindparam("subject", type_=String()),
    bindparam("kinds", type_=ARRAY(String)),
    bindparam("costs", type_=ARRAY(Float)),
    bindparam("amounts", type_=ARRAY(Float)),
    bindparam("windows", type_=ARRAY(Float)),
    _USER,
    _NOW,
)
_SPEND_SQL = """
    INSERT INTO limit_uses AS used (subject, kind, level, amount, seconds, counted_at)
    SELECT :subject, asked.kind, asked.cost, coalesce(override.amount, asked.amount),
      asked.seconds, :now
    FROM unnest(:kinds, :costs, :amounts, :windows) AS asked (kind, cost, amount, seconds)
    LEFT JOIN limit_overrides AS override
      ON override.user_id = :user_id AND override.kind = asked.kind
    ORDER BY asked.kind
    ON CONFLICT (subject, kind) DO UPDATE SET
      level = excluded.level + greatest(used.level - coalesce(
        greatest(extract(epoch FROM excluded.counted_at - used.counted_at), 0)
        * excluded.amount / excluded.seconds, 0), 0),
      amount = excluded.amount,
      seconds = excluded.seconds,
      counted_at = greatest(excluded.counted_at, used.counted_at)
    WHERE excluded.level + greatest(used.level - coalesce(
        greatest(extract(epoch FROM excluded.counted_at - used.counted_at), 0)
        * excluded.amount / excluded.seconds, 0), 0) <= excluded.amount
    RETURNING kind, level, amount
    """
_SPEND = text(_SPEND_SQL).bindparams(*_SPEND_PARAMETERS)
"""Count several kinds at once; a kind whose limit would be exceeded is not returned.

Rows are inserted and locked in the order of their kinds. A new row is always returned.
"""
_SPEND_AND_RECORD = text(f"WITH events AS ({audit.INSERT_EVENTS}) {_SPEND_SQL}").bindparams(
    *_SPEND_PARAMETERS, *audit.EVENT_PARAMETERS
)
"""The same, and insert the audit events of the request: one round trip less."""
_EXCEEDED = text(
    """
    SELECT asked.kind
    FROM unnest(:kinds, :costs, :amounts, :windows) AS asked (kind, cost, amount, seconds)
    LEFT JOIN limit_overrides AS override
      ON override.user_id = :user_id AND override.kind = asked.kind
    LEFT JOIN limit_uses AS used ON used.subject = :subject AND used.kind = asked.kind
    CROSS JOIN LATERAL (SELECT coalesce(override.amount, asked.amount) AS amount) AS allowed
    WHERE used.level IS NULL AND asked.seconds IS NULL
      OR asked.cost + greatest(coalesce(used.level, 0) - coalesce(
        greatest(extract(epoch FROM :now - used.counted_at), 0)
        * allowed.amount / asked.seconds, 0), 0) > allowed.amount
    """
).bindparams(*_SPEND_PARAMETERS)
"""The kinds whose limits the costs seem to exceed, and the totals that were not counted before."""
_USES = select(LimitUse.kind, LimitUse.level, LimitUse.counted_at).where(
    LimitUse.subject == bindparam("subject", type_=String)
)
_OVERRIDES = select(LimitOverride.kind, LimitOverride.amount).where(LimitOverride.user_id == _USER)
_ROLE = select(User.role).where(User.id == _USER)
_PURGE = text("""
    WITH examined AS (
      SELECT subject, kind FROM limit_uses WHERE (subject, kind) > (:subject, :kind)
      ORDER BY subject, kind LIMIT :limit
    ), expired AS (
      SELECT uses.subject, uses.kind FROM limit_uses AS uses JOIN examined USING (subject, kind)
      WHERE uses.counted_at < :before FOR UPDATE OF uses SKIP LOCKED
    ), deleted AS (
      DELETE FROM limit_uses AS uses USING expired
      WHERE uses.subject = expired.subject AND uses.kind = expired.kind RETURNING 1
    )
    SELECT subject, kind, (SELECT count(*) FROM deleted) AS rows FROM examined
    ORDER BY subject DESC, kind DESC LIMIT 1
""").bindparams(
    bindparam("subject", type_=String()),
    bindparam("kind", type_=String()),
    bindparam("limit", type_=Integer()),
    bindparam("before", type_=DateTime(timezone=True)),
)
"""Examine some rows in the order of the primary key, delete the expired ones, return the last key.

An index on `counted_at` would make each count update an index.
"""
_SET_TOTAL = (
    text(
        "UPDATE limit_uses SET level = :level, amount = :amount, counted_at = :now"
        " WHERE subject = :subject AND kind = :kind"
    )
).bindparams(_NOW)


async def spend(
    session: AsyncSession, user: Identity | LimitedUser, costs: Mapping[LimitKind, int]
) -> None:
    """Count the user's actions in the session's unit of work; commands are not counted.

    What a total counts is already stored and flushed, so that a measured total contains it. Raises
    LimitReached for a rate and QuotaExceeded for a total. The caller must then roll back.
    """
    if user.id == COMMAND_LINE.id:
        return
    await _spend(session, f"user {user.id}", user.id, costs, _limits_of(user, costs))


async def check(session: AsyncSession, user: Identity, costs: Mapping[LimitKind, int]) -> None:
    """Raise the error of `spend` before the request writes anything. Locks and counts nothing.

    A request that counts last would otherwise write everything before it is refused, as often as
    its user likes. Concurrent requests may both pass, so `spend` decides. What a total counts is
    not stored yet. Raises LimitReached, QuotaExceeded.
    """
    asked = {kind: limit for kind, limit in _limits_of(user, costs).items() if limit is not None}
    if user.id == COMMAND_LINE.id or not asked:
        return
    parameters = _parameters(f"user {user.id}", user.id, costs, asked)
    exceeded = {row.kind for row in await fetch(session, _EXCEEDED, parameters)}
    for kind, limit in asked.items():
        if kind in exceeded and limit.per is None:
            await require_total(session, user, kind, costs[kind])
        elif kind in exceeded:
            await _raise_limit_reached(session, kind, costs[kind], limit, parameters)


def _limits_of(
    user: Identity | LimitedUser, costs: Mapping[LimitKind, int]
) -> Mapping[LimitKind, Limit | None]:
    return {kind: limit_of(kind, user.role) for kind, cost in costs.items() if cost > 0}


async def spend_for_client(database: Database, client: Client, kind: LimitKind) -> None:
    """Count one action of an anonymous client by its address, even if the request fails later.

    Opens its own unit of work, so the caller must not hold a connection. Raises LimitReached. The
    response contains the limit, but not how much other clients of the network have used.
    """
    digest = hmac.digest(derived_keys("limits")[0], network_of(client).encode(), hashlib.sha256)
    limits = {kind: get_settings().limit_of(kind)}
    async with database.unit_of_work() as session:
        await _spend(session, f"address {digest.hex()}", None, {kind: 1}, limits)


def limit_of(kind: LimitKind, role: Role) -> Limit | None:
    """Return the limit for users with this role; None if there is no limit."""
    limit = get_settings().limit_of(kind)
    if limit is None or role not in _TRUSTED or kind in UNSCALED_KINDS:
        return limit
    return limit._replace(amount=min(limit.amount * TRUSTED_FACTOR, MAX_AMOUNT))


async def _spend(
    session: AsyncSession,
    subject: str,
    user_id: int | None,
    costs: Mapping[LimitKind, int],
    limits: Mapping[LimitKind, Limit | None],
) -> None:
    asked = {kind: limit for kind, limit in limits.items() if limit is not None}
    if not asked:
        return
    parameters = _parameters(subject, user_id, costs, asked)
    events = audit.take_events(session)
    statement = _SPEND_AND_RECORD if events else _SPEND
    counted = {row.kind: row for row in await fetch(session, statement, {**parameters, **events})}
    for kind, limit in asked.items():
        row = counted.get(kind)
        if limit.per is None:
            if row is None or row.level <= costs[kind]:  # limit reached, or a new row
                if row is not None:
                    amount = int(row.amount)
                else:
                    overrides = await get_overrides(session, user_id)
                    amount = overrides.get(kind, limit.amount)
                await _measure(session, kind, costs[kind], amount, parameters)
        elif row is None or row.level > row.amount:
            await _raise_limit_reached(session, kind, costs[kind], limit, parameters)
        else:
            rate = _rate(kind, limit._replace(amount=int(row.amount)), row.level)
            is_own = user_id is not None
            rates.report(rate if is_own else rate._replace(remaining=None, reset=None))


def _rate(kind: LimitKind, limit: Limit, level: float) -> Rate:
    """Return the state of a rate for the response."""
    assert limit.per is not None  # noqa: S101 - a rate
    window = int(limit.per.total_seconds())
    in_bytes = kind in {LimitKind.TEXT_WRITTEN, LimitKind.CHECKED_TEXT}
    return leaky_bucket(
        kind.value, level=level, quota=limit.amount, window=window, in_bytes=in_bytes
    )


def _parameters(
    subject: str,
    user_id: int | None,
    costs: Mapping[LimitKind, int],
    asked: Mapping[LimitKind, Limit],
) -> dict[str, Any]:
    return {
        "subject": subject,
        "user_id": user_id,
        "kinds": [kind.value for kind in asked],
        "costs": [float(costs[kind]) for kind in asked],
        "amounts": [float(limit.amount) for limit in asked.values()],
        "windows": [limit.per and limit.per.total_seconds() for limit in asked.values()],
        "now": clock.now(),
    }


async def _measure(
    session: AsyncSession,
    kind: LimitKind,
    cost: int,
    amount: int,
    parameters: Mapping[str, Any],
) -> None:
    """Set a total, whose row is locked, to the measured value, which contains `cost`.

    Raises QuotaExceeded.
    """
    of_user = {"user_id": parameters["user_id"], "now": parameters["now"]}
    level = int(await session.scalar(_MEASURES[kind], of_user) or 0)
    if level > amount:
        raise _quota_exceeded(kind, used=max(level - cost, 0), cost=cost, amount=amount)
    total = {"subject": parameters["subject"], "kind": kind.value, "now": parameters["now"]}
    await session.execute(_SET_TOTAL, {**total, "level": level, "amount": amount})


async def require_total(
    session: AsyncSession, user: Identity | LimitedUser, kind: LimitKind, cost: int
) -> None:
    """Raise QuotaExceeded if `cost` would exceed a total, which is measured now.

    Two requests may both pass, unless the caller has locked the user's row.
    """
    limit = limit_of(kind, user.role)
    if limit is None:
        return
    used = int(await session.scalar(_MEASURES[kind], {"user_id": user.id, "now": clock.now()}) or 0)
    amount = (await get_overrides(session, user.id)).get(kind, limit.amount)
    if used + cost > amount:
        raise _quota_exceeded(kind, used=used, cost=cost, amount=amount)


def _quota_exceeded(kind: LimitKind, *, used: int, cost: int, amount: int) -> QuotaExceeded:
    """Return the error for a total, with advice on what to do."""
    unit, _, advice = _ADVICE[kind].partition(";")
    request = f", and this request needs {cost}" if cost > 1 else ""
    return QuotaExceeded(
        f"You have {used} of {amount} {unit}{request};{advice}, or ask an administrator for a"
        " higher limit",
        limit=kind,
    )


async def _raise_limit_reached(
    session: AsyncSession,
    kind: LimitKind,
    cost: int,
    limit: Limit,
    parameters: Mapping[str, Any],
) -> NoReturn:
    """Raise LimitReached, with the time after which the cost fits into the limit again."""
    assert limit.per is not None  # noqa: S101 - a rate
    amount = (await get_overrides(session, parameters["user_id"])).get(kind, limit.amount)
    window = limit.per.total_seconds()
    levels = await _levels(session, parameters["subject"], {kind: limit._replace(amount=amount)})
    seconds = window if cost > amount else (levels[kind] + cost - amount) * window / amount
    retry_after = max(math.ceil(seconds), 1)
    rate = _rate(kind, limit._replace(amount=amount), levels[kind])
    rates.report(rate._replace(reset=retry_after))
    metrics.count("pressroom_limited_requests_total", kind.value)
    raise LimitReached(
        f"The limit is {amount} {kind.replace('_', ' ')} {_WINDOW_NAMES[limit.per]}; try again"
        " after Retry-After seconds, or ask an administrator for a higher limit",
        limit=kind,
        retry_after=retry_after,
    )


_WINDOW_NAMES = {
    timedelta(minutes=1): "per minute",
    timedelta(hours=1): "per hour",
    timedelta(days=1): "per day",
}


async def _levels(
    connection: AsyncSession | Reader, subject: str, limits: Mapping[LimitKind, Limit]
) -> dict[LimitKind, float]:
    """Return how much of each rate is used now."""
    now = clock.now()
    rows = (await connection.execute(_USES, {"subject": subject})).all()
    uses = {row.kind: row for row in rows}
    levels: dict[LimitKind, float] = {}
    for kind, limit in limits.items():
        if limit.per is not None:
            use = uses.get(kind)
            passed = max((now - use.counted_at) / limit.per, 0) if use else 0
            levels[kind] = max(use.level - passed * limit.amount, 0) if use else 0
    return levels


async def get_overrides(
    connection: AsyncSession | Reader, user_id: int | None
) -> dict[LimitKind, int]:
    """Return the amounts that administrators have set for a user."""
    rows = (await connection.execute(_OVERRIDES, {"user_id": user_id})).all()
    return {LimitKind(row.kind): row.amount for row in rows if row.kind in DEFAULTS}


async def get_limits(
    connection: Reader | AsyncSession, *, user_id: int, actor: Identity
) -> UserLimits:
    """Return a user's limits. Raises NotAuthorized, UserNotFound."""
    require(actor, Action.READ_PRIVATE_USER, owner_id=user_id)
    role = await _role(connection, user_id)
    overrides = await get_overrides(connection, user_id)
    return UserLimits(limits=[_limit_response(kind, role, overrides) for kind in USER_KINDS])


def _limit_response(
    kind: LimitKind, role: Role, overrides: Mapping[LimitKind, int]
) -> LimitResponse:
    limit = limit_of(kind, role)
    default = None if limit is None else limit.amount
    return LimitResponse(
        kind=kind,
        amount=overrides.get(kind, default) if limit else None,
        default=default,
        seconds=int(limit.per.total_seconds()) if limit and limit.per else None,
    )


async def list_uses(reader: Reader, *, user_id: int, actor: Identity) -> Sequence[LimitUseResponse]:
    """Return how much of each limit a user has used. Raises NotAuthorized, UserNotFound."""
    responses = (await get_limits(reader, user_id=user_id, actor=actor)).limits
    limits = {
        each.kind: Limit(each.amount, timedelta(seconds=each.seconds) if each.seconds else None)
        for each in responses
        if each.amount is not None
    }
    used = await _levels(reader, f"user {user_id}", limits)
    of_user = {"user_id": user_id, "now": clock.now()}
    for kind, measure in _MEASURES.items():
        used[kind] = await reader.scalar(measure, of_user)
    return [
        LimitUseResponse(
            kind=each.kind,
            used=math.ceil(used.get(each.kind, 0)),
            amount=each.amount,
            seconds=each.seconds,
        )
        for each in responses
    ]


async def replace_limits(
    session: AsyncSession,
    *,
    user_id: int,
    new: UserLimitsUpdate,
    precondition: Precondition,
    actor: Identity,
) -> UserLimits:
    """Set a user's amounts that differ from the defaults, as an administrator.

    Raises NotAuthorized, UserNotFound, PreconditionFailed, LimitReached.
    """
    require(actor, Action.CHANGE_LIMITS, owner_id=user_id)
    if await session.get(User, user_id, with_for_update=NO_KEY_UPDATE) is None:
        raise UserNotFound
    before = await get_limits(session, user_id=user_id, actor=actor)
    precondition.require(before)
    await spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    await session.execute(delete(LimitOverride).where(LimitOverride.user_id == user_id))
    session.add_all(
        LimitOverride(user_id=user_id, kind=kind.value, amount=amount)
        for kind, amount in new.limits.items()
    )
    await session.flush()  # makes the rows visible to the query below
    after = await get_limits(session, user_id=user_id, actor=actor)
    if after != before:
        audit.record(session, AuditAction.CHANGE_LIMITS, actor_id=actor.id, subject_id=user_id)
    return after


async def _role(connection: Reader | AsyncSession, user_id: int) -> Role:
    role = await connection.scalar(_ROLE, {"user_id": user_id})
    if role is None:
        raise UserNotFound
    return Role(role)


async def purge_uses(database: Database) -> int:
    """Delete expired counts in batches; return how many.

    Expired totals are deleted too, and measured again at the next use.
    """
    parameters = {"limit": SWEEP_BATCH, "before": clock.now() - MAX_WINDOW}
    count, subject, kind = 0, "", ""
    while True:
        async with paced_unit_of_work(database) as session:
            result = await session.execute(_PURGE, {**parameters, "subject": subject, "kind": kind})
            last = result.one_or_none()
        if last is None:
            return count
        subject, kind, rows = last
        count += rows


async def release_batch(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of all upload reservations; return how many."""
    key = UploadReservation.id
    return await delete_oldest(session, batch, key, order_by=key)


async def purge_reservations(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of expired upload reservations; return how many."""
    column, now = UploadReservation.expires_at, clock.now()
    return await delete_oldest(session, batch, UploadReservation.id, column < now, order_by=column)
